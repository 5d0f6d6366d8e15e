"""Flow `release`: the whole chain, from documents to a verdict, and to a promoted release where the gate lets it."""

from pathlib import Path
from typing import Any

from prefect import flow

from flows import steps
from flows.candidate import workspace_candidate
from flows.session import session
from flows.shipping import ship


@flow(name="release", flow_run_name="release")
def release(adapter: str | None = None) -> dict[str, Any]:
    """`adapter`: the folder of an adapter made elsewhere, to be judged in the place of the pipeline's own."""
    with session("release") as opened:
        steps.reproduce(opened, "evaluate")
        candidate = workspace_candidate(opened.settings)
        if adapter:
            candidate = steps.measure_challenger(opened, candidate, Path(adapter).absolute())
        return ship(opened, candidate).to_json()
