"""Flow `refresh`: the corpus changed. Index and retrieval are brought up to date, the live adapter stays; nothing is trained."""

from typing import Any

from prefect import flow

from flows import ledger, pipeline, promotion, steps
from flows.candidate import Candidate, workspace_candidate
from flows.opening import live_entry
from flows.session import Session, session
from flows.shipping import ship
from flows.store import open_file


@flow(name="refresh", flow_run_name="refresh")
def refresh() -> dict[str, Any]:
    with session("refresh") as opened:
        return ship(opened, refreshed_candidate(opened)).as_state()


def refreshed_candidate(opened: Session) -> Candidate:
    """Today's corpus with the adapter that is live."""
    champion = live_entry(ledger.read(opened.settings.ledger))
    steps.reproduce(opened, "retrieval")
    restore_adapter(opened, champion)
    steps.reproduce_only(opened, ["evaluate"])
    return workspace_candidate(opened.settings)


def restore_adapter(opened: Session, champion: ledger.Entry) -> None:
    """The adapter that is live, not the newest that was trained: a refused retrain must not slip in with a refresh."""
    lock = promotion.champion_evidence(opened.settings, champion)["dvc.lock"]
    pipeline.restore_stage(opened.settings, "adapter", open_file(opened.settings.store, lock).decode())
