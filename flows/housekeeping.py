"""What `tandem maintain` does, step by step: choose, record, free, check.

A crash may follow any step: the ledger entry comes first, and the next run frees what it says was dropped.
"""

from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from time import time
from typing import Any

from flows import ledger, listing, promotion
from flows.aside import PREFIX, remove
from flows.evidence import replacement
from flows.indexes import open_rows
from flows.ledger import Draft, Entry, Found
from flows.opening import live_entry, manifest_text
from flows.retention import Choice, choose
from flows.settings import Settings
from flows.store import Faults
from tasks.encoders import ENCODER
from tasks.errors import IntegrityError, TandemError
from tasks.failpoints import failpoint
from tasks.manifest import Release, load_release
from tasks.records import HALF_WRITTEN, Record, folder_digest, iterate_jsonl, read_json

A_DAY = 24 * 3600  # seconds


@dataclass
class Proofs:
    """What was re-read: every byte of a release's pieces, each piece once, its rows, and an answer by both legs of its index."""

    settings: Settings

    def __post_init__(self) -> None:
        self.pieces = Faults(self.settings.store)

    def fault(self, found: Found) -> str:
        """What is wrong with a release; empty where it reads and answers."""
        from tasks.search import open_version
        from tasks.upkeep import check_answers

        try:
            release = pinned(self.settings, found)
            for digest in digests(release):
                self.check_piece(digest)
            open_rows(self.settings, release)
            check_answers(open_version(self.settings.index_uri, release.index.model_dump()))
        except TandemError as error:
            return str(error)
        return ""

    def check_piece(self, digest: str) -> None:
        if fault := self.pieces.of(digest):
            raise IntegrityError(fault)


def pinned(settings: Settings, found: Found) -> Release:
    return load_release(manifest_text(settings, found.release))


def digests(release: Release) -> list[str]:
    """Of the folders in the store that it needs."""
    pieces = (release.base, release.embedder, release.query_encoder, release.reranker, release.adapter)
    return [each.digest for each in pieces if each is not None]


def settle(settings: Settings, keep: int, days: int) -> tuple[Choice, dict[int, str]]:
    """Which releases stay and which go, and what is wrong with those that stay, by number.

    Raises IntegrityError where the live release does not read: nothing is dropped beside a release that is broken.
    """
    entries = ledger.read(settings.ledger)
    if ledger.live(entries) is None:
        return Choice([], []), {}
    proofs = Proofs(settings)
    live = live_entry(entries)
    fault = proofs.fault(Found(str(live.release), int(live.number or 0)))
    if fault:
        raise IntegrityError(f"the live release {live.number} does not read, nothing was freed: {fault}. See: tandem doctor")
    choice = choose(entries, keep, days, datetime.now(UTC), lambda found: not proofs.fault(found))
    return choice, {found.number: fault for found in choice.kept if (fault := proofs.fault(found))}


def retire(settings: Settings, choice: Choice, why: str, run_id: str) -> Entry | None:
    """Record it before anything is freed: from here on the dropped releases are refused by name."""
    entries = ledger.read(settings.ledger)
    if not choice.dropped:
        return None
    live = live_entry(entries)
    draft = Draft(
        action="retire",
        release=live.release,
        number=live.number,
        version=live.version,
        candidate=None,
        who=settings.who,
        why=why,
        at=promotion.now(),
        evidence={f"release {found.number}": found.release for found in choice.dropped},
        runs={"mlflow": run_id},
    )
    failpoint("housekeeping.before-entry")
    entry = ledger.append(settings.ledger, draft, len(entries))
    failpoint("housekeeping.after-entry")
    return entry


def indexes(settings: Settings, kept: list[Found]) -> list[Record]:
    """{"table", "tag", "rows", "embedder": {"digest"}} of every kept release, and of the workspace's manifest."""
    releases = [pinned(settings, found) for found in kept]
    found = [each.index.model_dump() | {"embedder": each.embedder.model_dump()} for each in releases]
    workspace = settings.root / "data/index/manifest.json"
    return [*found, read_json(workspace)] if workspace.exists() else found


def free_index(settings: Settings, kept: list[Found], broken: bool) -> int:
    """Free the versions that nothing names, then the vectors of texts that none of the others holds (where all of them read).

    Returns how many vectors were forgotten.
    """
    from tasks.tables import only_writer
    from tasks.upkeep import keep_versions

    needed = indexes(settings, kept)
    wanted: dict[str, set[str]] = {}
    for each in needed:
        wanted.setdefault(each["table"], set()).add(each["tag"])
    with only_writer(settings.index_uri):
        keep_versions(settings.index_uri, wanted)
        list_again(settings, kept)
        forgotten = 0 if broken else forget_vectors(settings, needed)
    failpoint("housekeeping.after-index")
    return forgotten


def list_again(settings: Settings, kept: list[Found]) -> None:
    """Of the versions as they lie now; one whose rows do not read keeps its old list. Needs `only_writer`."""
    pins = [pinned(settings, found) for found in kept]
    for release in pins:
        with suppress(IntegrityError):
            open_rows(settings, release)
            listing.note(settings, release.index.model_dump())
    listing.keep_only(settings, [release.index.model_dump() for release in pins])


def forget_vectors(settings: Settings, needed: list[Record]) -> int:
    from tasks.embedding import VectorStore

    if not settings.vectors.exists():
        return 0
    with closing(VectorStore(settings.vectors, "")) as store:
        return store.forget_all_but(vector_keys(settings, needed))


def vector_keys(settings: Settings, needed: list[Record]) -> Iterator[str]:
    """Of every passage of these indexes, and of the passages that wait in the workspace."""
    from tasks.embedding import vector_key
    from tasks.search import open_version
    from tasks.upkeep import texts_of

    for each in needed:
        with suppress(IntegrityError):  # of the workspace alone, whose next build makes it again
            yield from (vector_key(each["embedder"]["digest"], text) for text in texts_of(open_version(settings.index_uri, each)))
    passages = settings.root / "data/chunks/passages.jsonl"
    for embedder in (settings.root / "data/models/embedder", settings.root / "data/retriever" / ENCODER):
        if passages.exists() and embedder.exists():
            digest = folder_digest(embedder)
            yield from (vector_key(digest, passage["embedded"]) for passage in iterate_jsonl(passages))


def free_store(settings: Settings, kept: list[Found]) -> None:
    """Models that no kept release pins go, and with them files that no ledger entry names; what the ledger rests on stays."""
    entries = ledger.read(settings.ledger)
    folders = {digest for found in kept for digest in digests(pinned(settings, found))}
    digests_named = {digest for entry in entries for digest in (entry.release, entry.candidate, *entry.evidence.values())}
    named = {replacement(settings.store, digest) for digest in digests_named if digest}
    for folder, needed in ((settings.store / "objects", folders), (settings.store / "files", folders | named)):
        for path in below(folder):
            if path.name not in needed and not path.name.startswith(PREFIX):
                remove(path)
    failpoint("housekeeping.after-store")


def free_scratch(settings: Settings, kept: list[Found]) -> None:
    """The lock is ours, so nobody works there. What the live release answered to other questions is kept for the next refresh."""
    live = [f"champion-{found.release[:12]}-" for found in kept[:1]]
    for path in below(settings.home / "scratch"):
        if not path.name.startswith(tuple(live)):
            remove(path)
    drop_half_written(settings.home)


def drop_half_written(home: Path) -> None:
    """What killed processes had not renamed yet. A server writes without our lock, but not for a day."""
    for path in (*home.glob(HALF_WRITTEN), *home.glob(f"*/{HALF_WRITTEN}")):
        with suppress(FileNotFoundError):  # renamed meanwhile
            if time() - path.lstat().st_mtime > A_DAY:
                path.unlink()


def below(folder: Path) -> list[Path]:
    return sorted(folder.iterdir()) if folder.is_dir() else []


def check(settings: Settings, kept: list[Found], broken: dict[int, str]) -> None:
    """Re-read all that stays. Raises IntegrityError where a release that read before does not any more."""
    proofs = Proofs(settings)
    for found in kept:
        fault = "" if found.number in broken else proofs.fault(found)
        if fault:
            raise IntegrityError(f"release {found.number} does not read after maintenance: {fault}. See: tandem doctor")


def sizes(settings: Settings) -> dict[str, int]:
    """Bytes by place, of those that are on this machine."""
    places: dict[str, Any] = {
        "index": settings.index_uri,
        "store": settings.store,
        "vectors": settings.vectors,
        "scratch": settings.home / "scratch",
    }
    return {name: size(Path(place)) for name, place in places.items() if "://" not in str(place)}


def size(place: Path) -> int:
    files = place.rglob("*") if place.is_dir() else place.parent.glob(f"{place.name}*")  # SQLite keeps its log beside
    return sum(path.lstat().st_size for path in files if path.is_file())
