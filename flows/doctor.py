"""`tandem doctor`: re-read what ledger, store, index and registry claim, and name what is missing, torn or foreign."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass

from flows import ledger, pipeline, registry, tracking
from flows.ledger import Entry
from flows.opening import manifest_text
from flows.retention import retired
from flows.session import restore_raw
from flows.settings import Settings
from flows.store import open_file, open_folder
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
    return [*metadata(settings), *history(settings), *alias(settings), *dead_runs(settings)]


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
    gone = retired(entries)
    for number, release in {entry.number: entry.release for entry in entries if entry.release}.items():
        if release not in gone:
            yield from release_faults(settings, int(number or 0), str(release))
    for entry in entries:
        yield from evidence_faults(settings, entry)


def release_faults(settings: Settings, number: int, identity: str) -> Iterator[Finding]:
    where = f"release {number} ({identity[:12]})"
    try:
        release = load_release(manifest_text(settings, identity))
    except TandemError as error:
        yield Finding(str(error), where, "restore the store from a backup")
        return
    yield from piece_faults(settings, where, release)
    try:
        open_table(settings, release)
    except TandemError as error:
        yield Finding(str(error), where, "dvc checkout data/chunks && dvc repro --force --single-item index")


def piece_faults(settings: Settings, where: str, release: Release) -> Iterator[Finding]:
    pieces = {"base model": release.base.digest, "embedder": release.embedder.digest}
    if release.adapter:
        pieces["adapter"] = release.adapter.digest
    for name, digest in pieces.items():
        try:
            open_folder(settings.store, digest)
        except TandemError as error:
            yield Finding(f"{name}: {error}", where, "tandem release (seals the same content again)")


def open_table(settings: Settings, release: Release) -> None:
    """The version opens, and its rows are those that the manifest names."""
    from tasks.errors import IntegrityError
    from tasks.records import value_digest
    from tasks.search import open_version
    from tasks.vectorstore import existing_ids

    table = open_version(settings.index_uri, release.index.model_dump())
    if value_digest(sorted(existing_ids(table))) != release.index.digest:
        raise IntegrityError(f"table {release.index.table} at {release.index.tag} holds other rows than the release pins")


def evidence_faults(settings: Settings, entry: Entry) -> Iterator[Finding]:
    for name, digest in entry.evidence.items():
        try:
            open_file(settings.store, digest)
        except TandemError as error:
            yield Finding(f"evidence {name}: {error}", f"ledger entry {entry.sequence}", "restore the store from a backup")


def alias(settings: Settings) -> Iterator[Finding]:
    try:
        newest = ledger.live(ledger.read(settings.ledger))
    except TandemError:  # `history` has told of it
        return
    stands = registry.champion_version(settings)
    if newest is None:
        if stands is not None:
            yield Finding(
                f"the alias champion stands at version {stands}, the ledger knows no release", "registry", "delete the alias"
            )
    elif stands != newest.version:
        yield Finding(
            f"the alias champion stands at version {stands}, live is release {newest.number}, version {newest.version}",
            "registry", "tandem doctor --mend",
        )  # fmt: skip
    elif registry.registered_version(settings, str(newest.release)) is None:
        yield Finding(f"version {newest.version} of the live release is gone from the registry", "registry", "tandem release")


def dead_runs(settings: Settings) -> Iterator[Finding]:
    for run_id in tracking.dead_runs(settings):
        yield Finding(f"MLflow run {run_id} is RUNNING, its process is gone", "MLflow", "tandem doctor --mend")


def mend(settings: Settings) -> list[str]:
    """What can be put right without losing anything. Returns what was done."""
    done = [f"run {run_id} marked KILLED" for run_id in tracking.end_dead_runs(settings)]
    restore_raw(settings.root / "data")
    newest = ledger.live(ledger.read(settings.ledger))
    if newest is not None and newest.version is not None and registry.champion_version(settings) != newest.version:
        registry.move_alias(settings, newest.version)
        done.append(f"alias champion moved to version {newest.version}, as the ledger says")
    return done


def as_json(findings: list[Finding]) -> list[Record]:
    return [dict(json.loads(json.dumps(asdict(finding)))) for finding in findings]
