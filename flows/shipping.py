"""The promotion path as a flow runs it: measure the champion, judge, show, seal; then refuse, or verify, register, commit."""

import subprocess

from flows import erasures, indexes, ledger, presenting, promotion, steps
from flows.candidate import Candidate, document_digests
from flows.ledger import Entry
from flows.outcome import Outcome
from flows.promotion import Judgement
from flows.session import Session, say
from flows.settings import Settings
from flows.succession import succession
from tasks.errors import RefusedError, TandemError
from tasks.gate import Verdict
from tasks.manifest import short
from tasks.params_files import load
from tasks.params_verdict import JudgeParams


def ship(session: Session, candidate: Candidate, entries: list[Entry]) -> Outcome:
    """The one way in which a flow changes what is live. `entries`: the ledger as the candidate was made against; where another
    promoter has appended to it since, the last step fails rather than replace what nobody compared."""
    if load(JudgeParams, session.settings.root / "params").model:
        candidate = steps.ask_judge(session, candidate)
    judgement = judge(session, candidate, entries)
    if judgement.already_live:
        promotion.seal_pieces(session.settings, candidate, judgement.release)
        indexes.seal_rows(session.settings, judgement.release)
        return nothing_new(session, judgement)
    evidence = steps.seal(session, candidate, judgement)
    reasons = objections(session, candidate, judgement)
    if reasons:
        return refused(session, judgement, steps.refuse(session, judgement, reasons, evidence), reasons)
    return promote(session, judgement, evidence)


def judge(session: Session, candidate: Candidate, entries: list[Entry]) -> Judgement:
    champion = ledger.live(entries)
    evaluation = steps.measure_champion(session, entries, champion, candidate) if champion else None
    judgement = steps.judge(session, candidate, entries, evaluation)
    presenting.show_judgement(session, candidate, judgement)
    return judgement


def objections(session: Session, candidate: Candidate, judgement: Judgement) -> list[str]:
    """Of the gate, of an erasure, of a person who went back from this very release or is asked now; none if it may go live."""
    if not judgement.verdict.accepted:
        return list(judgement.verdict.reasons)
    try:
        adapter = candidate.adapter if judgement.release.adapter else None
        tombstones = erasures.standing(session.settings, judgement.entries)
        erasures.check_nothing_erased(tombstones, document_digests(candidate), adapter)
        promotion.check_not_withdrawn(succession(judgement.entries).withdrawn, judgement.release_id)
        presenting.ask_approval(session.settings, judgement)
    except RefusedError as error:
        return [str(error)]
    return []


def promote(session: Session, judgement: Judgement, evidence: dict[str, str]) -> Outcome:
    steps.verify(session, judgement.release_id, evidence["golden"])
    version = steps.register(session, judgement)
    entry = steps.commit(session, judgement, version, evidence)
    commit_lock(session.settings, entry)
    say(f"release {entry.number} ({short(judgement.release_id)}, arm {judgement.release.arm}) is live")
    tags = {"outcome": "promoted", "release": str(entry.number), "release.id": judgement.release_id}
    presenting.conclude(session, f"release {entry.number} promoted", tags)
    return Outcome(
        "promoted", entry.number, judgement.release_id, judgement.release.arm, list(judgement.verdict.reasons), entry.sequence
    )


def commit_lock(settings: Settings, entry: Entry) -> None:
    """TANDEM_COMMIT_LOCK=1: put dvc.lock, and nothing else, into git after a promotion."""
    if not settings.commit_lock:
        return
    message = f"Release {entry.number} ({short(str(entry.release))})"
    for words in (["add", "--force", "dvc.lock"], ["commit", "--quiet", "--message", message, "--only", "dvc.lock"]):
        done = subprocess.run(["git", *words], cwd=settings.root, text=True, capture_output=True, check=False)
        if done.returncode:
            raise TandemError(
                f"release {entry.number} is live, but dvc.lock was not committed: {(done.stderr or done.stdout).strip()}"
            )


def refused(session: Session, judgement: Judgement, entry: Entry, reasons: list[str]) -> Outcome:
    number = judgement.champion.number if judgement.champion else None
    outcome = refusal(judgement.verdict)
    say(f"{outcome}: {' '.join(reasons)}")
    presenting.conclude(session, outcome, {"outcome": outcome, "why": " ".join(reasons)[:4000]})
    return Outcome(outcome, number, judgement.release_id, judgement.verdict.arm, reasons, entry.sequence)


def refusal(verdict: Verdict) -> str:
    """A person's no to a candidate that the gate accepted is a refusal."""
    return "undecided" if verdict.decision == "cannot decide" else "refused"


def nothing_new(session: Session, judgement: Judgement) -> Outcome:
    live = judgement.entries[-1]
    say(f"nothing new: what the gate would serve is release {live.number}, which is live")
    presenting.conclude(session, "nothing new", {"outcome": "unchanged", "release": str(live.number)})
    reasons = ["the candidate, with the arm that the gate chose, is the live release"]
    return Outcome("unchanged", live.number, live.release, judgement.release.arm, reasons, live.sequence)
