"""The one path on which anything becomes live: judge, seal, verify in a fresh process, register, commit, move the alias.

Effects come last. Until the ledger entry is created nothing has changed for anybody; once it is, the rest only catches up.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

from flows import ledger, registry
from flows.candidate import Candidate, as_release, document_digests
from flows.failpoints import failpoint
from flows.ledger import Draft, Entry
from flows.opening import manifest_text
from flows.settings import Settings, child_environment
from flows.store import open_file, seal_file, seal_folder
from tasks.errors import IntegrityError, RefusedError, TandemError
from tasks.gate import Verdict, decide
from tasks.manifest import Release, load_release, release_id, render, short
from tasks.params import Arm, GateParams, load
from tasks.records import canonical_json, read_json
from tasks.reports import load_report


@dataclass(frozen=True)
class Judgement:
    """A verdict, the release that it is about, and the newest ledger entry that it was judged against."""

    verdict: Verdict
    release: Release
    sequence: int
    champion: Entry | None

    @property
    def release_id(self) -> str:
        return release_id(self.release)

    @property
    def already_live(self) -> bool:
        return self.champion is not None and self.champion.release == self.release_id


def champion_arm(settings: Settings, champion: Entry) -> Arm:
    return load_release(manifest_text(settings, str(champion.release))).arm


def unchanged(settings: Settings, candidate: Candidate) -> bool:
    """Whether the candidate, served with the champion's arm, is the champion: then there is nothing to judge."""
    champion = ledger.live(ledger.read(settings.ledger))
    if champion is None:
        return False
    return release_id(as_release(candidate, champion_arm(settings, champion))) == champion.release


def judge(settings: Settings, candidate: Candidate, champion_evaluation: Path | None) -> Judgement:
    """`champion_evaluation`: the champion's answers to the candidate's very questions; None in a first release."""
    entries = ledger.read(settings.ledger)
    champion = ledger.live(entries)
    params = load(GateParams, settings.root / "params")
    report = load_report(candidate.evaluation, index_recall=candidate.recall)
    if (champion is None) != (champion_evaluation is None):
        raise ValueError("a champion is judged by its own answers, and only a champion has any: measure it first")
    against, corpus_changed = None, True
    if champion is not None and champion_evaluation is not None:
        pinned = load_release(manifest_text(settings, str(champion.release)))
        against = load_report(champion_evaluation, served=pinned.arm)
        corpus_changed = pinned.corpus.digest != as_release(candidate, pinned.arm).corpus.digest
    verdict = decide(report, against, params, corpus_changed)
    arm: Any = verdict.arm or (champion_arm(settings, champion) if champion else "rag")
    return Judgement(verdict, as_release(candidate, arm), len(entries), champion)


def check_not_withdrawn(settings: Settings, judgement: Judgement) -> None:
    """A person who rolled back from this very release must not find it live again tomorrow."""
    entries = ledger.read(settings.ledger)
    withdrawn = [
        after for before, after in pairwise(entries)
        if after.action == "rollback" and before.release == judgement.release_id
    ]  # fmt: skip
    if withdrawn:
        entry = withdrawn[-1]
        raise RefusedError(
            f"this very release ({short(judgement.release_id)}) was rolled back from by {entry.who} (ledger entry "
            f"{entry.sequence}: {entry.why}); change something first, or bring it back on purpose: "
            f"tandem rollback --to {short(judgement.release_id)} --reason ..."
        )


def seal(settings: Settings, candidate: Candidate, judgement: Judgement) -> dict[str, str]:
    """Copy every piece into the store, fsynced, and return the evidence by digest. Sealing twice is the same as once."""
    failpoint("promotion.before-seal")
    seal_folder(settings.store, candidate.base)
    seal_folder(settings.store, candidate.embedder)
    if judgement.release.adapter:
        seal_folder(settings.store, candidate.adapter)
    seal_file(settings.store, render(judgement.release).encode())
    failpoint("promotion.after-seal")
    return evidence(settings, candidate, judgement)


def evidence(settings: Settings, candidate: Candidate, judgement: Judgement) -> dict[str, str]:
    """What the decision rested on, by digest: kept for as long as the ledger."""
    golden = read_json(candidate.evaluation / "golden.json")[judgement.release.arm]
    pieces: dict[str, bytes] = {
        "report": (candidate.evaluation / "report.json").read_bytes(),
        "answers": (candidate.evaluation / "answers.jsonl").read_bytes(),
        "golden": canonical_json(golden).encode(),
        "verdict": judgement.verdict.to_json().encode(),
        "dvc.lock": candidate.lock.read_bytes(),
        "documents": canonical_json(document_digests(candidate)).encode(),
    }
    return {name: seal_file(settings.store, content) for name, content in pieces.items()}


def verify(settings: Settings, identity: str, golden: str) -> None:
    """Load the sealed release in a process that knows nothing else, and ask it the golden questions."""
    command = [sys.executable, "-m", "flows.verify", identity, golden]
    environment = os.environ | child_environment(settings)
    done = subprocess.run(
        command, cwd=settings.root, env=environment, text=True, capture_output=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise IntegrityError(f"release {short(identity)} does not verify, nothing was promoted: {said}")


def refuse(settings: Settings, judgement: Judgement, evidence_digests: Mapping[str, str], runs: Mapping[str, str]) -> Entry:
    """Record a refusal once: the same candidate refused again on the same evidence adds nothing."""
    entries = ledger.read(settings.ledger)
    champion = judgement.champion
    if entries and is_same_refusal(entries[-1], judgement, evidence_digests):
        return entries[-1]
    draft = Draft(
        action="refuse",
        release=champion.release if champion else None,
        number=champion.number if champion else None,
        version=champion.version if champion else None,
        candidate=judgement.release_id,
        who=settings.who,
        why=" ".join(judgement.verdict.reasons),
        at=now(),
        evidence=dict(evidence_digests),
        runs=dict(runs),
    )
    return ledger.append(settings.ledger, draft, judgement.sequence)


def is_same_refusal(entry: Entry, judgement: Judgement, evidence_digests: Mapping[str, str]) -> bool:
    """By the verdict, which holds every number that counted; report and answers also hold how long each answer took."""
    same = entry.evidence.get("verdict") == evidence_digests["verdict"]
    return entry.action == "refuse" and entry.candidate == judgement.release_id and same


def register(settings: Settings, judgement: Judgement, run_id: str) -> int:
    """A version of the registered model whose tags tell a reader what the release is."""
    failpoint("promotion.before-register")
    release, identity = judgement.release, judgement.release_id
    row = next(row for row in judgement.verdict.arms if row.arm == release.arm)
    tags = {
        "arm": release.arm,
        "corpus": f"{release.corpus.documents} documents, {short(release.corpus.digest)}",
        "index": f"{release.index.rows} passages, {release.index.tag}",
        "base": release.base.id or release.base.source,
        "embedder": release.embedder.id or release.embedder.source,
        "adapter": short(release.adapter.digest) if release.adapter else "none",
        "primary": f"{row.mean:.3f} ({row.low:.3f} to {row.high:.3f})",
        "questions": short(judgement.verdict.thresholds["questions"]),
    }
    text = f"Release {short(identity)}. " + " ".join(judgement.verdict.reasons)
    version = registry.register(settings, run_id, identity, render(release), tags, text)
    failpoint("promotion.after-register")
    return version


def commit(
    settings: Settings, judgement: Judgement, version: int, evidence_digests: Mapping[str, str], runs: Mapping[str, str]
) -> Entry:
    """The commit point: one exclusive create. Before it the old release is live, after it the new one."""
    entries = ledger.read(settings.ledger)
    draft = Draft(
        action="promote",
        release=judgement.release_id,
        number=ledger.number_for(entries, judgement.release_id),
        version=version,
        candidate=None,
        who=settings.who,
        why=" ".join(judgement.verdict.reasons),
        at=now(),
        evidence=dict(evidence_digests),
        runs=dict(runs),
    )
    failpoint("promotion.before-commit")
    entry = ledger.append(settings.ledger, draft, judgement.sequence)
    failpoint("promotion.after-commit")
    return entry


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


def follow_ledger(settings: Settings) -> str | None:
    """Finish an alias move that was interrupted. Returns what was done; refuses an alias that the ledger does not know.

    Called by every flow and loader first, so that whoever comes next after a crash mends it.
    """
    entries = ledger.read(settings.ledger)
    newest = ledger.live(entries)
    if newest is None or newest.version is None:
        return None
    stands = registry.champion_version(settings)
    if stands == newest.version:
        return None
    if stands is not None and stands not in {entry.version for entry in entries}:
        raise IntegrityError(
            f"the alias champion was moved by hand to version {stands}, which no ledger entry promoted; release {newest.number} "
            "is live. Put the alias back: tandem doctor --mend"
        )
    failpoint("promotion.before-alias")
    registry.move_alias(settings, newest.version)
    registry.tag_version(settings, newest.version, {"ledger": newest.sequence, "number": newest.number})
    failpoint("promotion.after-alias")
    return f"alias champion moved to version {newest.version}"


def champion_evidence(settings: Settings, champion: Entry) -> dict[str, str]:
    """The evidence with which the live release was promoted (a rollback or a refusal later does not carry it)."""
    return promotion_of(ledger.read(settings.ledger), str(champion.release)).evidence


def promotion_of(entries: list[Entry], release: str) -> Entry:
    """The newest entry that promoted this release."""
    return next(entry for entry in reversed(entries) if entry.action == "promote" and entry.release == release)


def champion_evaluation(settings: Settings, champion: Entry, folder: Path) -> Path:
    """Put the champion's sealed report and answers into `folder`, as `load_report` reads them."""
    digests = champion_evidence(settings, champion)
    for name, file in (("report", "report.json"), ("answers", "answers.jsonl")):
        (folder / file).write_bytes(open_file(settings.store, digests[name]))
    return folder


def sealed_json(settings: Settings, digest: str) -> Any:
    return json.loads(open_file(settings.store, digest))


def scratch(settings: Settings, name: str) -> Path:
    """A folder for what is measured outside the pipeline; a later run overwrites it."""
    folder = settings.home / "scratch"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
