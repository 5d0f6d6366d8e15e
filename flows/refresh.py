"""Flow `refresh`: the corpus changed. Index and retrieval are brought up to date; the live adapter and, where one was tuned, the
live embedder stay; nothing is trained."""

from typing import Any

from prefect import flow

from flows.outcome import Outcome
from flows.session import Session
from flows.standstill import unless_settled


@flow(name="refresh", flow_run_name="refresh")
def refresh() -> dict[str, Any]:
    return unless_settled("refresh", refreshed).as_state()


def refreshed(opened: Session) -> Outcome:
    from flows import ledger, refreshing, shipping

    entries = ledger.read(opened.settings.ledger)
    return shipping.ship(opened, refreshing.refreshed_candidate(opened, entries), entries)
