"""The one path on which anything becomes live: judge, seal, verify in a fresh process, register, commit, move the alias.

Effects come last. Until the ledger entry is created nothing has changed for anybody; once it is, the rest only catches up.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from flows import ledger, registration, registry
from flows.candidate import Candidate, as_release, document_digests
from flows.evidence import open_evidence
from flows.ledger import Draft, Entry
from flows.looks import earlier_looks
from flows.opening import manifest_text
from flows.registry import Version
from flows.reporting import of_verdict
from flows.settings import Settings, child_environment
from flows.store import seal_file, seal_folder
from flows.succession import Withdrawn, moved, promotion_of
from tasks.card import card
from tasks.errors import IntegrityError, RefusedError
from tasks.failpoints import failpoint
from tasks.gate import Verdict, decide
from tasks.manifest import Release, load_release, release_id, render, short
from tasks.params import Arm
from tasks.params_files import load
from tasks.params_verdict import GateParams
from tasks.records import canonical_json, read_json
from tasks.reports import load_report
from tasks.slices import fresh_pages, with_freshness
from tasks.verdict import under_changed_gate

ATTEMPTS = 10  # at putting the alias where the ledger says, while other promoters do the same


@dataclass(frozen=True)
class Judgement:
    """A verdict, the release that it is about, and the ledger that it was judged against: its last entry is the fencing token."""

    verdict: Verdict
    release: Release
    entries: list[Entry]
    champion_evaluation: Path | None  # what the champion answered to the candidate's questions; None in a first release

    @property
    def release_id(self) -> str:
        return release_id(self.release)

    @property
    def champion(self) -> Entry | None:
        return ledger.live(self.entries)

    @property
    def sequence(self) -> int:
        return len(self.entries)

    @property
    def already_live(self) -> bool:
        return self.champion is not None and self.champion.release == self.release_id


def champion_arm(settings: Settings, champion: Entry) -> Arm:
    return load_release(manifest_text(settings, str(champion.release))).arm


def judge(settings: Settings, candidate: Candidate, entries: list[Entry], champion_evaluation: Path | None) -> Judgement:
    """Against the champion of `entries`, which were read before its answers to the candidate's very questions were looked up."""
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
        before = sealed_json(settings, champion_evidence(entries, champion)["documents"])
        report = with_freshness(report, fresh_pages(before, document_digests(candidate)))
    earlier = earlier_looks(settings, entries, report)
    verdict = decide(report, against, params, corpus_changed, earlier)
    if champion is not None:
        judged_by = sealed_json(settings, champion_evidence(entries, champion)["verdict"])["thresholds"]
        verdict = under_changed_gate(verdict, judged_by)
    arm: Any = verdict.arm or (champion_arm(settings, champion) if champion else "rag")
    return Judgement(verdict, as_release(candidate, arm), entries, champion_evaluation)


def check_not_withdrawn(withdrawn: Withdrawn, identity: str) -> None:
    """A person who rolled back from this very release must not find it live again tomorrow."""
    entry = withdrawn.get(identity)
    if entry is not None:
        raise RefusedError(
            f"this very release ({short(identity)}) was rolled back from by {entry.who} (ledger entry "
            f"{entry.sequence}: {entry.why}); change something first, or bring it back on purpose: "
            f"tandem rollback --to {short(identity)} --reason ..."
        )


def seal(settings: Settings, candidate: Candidate, judgement: Judgement) -> dict[str, str]:
    """Copy every piece into the store, fsynced, and return the evidence by digest. Sealing twice is the same as once."""
    failpoint("promotion.before-seal")
    seal_pieces(settings, candidate, judgement.release)
    failpoint("promotion.after-seal")
    return evidence(settings, candidate, judgement)


def seal_pieces(settings: Settings, candidate: Candidate, release: Release) -> None:
    """Also of a release that is live already: a piece that was damaged in the store is whole again."""
    seal_folder(settings.store, candidate.base)
    seal_folder(settings.store, candidate.embedder)
    if candidate.query_encoder:
        seal_folder(settings.store, candidate.query_encoder[0])
    if candidate.reranker:
        seal_folder(settings.store, candidate.reranker[0])
    if release.adapter:
        seal_folder(settings.store, candidate.adapter)
    seal_file(settings.store, render(release).encode())


def evidence(settings: Settings, candidate: Candidate, judgement: Judgement) -> dict[str, str]:
    """What the decision rested on, by digest: kept for as long as the ledger."""
    return {name: seal_file(settings.store, content) for name, content in pieces(settings, candidate, judgement).items()}


def pieces(settings: Settings, candidate: Candidate, judgement: Judgement) -> dict[str, bytes]:
    """The evidence itself, by name; the release's model card is told from the rest of it."""
    golden = read_json(candidate.evaluation / "golden.json")[judgement.release.arm]
    found: dict[str, bytes] = {
        "report": (candidate.evaluation / "report.json").read_bytes(),
        "answers": (candidate.evaluation / "answers.jsonl").read_bytes(),
        "golden": canonical_json(golden).encode(),
        "verdict": judgement.verdict.to_json().encode(),
        "dvc.lock": candidate.lock.read_bytes(),
        "documents": canonical_json(document_digests(candidate)).encode(),
    }
    found |= {name: path.read_bytes() for name, path in candidate.curves.items() if path.exists()}
    if judgement.champion_evaluation is not None:
        found["champion report"] = (judgement.champion_evaluation / "report.json").read_bytes()
        found["champion answers"] = (judgement.champion_evaluation / "answers.jsonl").read_bytes()
    return found | {"card": card(of_verdict(settings, judgement.entries, judgement.release, found)).encode()}


def verify(settings: Settings, identity: str, golden: str) -> None:
    """Load the sealed release in a process that knows nothing else, and ask it the golden questions."""
    failpoint("promotion.before-verify")
    command = [sys.executable, "-m", "flows.verify", identity, golden]
    environment = os.environ | child_environment(settings)
    done = subprocess.run(
        command, cwd=settings.root, env=environment, text=True, capture_output=True, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode:
        said = (done.stderr or done.stdout).strip()[-2000:]
        raise IntegrityError(f"release {short(identity)} does not verify, nothing was promoted: {said}")


def refuse(
    settings: Settings, judgement: Judgement, reasons: Sequence[str], evidence_digests: Mapping[str, str], runs: Mapping[str, str]
) -> Entry:
    """Record a refusal, by the gate or by a person, once: the same candidate refused again for the same reasons adds nothing."""
    champion, why = judgement.champion, " ".join(reasons)
    newest = judgement.entries[-1] if judgement.entries else None
    if newest and is_same_refusal(newest, judgement, why, evidence_digests):
        return newest
    draft = Draft(
        action="refuse",
        release=champion.release if champion else None,
        number=champion.number if champion else None,
        version=champion.version if champion else None,
        candidate=judgement.release_id,
        who=settings.who,
        why=why,
        at=now(),
        evidence=dict(evidence_digests),
        runs=dict(runs),
    )
    failpoint("promotion.before-refusal")
    entry = ledger.append(settings.ledger, draft, judgement.sequence)
    failpoint("promotion.after-refusal")
    return entry


def is_same_refusal(entry: Entry, judgement: Judgement, why: str, evidence_digests: Mapping[str, str]) -> bool:
    """By the verdict, which holds every number that counted; report and answers also hold how long each answer took."""
    same = entry.evidence.get("verdict") == evidence_digests["verdict"] and entry.why == why
    return entry.action == "refuse" and entry.candidate == judgement.release_id and same


def register(settings: Settings, judgement: Judgement, run_id: str) -> int:
    failpoint("promotion.before-register")
    version = registration.register(settings, judgement.release, json.loads(judgement.verdict.to_json()), run_id)
    failpoint("promotion.after-register")
    return version


def commit(
    settings: Settings, judgement: Judgement, version: int, evidence_digests: Mapping[str, str], runs: Mapping[str, str]
) -> Entry:
    """The commit point: one exclusive create. Before it the old release is live, after it the new one."""
    draft = Draft(
        action="promote",
        release=judgement.release_id,
        number=ledger.number_for(judgement.entries, judgement.release_id),
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


def follow_ledger(settings: Settings) -> str | None:
    """Finish an alias move that was interrupted, on a registry that was lost after making it again. Returns what was done;
    refuses an alias that the ledger does not know, and a ledger that lost its end.

    Called by every flow first, so that whoever comes next after a crash mends it.
    """
    registered = registry.versions(settings)
    entries = ledger.read(settings.ledger)
    registration.check_not_cut(settings, entries, registered)
    newest = ledger.live(entries)
    if newest is None:
        return None
    done = []
    if registry.number_of(registered, str(newest.release)) is None:
        done = registration.restore(settings, entries)
        registered = registry.versions(settings)
    registration.check_known(entries, registered, registry.champion_version(settings))
    done += put_alias(settings, entries, registered)
    return "; ".join(done) or None


def put_alias(settings: Settings, entries: list[Entry], registered: list[Version]) -> list[str]:
    """Where the ledger says, wherever it stood; the version then says since which entry. Returns what was done.

    MLflow's last writer wins, so a promoter that was held up after its entry must not write what is past: the ledger is read
    again right before the write and after it, and the alias put right where that was not soon enough.
    """
    done: list[str] = []
    for _ in range(ATTEMPTS):
        version, said = put_once(settings, entries, registered)
        done += said
        newer = ledger.read(settings.ledger)
        if len(newer) == len(entries) and registry.champion_version(settings) == version:
            return done
        entries, registered = newer, registry.versions(settings)
    raise IntegrityError(f"the alias champion did not stay where it was put, {ATTEMPTS} times; run: tandem doctor --mend")


def put_once(settings: Settings, entries: list[Entry], registered: list[Version]) -> tuple[int, list[str]]:
    """The version of the live release, and what was done."""
    entry = moved(entries, str(entries[-1].release))
    version = next((each for each in registered if each.release == entry.release), None)
    if version is None:
        raise IntegrityError(f"release {entry.number} is live, and the registry has no version of it. See: tandem doctor")
    behind = registry.champion_version(settings) != version.number
    if behind:
        failpoint("promotion.before-alias")
        if len(ledger.read(settings.ledger)) > len(entries):
            return version.number, []  # of an entry that is not the newest any more
        failpoint("promotion.at-alias")
        registry.move_alias(settings, version.number)
    if version.ledger != entry.sequence:
        registration.tag(settings, version.number, entry)
    failpoint("promotion.after-alias")
    return version.number, [f"alias champion moved to version {version.number}"] if behind else []


def champion_evidence(entries: list[Entry], champion: Entry) -> dict[str, str]:
    """The evidence with which the live release was promoted (a rollback or a refusal later does not carry it)."""
    return promotion_of(entries, str(champion.release)).evidence


def champion_evaluation(settings: Settings, entries: list[Entry], champion: Entry, folder: Path) -> Path:
    """Put the champion's sealed report and answers into `folder`, as `load_report` reads them."""
    digests = champion_evidence(entries, champion)
    for name, file in (("report", "report.json"), ("answers", "answers.jsonl")):
        (folder / file).write_bytes(open_evidence(settings.store, digests[name]))
    return folder


def sealed_json(settings: Settings, digest: str) -> Any:
    return json.loads(open_evidence(settings.store, digest))


def scratch(settings: Settings, name: str) -> Path:
    """A folder for what is measured outside the pipeline; a later run overwrites it."""
    folder = settings.home / "scratch"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix=f"{name}-", dir=folder))


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
