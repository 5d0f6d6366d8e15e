"""Flow `release`: the whole chain, from documents to a verdict, and to a promoted release where the gate lets it."""

from pathlib import Path
from typing import Any

from prefect import flow

from flows import ledger, steps
from flows.candidate import workspace_candidate
from flows.checks import check_adapter_folder
from flows.presenting import check_approval
from flows.refresh import refreshed_candidate
from flows.session import session
from flows.shipping import ship


@flow(name="release", flow_run_name="release")
def release(adapter: str | None = None) -> dict[str, Any]:
    """`adapter`: the folder of an adapter made elsewhere, to be judged in the place of the live one; nothing is trained then."""
    if adapter:
        check_adapter_folder(Path(adapter).absolute())
    with session("release") as opened:
        check_approval(opened.settings)
        if adapter:
            entries = ledger.read(opened.settings.ledger)
            beside = refreshed_candidate(opened, entries)
            return ship(opened, steps.measure_challenger(opened, beside, Path(adapter).absolute()), entries).as_state()
        steps.reproduce(opened, "evaluate")
        return ship(opened, workspace_candidate(opened.settings), ledger.read(opened.settings.ledger)).as_state()
