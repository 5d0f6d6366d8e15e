"""The pieces of releases, write-once and named by their digests: what a release pins is there byte for byte or refused.

root/files/<sha256>      one file: a manifest, a report, a list of the files of a folder
root/objects/<digest>/   one folder of a model; its digest (tasks.records.folder_digest) is the sha256 of the canonical
                         list of its files, so that list is itself a file here, and says which file of a folder differs
"""

import errno
import hashlib
import json
import os
import re
import shutil
from contextlib import suppress
from pathlib import Path

from flows.aside import aside, new_file, new_folder, remove, write_new
from flows.lock import private_folder
from tasks.artifacts import check_model_folder, entries
from tasks.errors import InputError, IntegrityError, TandemError
from tasks.failpoints import failpoint
from tasks.records import canonical_json, file_digest, folder_digests, sync

MEND = "To mend: seal the same content again, or restore it from a backup. `tandem doctor` says what else it breaks"


def seal_folder(root: Path, source: Path) -> str:
    """Copy a model folder into the store, whole and durable, and return its digest; a sound copy there is kept.

    Raises InputError, before anything is copied, where `source` holds what a model must not.
    """
    check_model_folder(source)
    listing = folder_digests(source)
    digest = seal_file(root, canonical_json(listing).encode())
    target = root / "objects" / digest
    if not target.exists() or faults(target, listing):
        check_space(root, source)
        with aside(target.parent, new_folder) as copy:
            copy_files(source, copy, listing)
            failpoint("store.before-rename")
            place_folder(copy, target, listing)
    failpoint("store.before-sync")
    sync(target.parent)  # also where it was there: the process that put it may have died before this
    return digest


def seal_file(root: Path, source: Path | bytes) -> str:
    """Put one small file, or its content, into the store and return its sha256."""
    data = source if isinstance(source, bytes) else read_source(source)
    digest = sha256(data)
    target = root / "files" / digest
    if not (target.exists() and file_digest(target) == digest):
        with aside(target.parent, new_file) as path:
            failpoint("store.before-file-write")
            write_new(path, data)
            failpoint("store.before-file-rename")
            path.replace(target)
    failpoint("store.before-file-sync")
    sync(target.parent)
    return digest


def open_folder(root: Path, digest: str) -> Path:
    """The folder, after every file of it has been read and compared.

    Raises IntegrityError naming file, expected and actual digest.
    """
    listing = json.loads(open_file(root, digest))
    target = root / "objects" / checked(digest)
    found = faults(target, listing)
    if found:
        raise IntegrityError(f"{target} is damaged: {'; '.join(found)}. {MEND}")
    return target


class Faults:
    """What is wrong with folders of the store, each read once however often it is asked for."""

    def __init__(self, root: Path) -> None:
        self.root, self.read = root, dict[str, str]()

    def of(self, digest: str) -> str:
        """Empty where every byte is as it was sealed."""
        if digest not in self.read:
            try:
                open_folder(self.root, digest)
                self.read[digest] = ""
            except TandemError as error:
                self.read[digest] = str(error)
        return self.read[digest]


def open_file(root: Path, digest: str) -> bytes:
    """The content itself, so that what was verified is what is used. Raises IntegrityError."""
    target = root / "files" / checked(digest)
    try:
        data = target.read_bytes()
    except FileNotFoundError as error:
        raise IntegrityError(f"{target} is missing (expected sha256 {digest}). {MEND}") from error
    if sha256(data) != digest:
        raise IntegrityError(f"{target} is damaged: expected sha256 {digest}, found {sha256(data)}. {MEND}")
    return data


def checked(digest: str) -> str:
    """A digest comes from a manifest or a person: it must not be a path."""
    if not re.fullmatch(r"[0-9a-f]{64}", digest):
        raise InputError(f"{digest[:80]!r} is not a sha256 digest (64 hexadecimal digits)")
    return digest


def faults(folder: Path, listing: dict[str, str]) -> list[str]:
    """What differs from the list of files; empty where nothing does."""
    if not folder.is_dir() or folder.is_symlink():
        return ["the folder is missing"]
    try:
        return differences(folder, listing)
    except FileNotFoundError:
        return ["another process, which found it damaged, moved the folder out of the way meanwhile"]


def differences(folder: Path, listing: dict[str, str]) -> list[str]:
    found, foreign = entries(folder)
    missing = [f"{name} is missing (expected sha256 {listing[name]})" for name in sorted(listing.keys() - found)]
    extra = [f"{name} was not sealed" for name in sorted((found - listing.keys()) | foreign)]
    changed = [fault for name in sorted(found & listing.keys()) for fault in differs(folder, name, listing[name])]
    return missing + extra + changed


def differs(folder: Path, name: str, expected: str) -> list[str]:
    actual = file_digest(folder / name)
    return [] if actual == expected else [f"{name}: expected sha256 {expected}, found {actual}"]


def place_folder(copy: Path, target: Path, listing: dict[str, str]) -> None:
    """Rename into place, a damaged one out of it. Where another process puts a sound one meanwhile, that one stays; where a third
    one has just moved that away, which it had found damaged before, this begins again."""
    damaged = copy.with_name(f"{copy.name}-damaged")
    placed = False
    while not placed:
        if target.exists() and faults(target, listing):
            with suppress(FileNotFoundError):
                target.rename(damaged)
            failpoint("store.between-renames")
        try:
            copy.rename(target)
            placed = True
        except OSError as error:
            placed = not faults(target, listing)
            if not placed and error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        remove(damaged)


def copy_files(source: Path, copy: Path, listing: dict[str, str]) -> None:
    """Raises InputError where the source changes meanwhile: what is sealed is what was named."""
    for name, expected in listing.items():
        (copy / name).parent.mkdir(mode=0o700, exist_ok=True)
        failpoint("store.before-copy")
        shutil.copyfile(source / name, copy / name)
        make_durable(copy / name)
        if file_digest(copy / name) != expected:
            raise InputError(f"{source / name} changed while it was sealed; run it again when nothing writes there")
    for folder in [copy, *(path for path in copy.iterdir() if path.is_dir())]:
        sync(folder)


def make_durable(path: Path) -> None:
    with path.open("rb") as file:
        os.fchmod(file.fileno(), 0o400)
        os.fsync(file.fileno())


def check_space(root: Path, source: Path) -> None:
    needed = sum(path.stat().st_size for path in source.rglob("*") if path.is_file())
    free = shutil.disk_usage(private_folder(root)).free
    if needed > free:
        raise InputError(f"{root}: no space to seal {source}: {needed:,} bytes needed, {free:,} free")


def read_source(source: Path) -> bytes:
    try:
        return source.read_bytes()
    except FileNotFoundError as error:
        raise InputError(f"{source} is missing: it cannot be sealed") from error


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
