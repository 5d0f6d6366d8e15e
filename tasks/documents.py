"""Raw files -> clean documents with stable ids, and a reject list with a reason for each: ingested = accepted +
rejected.
"""

import hashlib
import os
import stat
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tasks.errors import InputError, IntegrityError
from tasks.kept import Kept, read_kept, write_kept
from tasks.params import DocumentsParams
from tasks.parsers import FORMATS
from tasks.reading import MEGABYTE, Files, identity, max_bytes, printable, read_files, reading_rule, reject, suffix
from tasks.reading_on_ray import read_files_on_ray
from tasks.records import Record, write_bytes, write_json, write_jsonl
from tasks.stage import fresh_folder, run_stage, say
from tasks.texts import Unreadable

SAY_EVERY = 500  # files
SETTLED = 2_000_000_000  # nanoseconds; a file written since may be written again within one tick of its clock, as git has it


def documents(raw: Path, out: Path, kept: Path, params: DocumentsParams) -> None:
    """Write out/documents.jsonl, sorted by id ({"id", "path", "title", "format", "text", "digest"}), rejected.jsonl,
    counts.json.

    The id is the path below `raw` without its extension, in NFC; the digest is the sha256 of title, newline, text.
    A file that is as it was, by inode, size and times or by its bytes, is taken from `kept`, a cache. Raises InputError for a
    missing folder, two files with one id, and where no file was accepted.
    """
    if not raw.is_dir():
        raise InputError(f"{raw} is missing or no folder; put documents there with: tandem ingest --documents PATH")
    paths = list_files(raw)
    refuse_shared_ids(paths)
    reading = reading_rule(params)
    found, worth_keeping = read_all(raw, paths, read_kept(kept, reading), params)
    accepted = [page for page in found if not page.note["reason"]]
    rejected = [{"path": page.note["path"], "reason": page.note["reason"]} for page in found if page.note["reason"]]
    reconcile(paths, found)
    if not accepted:
        raise InputError(nothing_accepted(raw, rejected))
    say(f"{len(paths)} files: {len(accepted)} accepted, {len(rejected)} rejected")
    fresh_folder(out)
    in_order = sorted(accepted, key=lambda page: str(page.note["id"]))
    write_bytes(out / "documents.jsonl", *(page.lines for page in in_order))
    write_jsonl(out / "rejected.jsonl", rejected)
    write_json(out / "counts.json", counts(accepted, rejected))
    write_kept(kept, reading, worth_keeping)


def list_files(raw: Path) -> list[str]:
    """POSIX paths below `raw`, sorted, of all that is not a folder. Hidden files and folders do not count."""
    found: list[str] = []

    def unlisted(error: OSError) -> None:
        found.append(Path(error.filename).relative_to(raw).as_posix())

    for folder, folders, files in os.walk(raw, onerror=unlisted):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]  # listed, not entered
        below = "" if folder == str(raw) else f"{Path(folder).relative_to(raw).as_posix()}/"
        found += [f"{below}{name}" for name in files + links if not name.startswith(".")]
    return sorted(found)


def refuse_shared_ids(paths: Iterable[str]) -> None:
    """Which of two would win is not ours to choose; on a disk that folds case, ids must differ by more than case as
    well.
    """
    taken: dict[str, str] = {}
    for path in paths:
        if suffix(path) not in FORMATS:
            continue
        other = taken.setdefault(unicodedata.normalize("NFC", identity(path).casefold()), path)
        if other != path:
            raise InputError(f"{other!r} and {path!r} have one id, {identity(path)!r}; rename or remove one of them")


class Folder:
    """Raw files, and what was made of them in the last run."""

    def __init__(self, raw: Path, known: Mapping[str, Kept], most_bytes: int) -> None:
        self.raw, self.known, self.most_bytes = raw, known, most_bytes
        self.as_they_were: dict[str, Kept] = {}
        self.refused: dict[str, Kept] = {}  # by the disk, or before they were opened
        self.marks: dict[str, Record] = {}  # of the others: what tells next time that a file is as it was

    def changed(self, paths: Iterable[str]) -> Files:
        """The files whose bytes are others than in the last run; on the way, what stands of the rest."""
        for path in paths:
            before = self.known.get(path)
            signature = seen(self.raw, path)  # first: what is written while it is read shows next time
            if before is not None and before.note["seen"] == signature is not None:  # it need not be opened
                self.as_they_were[path] = before
                continue
            try:
                data = read_bytes(self.raw, path, self.most_bytes)
            except Unreadable as error:
                self.refused[path] = reject(path, error)
                continue
            mark = {"bytes": hashlib.sha256(data).hexdigest(), "seen": signature}
            if before is not None and before.note["bytes"] == mark["bytes"]:
                self.as_they_were[path] = before._replace(note=before.note | mark)
            else:
                self.marks[path] = mark
                yield path, data


def read_all(
    raw: Path, paths: Sequence[str], known: Mapping[str, Kept], params: DocumentsParams
) -> tuple[list[Kept], dict[str, Kept]]:
    """What was made of each file, accepted or rejected; and that again by its path, but for what the disk refused."""
    made: dict[str, Kept] = {}
    folder = Folder(raw, known, max_bytes(params))
    read = read_files_on_ray if params.engine == "ray" else read_files
    for number, (path, page) in enumerate(read(folder.changed(paths), params), start=1):
        made[path] = page._replace(note=page.note | folder.marks[path])
        if number % SAY_EVERY == 0:
            say(f"{number} files read")
    worth_keeping = folder.as_they_were | made
    found = folder.refused | worth_keeping
    return [found[path] for path in paths if path in found], worth_keeping


def seen(raw: Path, path: str) -> list[int] | None:
    """What tells that a file was written since: DVC and git go by the same. None for a link, whose file another one may be, for
    what is no plain file, and for one that was written just now: another writing might leave it the same times."""
    try:
        status = os.lstat(os.path.join(raw, path))
    except OSError:
        return None
    settled = time.time_ns() - max(status.st_mtime_ns, status.st_ctime_ns) > SETTLED
    signature = [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]
    return signature if settled and stat.S_ISREG(status.st_mode) else None


def read_bytes(raw: Path, path: str, max_bytes: int) -> bytes:
    """Raises Unreadable for what is no plain file of a known format inside `raw`, unopened, and for what the disk
    refuses.
    """
    file = raw / path
    if printable(path) != path:
        raise Unreadable("the file's name is not valid UTF-8")
    try:
        if file.is_symlink() and not file.resolve(strict=True).is_relative_to(raw.resolve()):
            raise Unreadable("a symlink that leaves the folder")
        refuse_kind(file.stat(), path, max_bytes)
        return file.read_bytes()
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of symlinks, before Python 3.13
        broken = "a broken symlink: " if file.is_symlink() else ""
        raise Unreadable(f"cannot be read: {broken}{getattr(error, 'strerror', None) or error}") from error


def refuse_kind(status: os.stat_result, path: str, max_bytes: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise Unreadable("a symlink to a folder (not followed), or a folder that cannot be listed")
    if not stat.S_ISREG(status.st_mode):  # opening a FIFO would wait for ever
        raise Unreadable("not a plain file (a FIFO, socket or device)")
    if suffix(path) not in FORMATS:
        raise Unreadable(f"unsupported extension {suffix(path)!r}; supported: {' '.join(FORMATS)}")
    if status.st_size > max_bytes:
        raise Unreadable(f"{status.st_size / MEGABYTE:.1f} MB, more than max_megabytes ({max_bytes / MEGABYTE:g})")


def reconcile(paths: Sequence[str], found: Sequence[Kept]) -> None:
    if Counter(page.note["path"] for page in found) != Counter(map(printable, paths)):
        raise IntegrityError("files were lost or counted twice between the folder and the lists; please report this")


def counts(accepted: Sequence[Kept], rejected: Sequence[Record]) -> dict[str, int]:
    return {
        "ingested": len(accepted) + len(rejected),
        "accepted": len(accepted),
        "rejected": len(rejected),
        "cleaned_characters": sum(page.note["cleaned"] for page in accepted),
        "repeated_texts": len(accepted) - len({page.note["text"] for page in accepted}),
    }


def nothing_accepted(raw: Path, rejected: Sequence[Record]) -> str:
    head = f"corpus has 0 documents: none of {len(rejected)} files in {raw} can be used; supported: {' '.join(FORMATS)}"
    return "\n".join([head, *(f"  {record['path']}: {record['reason']}" for record in rejected[:20])])


if __name__ == "__main__":
    run_stage(documents)
