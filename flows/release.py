"""Flow `release`: the whole chain, from documents to a verdict, and to a promoted release where the gate lets it."""

from pathlib import Path
from typing import Any

from prefect import flow

from flows import steps
from flows.candidate import workspace_candidate
from flows.refresh import refreshed_candidate
from flows.session import session
from flows.shipping import ship


@flow(name="release", flow_run_name="release")
def release(adapter: str | None = None) -> dict[str, Any]:
    """`adapter`: the folder of an adapter made elsewhere, to be judged in the place of the live one; nothing is trained then."""
    with session("release") as opened:
        if adapter:
            beside = refreshed_candidate(opened)
            return ship(opened, steps.measure_challenger(opened, beside, Path(adapter).absolute())).as_state()
        steps.reproduce(opened, "evaluate")
        return ship(opened, workspace_candidate(opened.settings)).as_state()
