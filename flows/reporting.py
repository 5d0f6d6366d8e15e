"""`tandem report [N]`: a judgement as a page, from the evidence that the ledger names; the same page for one just made."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from flows import comparing, erasures, ledger
from flows.amendments import replaced
from flows.aside import aside, new_file
from flows.evidence import open_evidence, replacement
from flows.ledger import SHORTEST, Entry
from flows.opening import manifest_text
from flows.settings import Settings
from flows.succession import promotion_of
from tasks.errors import InputError
from tasks.headline import undecided
from tasks.judged import Judged
from tasks.manifest import Release, difference, load_release, release_id, render, short
from tasks.page import page
from tasks.page_costs import cost_rows
from tasks.page_rows import arm_table, columns_of, more_figures
from tasks.params import ARMS
from tasks.records import Record, read_json
from tasks.tombstones import Tombstones, blanked

STUDY = "study.json"  # of .tandem/: the newest one
JUDGED = ("promote", "refuse")  # the entries that a verdict stands behind


@dataclass(frozen=True)
class Case:
    """What was judged, against which ledger, and the evidence by name."""

    release: Release
    identity: str
    before: list[Entry]
    evidence: Mapping[str, bytes]
    tombstones: Tombstones
    stands: Mapping[str, str]  # for a release that an erasure replaced

    @property
    def champion(self) -> Entry | None:
        return ledger.live(self.before)

    def json(self, name: str) -> Any:
        return json.loads(self.evidence[name]) if name in self.evidence else None

    def answers(self, name: str) -> list[Record]:
        told = (json.loads(line) for line in self.evidence.get(name, b"").splitlines() if line.strip())
        return [blanked(record, self.tombstones.covers) for record in told]

    def documents(self, digests: Mapping[str, str]) -> dict[str, str]:
        return {page: digest for page, digest in digests.items() if not self.tombstones.covers(page)}


def report(settings: Settings, name: str | None, target: Path | None) -> Record:
    """Write the page and say where. Raises InputError for a judgement that nobody knows, or whose evidence is gone."""
    entries = ledger.read(settings.ledger)
    entry = newest(entries) if name is None else named(entries, name)
    judged = of_entry(settings, entries, entry)
    path = target or settings.home / "reports" / f"{judged.name.lower().replace(' ', '-')}.html"
    write(path, page(judged))
    return {
        "file": str(path),
        "verdict": "cannot decide" if undecided(judged) else judged.outcome,
        "release": judged.identity,
        "name": judged.name,
        "reasons": list(judged.verdict["reasons"]),
        "arms": [arm for arm in ARMS if arm in judged.report["arms"]],
        "figures": figures(judged),
    }


def figures(judged: Judged) -> list[Record]:
    """The page's table of arms, what answering costs, and the metrics and rules, each a text per arm."""
    columns = columns_of(judged.answers, None, None, [])
    rows = [*arm_table(judged.report, judged.verdict, columns), *more_figures(judged.report)]
    scores = [{"title": row["title"], "shown": [told(cell) for cell in row["shown"]], "known": ""} for row in rows]
    return [*scores, *({**row, "title": f"1,000 answers: {row['title']}"} for row in cost_rows(judged.report))]


def told(cell: Record) -> str:
    return f"{cell['mean']} ({cell['interval'].replace(' to ', '-')})" if cell["interval"] else str(cell["mean"])


def of_entry(settings: Settings, entries: list[Entry], entry: Entry) -> Judged:
    """A judgement that the ledger holds."""
    identity = str(entry.candidate if entry.action == "refuse" else entry.release)
    evidence = {name: kept(settings, entry, name, digest) for name, digest in entry.evidence.items()}
    release = load_release(open_evidence(settings.store, identity).decode())
    case = Case(
        release, identity, entries[: entry.sequence - 1], evidence, erasures.standing(settings, entries), replaced(entries)
    )
    name = f"Candidate {short(identity)}" if entry.action == "refuse" else f"Release {entry.number}"
    outcome = "refused" if entry.action == "refuse" else "promoted"
    return judged(settings, case, name, outcome, entry.at, entry.why)


def of_verdict(settings: Settings, entries: list[Entry], release: Release, evidence: Mapping[str, bytes], at: str = "") -> Judged:
    """A judgement that was just made against `entries`, which do not hold it yet."""
    identity = release_id(release)
    case = Case(release, identity, entries, evidence, erasures.standing(settings, entries), replaced(entries))
    accepted = case.json("verdict")["accepted"]
    name = f"Release {ledger.number_for(entries, identity)}" if accepted else f"Candidate {short(identity)}"
    return judged(settings, case, name, "accepted" if accepted else "refused", at, "")


def judged(settings: Settings, case: Case, name: str, outcome: str, at: str, why: str) -> Judged:
    champion = case.champion
    champion_id = case.stands.get(str(champion.release), str(champion.release)) if champion else ""
    live = load_release(manifest_text(settings, champion_id)) if champion else None
    return Judged(
        name=name,
        outcome=outcome,
        at=at,
        why=why,
        release=json.loads(render(case.release)),
        identity=case.identity,
        report=case.json("report"),
        answers=case.answers("answers"),
        verdict=case.json("verdict"),
        champion=f"release {champion.number}" if champion else None,
        champion_arm=live.arm if live else None,
        champion_answers=case.answers("champion answers"),
        changes=since(settings, case, live) if live else {},
        training=case.json("training"),
        retrieval=case.json("retrieval"),
        examples=case.json("examples") or {},
        training_params=training_params(yaml.safe_load(case.evidence["dvc.lock"])),
        judge=case.json("judge"),
        study=study_of(settings, case.release),
    )


def study_of(settings: Settings, release: Release) -> Record | None:
    """Of another base model it would say nothing about this release."""
    path = settings.home / STUDY
    found: Record | None = read_json(path) if path.exists() else None
    return found if found and found["base"] == release.base.digest else None


def since(settings: Settings, case: Case, live: Release) -> Record:
    """What became different between the champion and this release; the champion's own evidence was sealed with it."""
    before = promotion_of(case.before, str(case.champion and case.champion.release)).evidence
    locks = [yaml.safe_load(data) for data in (open_evidence(settings.store, before["dvc.lock"]), case.evidence["dvc.lock"])]
    documents = case.documents(comparing.sealed(settings, before["documents"])), case.documents(case.json("documents"))
    return {
        "content": difference(live, case.release),
        "params": comparing.param_changes(*locks),
        "documents": comparing.document_changes(*documents),
    }


def training_params(lock: Record) -> Record:
    """What the adapter was made with, as DVC noted it."""
    given = lock.get("stages", {}).get("adapter", {}).get("params", {})
    return {key: value for values in given.values() for key, value in values.items()}


# --- Which judgement


def newest(entries: list[Entry]) -> Entry:
    """Refused ones included."""
    for entry in reversed(entries):
        if entry.action in JUDGED and "verdict" in entry.evidence:
            return entry
    raise InputError("nothing has been judged yet; make a release: tandem release")


def named(entries: list[Entry], name: str) -> Entry:
    """A release by its number or id, a refused candidate by the start of its id, either by its ledger entry (`seq:3`)."""
    for entry in reversed(entries):
        if entry.action == "refuse" and named_candidate(entry, name):
            return entry
    return promotion_of(entries, ledger.find(entries, name).release)


def named_candidate(entry: Entry, name: str) -> bool:
    return name == f"seq:{entry.sequence}" or (len(name) >= SHORTEST and str(entry.candidate).startswith(name))


def kept(settings: Settings, entry: Entry, name: str, digest: str) -> bytes:
    if not (settings.store / "files" / replacement(settings.store, digest)).exists():
        raise InputError(
            f"the evidence of ledger entry {entry.sequence} is gone: {name} ({short(digest)}) is not in {settings.store}. "
            "Restore it from a backup; what became of the release: tandem history"
        )
    return open_evidence(settings.store, digest)


def write(path: Path, text: str) -> None:
    """For this user alone: it holds the texts of the corpus."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file: --output report.html")
    try:
        with aside(path.parent, new_file) as whole:
            whole.write_text(text, encoding="utf-8")
            whole.replace(path)
    except OSError as error:
        raise InputError(f"{path} cannot be written: {error.strerror}") from error
