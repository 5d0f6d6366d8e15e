"""`tandem doctor`: re-read what ledger, store, index and registry claim, and name what is missing, torn or foreign."""

import json
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass

from flows import corpus, indexes, ledger, pipeline, promotion, registration, registry, tracking
from flows.evidence import open_evidence
from flows.ledger import Entry, Found
from flows.lock import exclusive
from flows.opening import manifest_text
from flows.retention import retired
from flows.session import note_running
from flows.settings import Settings
from flows.store import open_folder
from flows.succession import promotion_of
from tasks.errors import TandemError
from tasks.manifest import Release, load_release
from tasks.records import Record


@dataclass(frozen=True)
class Finding:
    """What is wrong, where, and the command that mends it."""

    what: str
    where: str
    mend: str


def examine(settings: Settings) -> list[Finding]:
    """Everything that is wrong; an empty list is health. Changes nothing."""
    return [*metadata(settings), *history(settings), *versions(settings), *dead_runs(settings), *unfinished(settings)]


def metadata(settings: Settings) -> Iterator[Finding]:
    try:
        pipeline.check_metadata(settings.root)
    except TandemError as error:
        yield Finding(str(error), "DVC", "tandem ingest")
    data = settings.root / "data"
    if not (data / "raw").exists() and (data / ".raw.old").exists():
        yield Finding("an ingest was interrupted while it swapped the corpus", "data/", "tandem doctor --mend")


def history(settings: Settings) -> Iterator[Finding]:
    """The chain, then every release that could be asked or rolled back to."""
    try:
        entries = ledger.read(settings.ledger)
    except TandemError as error:
        yield Finding(str(error), str(settings.ledger), "restore the entry from a backup")
        return
    live = ledger.live(entries)
    for found in kept(entries):
        yield from release_faults(settings, entries, found, live is not None and live.release == found.release)
    for entry in entries:
        yield from evidence_faults(settings, entry)


def kept(entries: list[Entry]) -> list[Found]:
    gone = retired(entries)
    return [found for found in ledger.known(entries) if found.release not in gone]


def release_faults(settings: Settings, entries: list[Entry], found: Found, live: bool) -> Iterator[Finding]:
    where = f"release {found.number} ({found.release[:12]})"
    try:
        release = load_release(manifest_text(settings, found.release))
    except TandemError as error:
        yield Finding(str(error), where, "restore the store from a backup")
        return
    yield from piece_faults(settings, where, release, live)
    try:
        indexes.open_rows(settings, release)
    except TandemError as error:
        yield Finding(str(error), where, indexes.advice(settings, release, lock_of(entries, found)))


def piece_faults(settings: Settings, where: str, release: Release, live: bool) -> Iterator[Finding]:
    pieces = {"base model": release.base.digest, "embedder": release.embedder.digest}
    if release.query_encoder:
        pieces["query encoder"] = release.query_encoder.digest
    if release.adapter:
        pieces["adapter"] = release.adapter.digest
    for name, digest in pieces.items():
        try:
            open_folder(settings.store, digest)
        except TandemError as error:
            backup = f"restore {settings.store}/objects/{digest} from a backup"
            yield Finding(
                f"{name}: {error}", where, f"tandem refresh (seals the same content again), or {backup}" if live else backup
            )


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
        yield Finding(f"MLflow run {run_id} is RUNNING, its process is gone", "MLflow", "tandem doctor --mend")


def unfinished(settings: Settings) -> Iterator[Finding]:
    """Erasures whose tombstone stands, and whose pages are still in the stores."""
    for path in sorted((settings.home / "erasing").glob("*.json")):
        yield Finding(f"an erasure is not finished ({path.stem[:12]}): the stores still hold it", "erasure", "tandem maintain")


def mend(settings: Settings) -> list[str]:
    """What can be put right without losing anything. Returns what was done. Raises InputError while a flow is at work, whose
    unfinished work would look like something to mend."""
    with exclusive(settings.home / "lock", what="doctor --mend"):
        done = [f"run {run_id} marked KILLED" for run_id in tracking.end_dead_runs(settings)]
        if corpus.mend(settings, lambda pid: note_running(settings, pid)):
            done.append("an interrupted ingest was put right")
        found = registry.versions(settings)
        entries = ledger.read(settings.ledger)
        done += mend_indexes(settings, entries)
        if ledger.live(entries) is not None and not registration.cut(settings, entries, found):
            done += registration.restore(settings, entries)
            done += promotion.put_alias(settings, entries, registry.versions(settings))
        return done


def mend_indexes(settings: Settings, entries: list[Entry]) -> list[str]:
    done = []
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
    return ""


def as_json(findings: list[Finding]) -> list[Record]:
    return [dict(json.loads(json.dumps(asdict(finding)))) for finding in findings]
