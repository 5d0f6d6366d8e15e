"""The promotion path as a flow runs it: measure the champion, judge, show, seal; then refuse, or verify, register, commit."""

from dataclasses import dataclass
from typing import Any, cast

from prefect.states import Completed

from flows import ledger, presenting, promotion, steps
from flows.candidate import Candidate
from flows.ledger import Entry
from flows.promotion import Judgement
from flows.session import Session, say
from tasks.errors import RefusedError
from tasks.manifest import short


@dataclass(frozen=True)
class Outcome:
    """How a flow ended. `outcome`: promoted | refused | unchanged."""

    outcome: str
    number: int | None
    release: str | None
    arm: str | None
    reasons: list[str]
    sequence: int

    def to_json(self) -> dict[str, Any]:
        return dict(self.__dict__)

    def as_state(self) -> dict[str, Any]:
        """Completed, under the outcome's name: a list of runs shows it, and prefect.flow-run.Refused is an event to act upon.
        Prefect hands the data to whoever called the flow: `to_json`, hence the type."""
        return cast(
            dict[str, Any], Completed(name=self.outcome.capitalize(), message=" ".join(self.reasons), data=self.to_json())
        )


def ship(session: Session, candidate: Candidate) -> Outcome:
    """The one way in which a flow changes what is live."""
    if promotion.unchanged(session.settings, candidate):
        return nothing_new(session)
    judgement = judge(session, candidate)
    evidence = steps.seal(session, candidate, judgement)
    if not judgement.verdict.accepted:
        return refused(session, judgement, steps.refuse(session, judgement, evidence), list(judgement.verdict.reasons))
    if judgement.already_live:
        return nothing_new(session)
    try:
        promotion.check_not_withdrawn(session.settings, judgement)
        presenting.ask_approval(session.settings, judgement)
    except RefusedError as error:
        say(str(error))
        return refused(session, judgement, None, [str(error)])
    return promote(session, judgement, evidence)


def judge(session: Session, candidate: Candidate) -> Judgement:
    champion = ledger.live(ledger.read(session.settings.ledger))
    evaluation = steps.measure_champion(session, champion, candidate) if champion else None
    judgement = steps.judge(session, candidate, evaluation)
    presenting.show_judgement(session, candidate, judgement)
    return judgement


def promote(session: Session, judgement: Judgement, evidence: dict[str, str]) -> Outcome:
    steps.verify(session, judgement.release_id, evidence["golden"])
    version = steps.register(session, judgement)
    entry = steps.commit(session, judgement, version, evidence)
    promotion.commit_lock(session.settings, entry)
    say(f"release {entry.number} ({short(judgement.release_id)}, arm {judgement.release.arm}) is live")
    tags = {"outcome": "promoted", "release": str(entry.number), "release.id": judgement.release_id}
    presenting.conclude(session, f"release {entry.number} promoted", tags)
    return Outcome(
        "promoted", entry.number, judgement.release_id, judgement.release.arm, list(judgement.verdict.reasons), entry.sequence
    )


def refused(session: Session, judgement: Judgement, entry: Entry | None, reasons: list[str]) -> Outcome:
    number = judgement.champion.number if judgement.champion else None
    say(f"refused: {' '.join(reasons)}")
    presenting.conclude(session, "refused", {"outcome": "refused", "why": " ".join(reasons)[:4000]})
    sequence = entry.sequence if entry else judgement.sequence
    return Outcome("refused", number, judgement.release_id, judgement.verdict.arm, reasons, sequence)


def nothing_new(session: Session) -> Outcome:
    entries = ledger.read(session.settings.ledger)
    live = entries[-1]
    say(f"nothing new: release {live.number} already is what the corpus, the questions and the params make")
    presenting.conclude(session, "nothing new", {"outcome": "unchanged", "release": str(live.number)})
    arm = promotion.champion_arm(session.settings, live)
    return Outcome("unchanged", live.number, live.release, arm, ["the candidate is the live release"], live.sequence)
