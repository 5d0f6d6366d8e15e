"""Taking over what a person brings: a snapshot of their documents, whole or not at all. Their questions: tasks/pairs.py."""

import os
import shutil
import tarfile
import time
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple

from tasks.errors import InputError
from tasks.pairs import listing
from tasks.parsers import FORMATS

ARCHIVES = (".tar.gz", ".tgz", ".tar", ".zip")
MAX_UNPACKED = 8_000_000_000  # bytes of one archive; a bomb fills the disk otherwise
BROKEN = (tarfile.TarError, zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError)


class Entry(NamedTuple):
    """One file to copy."""

    name: str  # POSIX path below the target
    size: int  # bytes
    modified: float  # seconds since 1970
    open: Callable[[], IO[bytes] | None]


def copy_corpus(sources: Sequence[Path], target: Path) -> int:
    """Make `target`, a snapshot of folders, files or archives; how many files it holds. Hidden files stay behind.

    One folder or archive becomes the root itself; of several, each keeps its name as a folder. A folder that is all
    that an archive holds is left out of the paths. Raises InputError before anything is written where a source is
    missing, empty, overlaps with the target, or holds links out, special files or unsafe paths, and where the disk
    lacks the space; with nothing left of it, where a source changed meanwhile.
    """
    refuse_overlap(sources, target)
    before = states(sources)
    with ExitStack() as stack:
        entries = [entry for source in sources for entry in named(source, len(sources) > 1, stack)]
        refuse_unusable(entries, sources)
        target.parent.mkdir(parents=True, exist_ok=True)
        refuse_without_space(sum(entry.size for entry in entries), target.parent)
        target.mkdir()
        try:
            write(entries, target)
            refuse_changed(before, states(sources))
        except BaseException:  # an interrupt as well: what is half copied goes
            shutil.rmtree(target, ignore_errors=True)
            raise
    return len(entries)


def refuse_overlap(sources: Sequence[Path], target: Path) -> None:
    if not sources:
        raise InputError("no documents are named; give a folder, files or an archive: tandem ingest --documents PATH")
    place = target.resolve()
    for source in sources:
        if not source.exists():
            raise InputError(f"{source} does not exist (looked at {source.absolute()}); check the path after --documents")
        if not source.is_dir() and not source.is_file():  # reading /dev/zero or a FIFO would never end
            raise InputError(f"{source} is neither a folder nor a plain file")
        real = source.resolve()
        if real.is_relative_to(place) or place.is_relative_to(real):
            raise InputError(f"{source} overlaps with {target}, where the snapshot goes; keep documents elsewhere")


def named(source: Path, several: bool, stack: ExitStack) -> Iterator[Entry]:
    """The entries of one source, under its own name where it is one of several."""
    lower = source.name.lower()
    archive = next((ending for ending in ARCHIVES if lower.endswith(ending)), "")
    if source.is_dir():
        found, name = folder_entries(source), source.resolve().name
    elif archive:
        found, name = archive_entries(source, stack), source.name[: -len(archive)]
    else:
        found, several, name = [file_entry(source, source.name)], False, ""
    for entry in found:
        yield entry._replace(name=f"{name}/{entry.name}") if several else entry


def file_entry(file: Path, name: str) -> Entry:
    status = file.stat()
    return Entry(name, status.st_size, status.st_mtime, lambda: file.open("rb"))


def folder_entries(folder: Path) -> list[Entry]:
    found: list[Entry] = []
    faults: list[str] = []

    def unlisted(error: OSError) -> None:
        faults.append(f"{error.filename}: {error.strerror}")

    for parent, folders, files in os.walk(folder, onerror=unlisted):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        links = [name for name in folders if (Path(parent) / name).is_symlink()]
        for name in sorted(files + links):
            file = Path(parent) / name
            if name.startswith("."):
                continue
            if fault := unfit(file, folder):
                faults.append(f"{file}: {fault}")
            else:
                found.append(file_entry(file, file.relative_to(folder).as_posix()))
    if faults:
        raise InputError(listing("nothing was copied; remove these or put the files themselves in their place", faults))
    return found


def unfit(file: Path, folder: Path) -> str:
    """Why a file cannot be copied, or "". Nothing is opened: that would wait for ever on a FIFO."""
    if file.is_symlink() and not file.exists():
        return "a symlink to nothing"
    if file.is_symlink() and not file.resolve().is_relative_to(folder.resolve()):
        return f"a symlink out of the folder, to {file.resolve()}"
    if not file.is_file():
        return "a symlink to a folder" if file.is_dir() else "a FIFO, socket or device"
    return "" if os.access(file, os.R_OK) else "may not be read; see its permissions"


def archive_entries(archive: Path, stack: ExitStack) -> list[Entry]:
    try:
        found = list((zip_entries if archive.name.lower().endswith(".zip") else tar_entries)(archive, stack))
    except (*BROKEN, OSError) as error:
        raise InputError(f"{archive} is not a readable archive ({error}); it may have been cut short") from error
    tops = {PurePosixPath(entry.name).parts[0] for entry in found if "/" in entry.name}
    if len(tops) == 1 and all("/" in entry.name for entry in found):
        found = [entry._replace(name=entry.name.partition("/")[2]) for entry in found]
    return found


def tar_entries(archive: Path, stack: ExitStack) -> Iterator[Entry]:
    opened = stack.enter_context(tarfile.open(archive))  # noqa: SIM115 (the stack closes it)
    unpacked = 0
    for member in opened:
        name = safe_name(member.name, archive)
        unpacked += max(member.size, 0)
        refuse_bomb(unpacked, archive)
        if not member.isdir() and not member.isfile():
            raise InputError(f"{archive}: {member.name} is a link or a device; pack plain files only")
        if member.isfile() and name:
            yield Entry(name, member.size, member.mtime, lambda member=member: opened.extractfile(member))  # type: ignore[misc]


def zip_entries(archive: Path, stack: ExitStack) -> Iterator[Entry]:
    opened = stack.enter_context(zipfile.ZipFile(archive))
    members = opened.infolist()
    refuse_bomb(sum(member.file_size for member in members), archive)
    for member in members:
        name = safe_name(member.filename, archive)
        if member.flag_bits & 1:
            raise InputError(f"{archive}: {member.filename} is encrypted; unpack it and give the folder")
        modified = time.mktime((*member.date_time, 0, 0, -1))
        if not member.is_dir() and name:
            yield Entry(name, member.file_size, modified, lambda member=member: opened.open(member))  # type: ignore[misc]


def safe_name(name: str, archive: Path) -> str:
    """The member's path below the target, or "" for a hidden one."""
    path = PurePosixPath(name.replace("\\", "/"))
    if path.is_absolute() or ".." in path.parts or (path.parts[:1] and path.parts[0].endswith(":")):
        raise InputError(f"{archive}: member {name!r} would land outside the folder; pack it with relative paths")
    return "" if any(part.startswith(".") for part in path.parts) else str(path)


def refuse_bomb(unpacked: int, archive: Path) -> None:
    if unpacked > MAX_UNPACKED:
        raise InputError(f"{archive} unpacks to more than {MAX_UNPACKED:,} bytes; unpack it yourself and give the folder")


def refuse_unusable(entries: Sequence[Entry], sources: Iterable[Path]) -> None:
    if not any(PurePosixPath(entry.name).suffix.lower() in FORMATS for entry in entries):
        places = ", ".join(map(str, sources))
        raise InputError(f"corpus has 0 documents: {places} holds no file of a kind that is read ({' '.join(FORMATS)})")
    seen: set[str] = set()
    for entry in entries:
        if entry.name in seen:
            raise InputError(f"{entry.name} would be written twice; give sources whose names differ")
        seen.add(entry.name)


def refuse_without_space(needed: int, folder: Path) -> None:
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise InputError(f"no space: {needed:,} bytes are needed, {free:,} are free at {folder}; free some and run it again")


def states(sources: Sequence[Path]) -> dict[str, tuple[int, float]]:
    """Size and time of every file that would be copied, by its path; of an archive, its own."""
    found = ((source, folder_entries(source) if source.is_dir() else [file_entry(source, "")]) for source in sources)
    return {str(source / entry.name): (entry.size, entry.modified) for source, entries in found for entry in entries}


def refuse_changed(before: Mapping[str, tuple[int, float]], after: Mapping[str, tuple[int, float]]) -> None:
    """A page that was moved from what was not yet copied to what was would be lost, and one that was written meanwhile be half of
    either.
    """
    changed = [path for path in sorted({*before, *after}) if before.get(path) != after.get(path)]
    if changed:
        raise InputError(listing("nothing was taken over; run it again when nobody writes to what changed meanwhile", changed))


def write(entries: Sequence[Entry], folder: Path) -> None:
    for entry in entries:
        place = folder / entry.name
        try:
            place.parent.mkdir(parents=True, exist_ok=True)
            copied = copy(entry, place)
        except BROKEN as error:
            raise InputError(f"{entry.name} cannot be unpacked ({error}); the archive is damaged") from error
        except OSError as error:
            free = shutil.disk_usage(folder).free
            needed = f"{entry.size:,} bytes needed, {free:,} free"
            raise InputError(f"{entry.name} cannot be copied: {error.strerror or error} ({needed})") from error
        if copied != entry.size:
            raise InputError(f"{entry.name} changed while it was copied; run it again when nobody writes to it")
        os.utime(place, (entry.modified, entry.modified))


def copy(entry: Entry, place: Path) -> int:
    source = entry.open()
    if source is None:
        raise EOFError("no content")
    with source, place.open("xb") as file:
        shutil.copyfileobj(source, file)
        return file.tell()
