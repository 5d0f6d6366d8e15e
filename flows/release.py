"""Flow `release`: the whole chain, from documents to a verdict, and to a promoted release where the gate lets it."""

from pathlib import Path
from typing import Any

from prefect import flow

from flows.outcome import Outcome
from flows.session import Session, session
from flows.standstill import unless_settled


@flow(name="release", flow_run_name="release")
def release(adapter: str | None = None) -> dict[str, Any]:
    """`adapter`: the folder of an adapter made elsewhere, to be judged in the place of the live one; nothing is trained then."""
    if adapter:
        return challenged(Path(adapter).absolute()).as_state()
    return unless_settled("release", released).as_state()


def released(opened: Session) -> Outcome:
    from flows import ledger, shipping, steps
    from flows.candidate import workspace_candidate

    steps.reproduce(opened, "evaluate")
    return shipping.ship(opened, workspace_candidate(opened.settings), ledger.read(opened.settings.ledger))


def challenged(adapter: Path) -> Outcome:
    from flows import ledger, refreshing, shipping, steps
    from flows.checks import check_adapter_folder

    check_adapter_folder(adapter)
    with session("release") as opened:
        entries = ledger.read(opened.settings.ledger)
        beside = refreshing.refreshed_candidate(opened, entries)
        return shipping.ship(opened, steps.measure_challenger(opened, beside, adapter), entries)
