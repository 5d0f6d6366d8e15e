"""`tandem doctor`: re-read what ledger, store, index and registry claim, and name what is missing, torn or foreign."""

import json
import stat
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from flows import erasures, indexes, ledger, listing, metadata, promotion, registration, registry, tracking
from flows.amendments import origin
from flows.evidence import open_evidence
from flows.finding import Finding
from flows.ledger import Entry, Found
from flows.lock import exclusive
from flows.opening import manifest_text, open_manifest
from flows.retention import retired
from flows.session import note_running
from flows.settings import Settings
from flows.store import Faults
from flows.succession import promotion_of
from tasks.assistant import Assistant
from tasks.errors import TandemError
from tasks.golden import check_pages
from tasks.manifest import Release, load_release
from tasks.records import Record
from tasks.search import widened
from tasks.table_files import torn_manifests
from tasks.tables import is_local

MEND = "tandem doctor --mend"


def examine(settings: Settings, strict: bool = False) -> list[Finding]:
    """Everything that is wrong; an empty list is health. Changes nothing. `strict` also asks the golden questions of every kept
    release, of its index alone, and reads DVC's cache for what those releases may need."""
    return [
        *metadata.torn_files(settings),
        *torn_tables(settings),
        *history(settings),
        *versions(settings),
        *dead_runs(settings),
        *unfinished(settings),
        *open_to_all(settings),
        *(thorough(settings) if strict else ()),
    ]


def torn_tables(settings: Settings) -> Iterator[Finding]:
    for path in torn_manifests(settings.index_uri) if is_local(settings.index_uri) else ():
        yield Finding(f"{path} is torn (by a crash of the machine?): Lance opens no version of that table", "index", MEND)


def history(settings: Settings) -> Iterator[Finding]:
    """The chain, then every release that could be asked or rolled back to."""
    try:
        entries = ledger.read(settings.ledger)
    except TandemError as error:
        yield Finding(str(error), str(settings.ledger), "restore the entry from a backup")
        return
    pieces = Pieces(settings, entries)
    for found in kept(entries):
        yield from release_faults(settings, entries, found, pieces)
    for entry in entries:
        yield from evidence_faults(settings, entry)


def thorough(settings: Settings) -> Iterator[Finding]:
    try:
        entries = ledger.read(settings.ledger)
    except TandemError:  # `history` has told of it
        return
    for found in kept(entries):
        try:
            check_retrieval(settings, entries, found)
        except TandemError as error:
            yield Finding(f"golden questions: {error}", named(found), "tandem doctor --mend, or another release: tandem rollback")
    yield from metadata.object_faults(settings, locks(entries))


def check_retrieval(settings: Settings, entries: list[Entry], found: Found) -> None:
    """The index of a release finds for the golden questions what it found when it was judged. Raises IntegrityError."""
    assistant = open_manifest(settings, manifest_text(settings, found.release))
    evidence = promotion_of(entries, found.release).evidence
    if "golden" not in evidence or "answers" not in evidence:  # sealed before there was such evidence
        return
    if origin(entries, found.release) != found.release:  # an erasure changed its index, and asked it anew
        return
    asked = {record["question"] for record in json.loads(open_evidence(settings.store, evidence["golden"]))["answers"]}
    answers = map(json.loads, open_evidence(settings.store, evidence["answers"]).splitlines())
    before = {each["text"]: each["ranked_pages"] for each in answers if each["text"] in asked and each.get("ranked_pages")}
    erased = erasures.standing(settings, entries)
    before = {question: ranked for question, ranked in before.items() if not any(map(erased.covers, ranked))}
    check_pages(before, {question: pages(assistant, question) for question in before})


def pages(assistant: Assistant, question: str) -> list[str]:
    return [passage["document"] for passage in assistant.index.search(question, widened(assistant.release.retrieval))]


def kept(entries: list[Entry]) -> list[Found]:
    gone = retired(entries)
    return [found for found in ledger.known(entries) if found.release not in gone]


class Pieces:
    """Folders of the store, and what a person can do about one that is damaged."""

    def __init__(self, settings: Settings, entries: list[Entry]) -> None:
        self.settings, self.faults = settings, Faults(settings.store)
        self.of_the_live: set[str] = set()
        live = ledger.live(entries)
        with suppress(TandemError):  # a manifest that is gone has a finding of its own
            self.of_the_live = set(pieces_of(load_release(manifest_text(settings, str(live and live.release)))).values())

    def advice(self, digest: str) -> str:
        backup = f"restore {self.settings.store}/objects/{digest} from a backup"
        return f"tandem refresh (seals the same content again), or {backup}" if digest in self.of_the_live else backup


def release_faults(settings: Settings, entries: list[Entry], found: Found, pieces: Pieces) -> Iterator[Finding]:
    where = named(found)
    try:
        release = load_release(manifest_text(settings, found.release))
    except TandemError as error:
        yield Finding(str(error), where, "restore the store from a backup")
        return
    for name, digest in pieces_of(release).items():
        if fault := pieces.faults.of(digest):
            yield Finding(f"{name}: {fault}", where, pieces.advice(digest))
    try:
        indexes.open_rows(settings, release)
    except TandemError as error:
        yield Finding(str(error), where, indexes.advice(settings, release, lock_of(entries, found)))
        return
    if is_local(settings.index_uri) and not listing.applying(settings, release.index.model_dump()):
        what = "the files of its index are not listed by digest: a changed byte in them would not be found"
        yield Finding(what, where, MEND, minor=True)


def named(found: Found) -> str:
    return f"release {found.number} ({found.release[:12]})"


def pieces_of(release: Release) -> dict[str, str]:
    """What each is called -> its digest."""
    pieces: dict[str, Any] = {"base model": release.base, "embedder": release.embedder}
    optional = {"query encoder": release.query_encoder, "reranker": release.reranker, "adapter": release.adapter}
    return {name: piece.digest for name, piece in (pieces | optional).items() if piece is not None}


def lock_of(entries: list[Entry], found: Found) -> str:
    """The digest of the dvc.lock with which a release was promoted."""
    return promotion_of(entries, found.release).evidence.get("dvc.lock", "")


def evidence_faults(settings: Settings, entry: Entry) -> Iterator[Finding]:
    for name, digest in entry.evidence.items():
        try:
            open_evidence(settings.store, digest)
        except TandemError as error:
            yield Finding(f"evidence {name}: {error}", f"ledger entry {entry.sequence}", "restore the store from a backup")


def versions(settings: Settings) -> Iterator[Finding]:
    """The registry against the ledger: a lost end of the one, lost versions of the other, the alias."""
    found = registry.versions(settings)
    try:
        entries = ledger.read(settings.ledger)
    except TandemError:  # `history` has told of it
        return
    fault = registration.cut(settings, entries, found)
    if fault:
        yield Finding(fault, "ledger", "restore its newest entries from a backup")
        return
    for each in registration.lost(entries, found):
        yield Finding(f"release {each.number} has no version in the registry", "registry", "tandem doctor --mend")
    newest, stands = ledger.live(entries), registry.champion_version(settings)
    if newest is None and stands is not None:
        what = f"the alias champion stands at version {stands}, the ledger knows no release"
        yield Finding(what, "registry", "delete the alias")
    if newest is not None and stands != (number := registry.number_of(found, str(newest.release))):
        what = f"the alias champion stands at version {stands}, live is release {newest.number}, version {number}"
        yield Finding(what, "registry", "tandem doctor --mend")


def dead_runs(settings: Settings) -> Iterator[Finding]:
    for run_id in tracking.dead_runs(settings):
        yield Finding(
            f"MLflow run {run_id} is RUNNING, its process is gone", "MLflow", "any flow, or tandem doctor --mend", minor=True
        )


def unfinished(settings: Settings) -> Iterator[Finding]:
    """Erasures whose tombstone stands, and whose pages are still in the stores."""
    for path in sorted((settings.home / "erasing").glob("*.json")):
        yield Finding(f"an erasure is not finished ({path.stem[:12]}): the stores still hold it", "erasure", "tandem maintain")


def open_to_all(settings: Settings) -> Iterator[Finding]:
    """What Tandem makes is for its user alone; a folder above it may not be."""
    places = [
        settings.home,
        settings.ledger,
        settings.store,
        *([Path(settings.index_uri)] if is_local(settings.index_uri) else []),
    ]
    for folder in sorted({folder for place in places for folder in (place, *place.parents) if folder.is_dir()}):
        if folder.stat().st_mode & (stat.S_IWOTH | stat.S_ISVTX) == stat.S_IWOTH:
            what = f"everybody may write to {folder}, and so put something else where releases lie"
            yield Finding(what, "folders", f"chmod o-w {folder}", minor=True)


def mend(settings: Settings) -> list[str]:
    """What can be put right without losing anything. Returns what was done. Raises InputError while a flow is at work, whose
    unfinished work would look like something to mend."""
    with exclusive(settings.home / "lock", what="doctor --mend"):
        done = [f"run {run_id} marked KILLED" for run_id in tracking.end_dead_runs(settings)]
        found = registry.versions(settings)
        entries = ledger.read(settings.ledger)
        done += metadata.mend_files(settings, entries, lambda pid: note_running(settings, pid))
        done += metadata.mend_objects(settings, locks(entries))
        done += mend_indexes(settings, entries)
        if ledger.live(entries) is not None and not registration.cut(settings, entries, found):
            done += registration.restore(settings, entries)
            done += note_out_of_band(settings, entries)
            done += promotion.put_alias(settings, ledger.read(settings.ledger), registry.versions(settings))
        return done


def note_out_of_band(settings: Settings, entries: list[Entry]) -> list[str]:
    """Whoever came by an alias that was moved by hand got something that nobody promoted: the ledger keeps that it was so."""
    stands, live = registry.champion_version(settings), ledger.live(entries)
    if live is None or not registration.is_foreign(entries, registry.versions(settings), stands):
        return []
    draft = ledger.Draft(
        action="override", release=live.release, number=live.number, version=live.version, candidate=None, who=settings.who,
        why=f"out-of-band change: the alias champion stood at version {stands}, which no entry promoted; put back",
        at=promotion.now(), evidence={}, runs={},
    )  # fmt: skip
    entry = ledger.append(settings.ledger, draft, len(entries))
    return [f"ledger entry {entry.sequence}: {entry.why}"]


def locks(entries: list[Entry]) -> list[str]:
    """Digests of the dvc.lock of each kept release, the newest first."""
    return [digest for found in reversed(kept(entries)) if (digest := lock_of(entries, found))]


def mend_indexes(settings: Settings, entries: list[Entry]) -> list[str]:
    """Torn manifests and damaged tables first: what they stood in the way of is then found, or written again."""
    done = indexes.set_torn_aside(settings)
    pins = []
    for found in kept(entries):
        with suppress(TandemError):  # `examine` tells which piece is gone
            pins.append((load_release(manifest_text(settings, found.release)), lock_of(entries, found)))
    done += indexes.set_damaged_aside(settings, pins, promotion.scratch(settings, "damaged"))
    for found in kept(entries):
        with suppress(TandemError):  # a piece that it needs is gone as well: `examine` tells which
            said = mend_index(settings, entries, found)
            done += [f"release {found.number}: {said}"] if said else []
    return done


def mend_index(settings: Settings, entries: list[Entry], found: Found) -> str:
    release = load_release(manifest_text(settings, found.release))
    try:
        indexes.open_rows(settings, release)
    except TandemError:
        return indexes.mend(settings, release, lock_of(entries, found))
    return indexes.list_again(settings, release)


def as_json(findings: list[Finding]) -> list[Record]:
    return [dict(json.loads(json.dumps(asdict(finding)))) for finding in findings]
