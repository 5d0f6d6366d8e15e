"""The tombstones that stand: read from the ledger by whoever answers, judges, goes back or takes documents in."""

import json
import os
from collections.abc import Callable, Iterable
from functools import lru_cache
from pathlib import Path

from flows import ledger
from flows.ledger import Entry, Found
from flows.settings import Settings
from flows.store import open_file
from tasks.errors import InputError, IntegrityError, RefusedError
from tasks.lineage import LINEAGE
from tasks.manifest import Release
from tasks.records import Record, read_json
from tasks.tombstones import Erased, Erasure, Tombstones

ERASURE, LIFTS = "erasure", "lifts"  # evidence of an entry: the sealed erasure; the one that a person took back


def standing(settings: Settings, entries: Iterable[Entry]) -> Tombstones:
    """Raises IntegrityError where a sealed erasure is gone: what it covers would be answered again."""
    found: dict[str, Erased] = {}
    for entry in entries:
        if entry.action == "erase" and ERASURE in entry.evidence:
            digest = entry.evidence[ERASURE]
            found[digest] = Erased(sealed(settings.store, digest), entry.at, entry.why, entry.sequence)
        elif entry.action == "override":
            found.pop(entry.evidence.get(LIFTS, ""), None)
    return Tombstones(tuple(found.values()))


@lru_cache(maxsize=256)
def sealed(store: Path, digest: str) -> Erasure:
    return Erasure.model_validate(json.loads(open_file(store, digest)))


def watching(settings: Settings) -> Callable[[], Tombstones]:
    """For a process that answers for days: what stands now, by a look at the ledger's folder; it is read where it grew.

    Where it does not read any more, what stood goes on to stand: a damaged file must not end a server that has begun. Raises
    IntegrityError where it never did.
    """
    seen: tuple[int, Tombstones] | None = None

    def now() -> Tombstones:
        nonlocal seen
        count = entry_count(settings.ledger)
        if seen is None or count != seen[0]:
            try:
                seen = (count, standing(settings, ledger.read(settings.ledger)))
            except IntegrityError:
                if seen is None:
                    raise
        return seen[1]

    return now


def entry_count(folder: Path) -> int:
    try:
        return sum(name.endswith(".json") for name in os.listdir(folder))
    except FileNotFoundError:
        return 0


def lineage_in(folder: Path | None) -> Record | None:
    """What a model says that it learnt; None where it does not say."""
    path = folder / LINEAGE if folder else None
    return dict(read_json(path)) if path and path.exists() else None


def check_unlearnt(tombstones: Tombstones, found: Found, release: Release) -> None:
    """Raises InputError for a release that nobody may go back to: its adapter learnt what was erased."""
    erased = tombstones.withheld(release.adapter.digest if release.adapter else None)
    if erased is not None:
        raise InputError(
            f"the adapter of release {found.number} learnt from a page that was erased on {erased.at[:10]} (ledger entry "
            f"{erased.sequence}: {erased.why}); it cannot be gone back to. Once `tandem maintain` has amended it, release "
            f"{found.number} is its index without that adapter"
        )


def check_nothing_erased(tombstones: Tombstones, documents: Iterable[str], adapter: Path | None) -> None:
    """Raises RefusedError for a candidate that holds an erased page, or whose adapter learnt from one."""
    held = [document for document in documents if tombstones.covers(document)]
    if held:
        shown = ", ".join(held[:3])
        raise RefusedError(f"its index holds {len(held)} erased pages ({shown}); make it anew: tandem refresh")
    erased = tombstones.learnt(lineage_in(adapter)) if adapter else None
    if erased is not None:
        raise RefusedError(
            f"its adapter learnt from a page that was erased on {erased.at[:10]} (ledger entry {erased.sequence}: "
            f"{erased.why}), or does not say what it learnt from; train another: tandem retrain"
        )


def told_without(tombstones: Tombstones, record: Record) -> bool:
    """Whether an explanation that was kept says nothing of an erased page."""
    shown = [*record.get("sources", ()), *record.get("passages", ())]
    return not any(tombstones.covers(each.get("page") or each.get("document")) for each in shown)
