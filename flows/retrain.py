"""Flow `retrain`: a new adapter from the questions and the index as they are now, on the work pool that has the accelerator."""

from typing import Any

from prefect import flow

from flows import steps
from flows.candidate import workspace_candidate
from flows.session import session
from flows.shipping import ship


@flow(name="retrain", flow_run_name="retrain")
def retrain() -> dict[str, Any]:
    """Where nothing that the adapter depends on has changed, DVC finds nothing to run and the gate is not troubled."""
    with session("retrain") as opened:
        steps.reproduce(opened, "adapter")
        steps.reproduce(opened, "evaluate")
        return ship(opened, workspace_candidate(opened.settings)).to_json()
