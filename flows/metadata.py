"""What `tandem doctor` finds in DVC's own files: torn ones, and objects of its cache and remote that releases would need."""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import yaml

from flows import corpus, ledger, pipeline
from flows.finding import Finding
from flows.ledger import Entry
from flows.settings import Settings
from flows.store import open_file
from flows.succession import promotion_of
from tasks.errors import TandemError
from tasks.records import Record, write_text

NEEDED = ("data/chunks", "data/adapter")  # an index is written again from the one, a refresh goes on from the other
MEND = "tandem doctor --mend"


def torn_files(settings: Settings) -> Iterator[Finding]:
    root = settings.root
    for path, state in pipeline.torn_metadata(root):
        what = f"{path.relative_to(root)} is {state}, as an interrupted DVC command leaves it"
        known = path.name == "raw.dvc" and (root / "data/raw").exists()
        yield Finding(what, "DVC", MEND if known or path.name == "dvc.lock" else "tandem ingest")
    if pipeline.lock_is_torn(root):
        yield Finding("dvc.lock is torn, as an interrupted DVC command leaves it", "DVC", MEND)
    if pipeline.rwlock(root).exists() and not pipeline.rwlock(root).stat().st_size:
        yield Finding(
            ".dvc/tmp/rwlock is empty: DVC refuses every command until it is gone", "DVC", "any flow, or " + MEND, minor=True
        )
    if not (root / "data/raw").exists() and (root / "data/.raw.old").exists():
        yield Finding("an ingest was interrupted while it swapped the corpus", "data/", MEND)


def mend_files(settings: Settings, entries: list[Entry], started_as: Callable[[int], None]) -> list[str]:
    """An interrupted ingest, a pointer that was not written to its end, a dvc.lock out of the evidence of the live release."""
    done = ["an interrupted ingest was put right"] if corpus.mend(settings, started_as) else []
    lock, live = settings.root / "dvc.lock", ledger.live(entries)
    if lock.exists() and (not lock.stat().st_size or pipeline.lock_is_torn(settings.root)):
        if live is None:
            lock.unlink()
            return [*done, "the torn dvc.lock was removed: the next run makes it again"]
        text = open_file(settings.store, promotion_of(entries, str(live.release)).evidence["dvc.lock"]).decode()
        write_text(lock, text)
        done.append(f"the torn dvc.lock is that of release {live.number} again")
    return done


# --- Objects: of what the kept releases and the workspace name


def object_faults(settings: Settings, locks: Iterable[str]) -> Iterator[Finding]:
    """In DVC's cache and, where its remote is a folder, there. `locks`: digests of the dvc.lock of each kept release."""
    missing = "dvc fetch, where a remote has it; without it the release is whole, but its index could only come from a backup"
    for place, path, at in unsound(settings, locks):
        if at.exists():
            yield Finding(f"{path}: object {at} is damaged; DVC would hand it out unseen", place, MEND)
        else:
            yield Finding(f"{path}: object {at} is missing", place, missing, minor=True)
    yield from unverified_remote(settings)


def mend_objects(settings: Settings, locks: Iterable[str]) -> list[str]:
    """Damaged ones go: DVC then fetches or makes anew what it would else hand out."""
    damaged = [(place, path, at) for place, path, at in unsound(settings, locks) if at.exists()]
    for _, _, at in damaged:
        at.unlink()
    return [f"a damaged object of {path} was removed from {place}" for place, path, _ in damaged]


def unsound(settings: Settings, locks: Iterable[str]) -> list[tuple[str, str, Path]]:
    """(place, path of the output, object) of each that is missing or has not its own digest."""
    wanted = dict.fromkeys(needed(settings, locks))
    places = {"DVC's cache": settings.root / ".dvc/cache/files/md5"} | remote_folder(settings)
    return [(name, *found) for name, place in places.items() for path, oid in wanted for found in unsound_in(place, path, oid)]


def needed(settings: Settings, locks: Iterable[str]) -> Iterator[tuple[str, str]]:
    """(path of an output, its object)"""
    for lock in locks:
        with suppress(TandemError):  # evidence that is gone has a finding of its own
            stages = yaml.load(open_file(settings.store, lock), pipeline.SAFE_LOADER).get("stages") or {}
            for stage in stages.values():
                yield from ((out["path"], out["md5"]) for out in stage.get("outs", []) if out["path"] in NEEDED and "md5" in out)


def unsound_in(place: Path, path: str, oid: str) -> Iterator[tuple[str, Path]]:
    """An object or, of a folder's listing that is sound, the files that it names."""
    at = place / oid[:2] / oid[2:]
    if not at.exists() or md5(at) != oid.removesuffix(".dir"):
        yield path, at
    elif oid.endswith(".dir"):
        for member in json.loads(at.read_text(encoding="utf-8")):
            yield from unsound_in(place, f"{path}/{member['relpath']}", member["md5"])


def md5(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()


def remote(settings: Settings) -> Record:
    """The default remote's settings; empty where there is none, or no sound DVC project."""
    with suppress(TandemError), pipeline.repository(settings.root) as repo:
        name = repo.config["core"].get("remote")
        return {"name": name, **repo.config["remote"][name]} if name else {}
    return {}


def remote_folder(settings: Settings) -> dict[str, Path]:
    found: dict[str, Any] = remote(settings)
    url = str(found.get("url", ""))
    return {f"the remote {found['name']}": Path(url) / "files/md5"} if url.startswith("/") else {}


def unverified_remote(settings: Settings) -> Iterator[Finding]:
    """A pull takes a damaged object for good, unless the remote is told to compare digests."""
    found = remote(settings)
    if found and not found.get("verify"):
        name = found["name"]
        yield Finding(
            f"the DVC remote {name} is not verified when pulled from", "DVC", f"dvc remote modify {name} verify true", minor=True
        )
