"""Flow `retrain`: a new adapter from the questions and the index as they are now, on the work pool that has the accelerator."""

from typing import Any

from prefect import flow

from flows import ledger, steps
from flows.candidate import workspace_candidate
from flows.outcome import Outcome
from flows.presenting import conclude
from flows.session import Session, say, session
from flows.settings import Settings
from flows.shipping import ship
from tasks.lineage import LINEAGE, question_key
from tasks.records import read_json, read_jsonl


@flow(name="retrain", flow_run_name="retrain")
def retrain(min_new_pairs: int = 0) -> dict[str, Any]:
    """`min_new_pairs`: how many training pairs the live adapter must not have seen yet, for it to be worth the time."""
    with session("retrain") as opened:
        steps.reproduce(opened, "questions")
        new = new_pairs(opened.settings)
        if new < min_new_pairs:
            return not_yet(opened, new, min_new_pairs).as_state()
        steps.reproduce(opened, "evaluate")
        return ship(opened, workspace_candidate(opened.settings), ledger.read(opened.settings.ledger)).as_state()


def new_pairs(settings: Settings) -> int:
    """Training questions that the adapter in the workspace did not learn from; all of them where there is none."""
    learnt = settings.root / "data/adapter" / LINEAGE
    seen = set(read_json(learnt)["questions"]) if learnt.exists() else set()
    return sum(
        question_key(record["question"]) not in seen for record in read_jsonl(settings.root / "data/questions/train.jsonl")
    )


def not_yet(opened: Session, new: int, wanted: int) -> Outcome:
    newest = ledger.live(ledger.read(opened.settings.ledger))
    reason = f"{new} new training pairs; {wanted} are wanted before it retrains"
    say(reason)
    conclude(opened, "too few new pairs", {"outcome": "unchanged", "why": reason})
    number, release = (newest.number, newest.release) if newest else (None, None)
    return Outcome("unchanged", number, release, None, [reason], newest.sequence if newest else 0)
