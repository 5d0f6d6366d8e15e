"""Raw files -> clean documents with stable ids, and a reject list with a reason for each: ingested = accepted +
rejected.
"""

import hashlib
import os
import posixpath
import stat
import time
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from tasks.errors import InputError, IntegrityError
from tasks.kept import Kept, read_kept, rule, write_kept
from tasks.params import DocumentsParams
from tasks.parsers import FORMATS, parse
from tasks.records import Record, jsonl_line, text_digest, write_bytes, write_json, write_jsonl
from tasks.stage import fresh_folder, run_stage, say
from tasks.texts import Unreadable

MEGABYTE = 1_000_000
SAY_EVERY = 500  # files
SETTLED = 2_000_000_000  # nanoseconds; a file written since may be written again within one tick of its clock, as git has it
CODE = ("documents", "parsers", "params_files", "pdf", "blocks", "boundaries", "texts")  # the modules that read a file
LIBRARIES = ("beautifulsoup4", "mammoth", "markdown-it-py", "markdownify", "pypdf", "PyYAML")


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
    reading = rule(params.model_dump(), CODE, LIBRARIES)
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


def identity(path: str) -> str:
    return unicodedata.normalize("NFC", posixpath.splitext(path)[0])


def suffix(path: str) -> str:
    return posixpath.splitext(path)[1].lower()


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


def read_all(
    raw: Path, paths: Sequence[str], known: Mapping[str, Kept], params: DocumentsParams
) -> tuple[list[Kept], dict[str, Kept]]:
    """What was made of each file, accepted or rejected; and that again by its path, but for what the disk refused."""
    max_bytes = int(params.max_megabytes * MEGABYTE)
    found, worth_keeping = [], {}
    for number, path in enumerate(paths, start=1):
        try:
            before = known.get(path)
            page = as_before(raw, path, before) or read_again(raw, path, before, max_bytes, params.max_pdf_pages)
            worth_keeping[path] = page
        except Unreadable as error:
            page = reject(path, error)
        found.append(page)
        if number % SAY_EVERY == 0:
            say(f"{number} of {len(paths)} files read")
    return found, worth_keeping


def as_before(raw: Path, path: str, before: Kept | None) -> Kept | None:
    """What was kept, where the file need not be opened to know that it is the same one."""
    return before if before is not None and before.note["seen"] == seen(raw, path) is not None else None


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


def read_again(raw: Path, path: str, before: Kept | None, max_bytes: int, max_pages: int) -> Kept:
    """Parsed, where its bytes are others than those that were kept. Raises Unreadable for what cannot be read."""
    signature = seen(raw, path)  # first: what is written while it is read shows next time
    data = read_bytes(raw, path, max_bytes)
    digest = hashlib.sha256(data).hexdigest()
    same = before is not None and before.note["bytes"] == digest
    page = before if before is not None and same else read_file(path, data, max_bytes, max_pages)
    return page._replace(note=page.note | {"bytes": digest, "seen": signature})


def read_file(path: str, data: bytes, max_bytes: int, max_pages: int) -> Kept:
    try:
        page = parse(data, FORMATS[suffix(path)], PurePosixPath(path).stem, max_bytes, max_pages)
    except Unreadable as error:
        return reject(path, error)
    made = document(path, page.title, page.text)
    note = {"path": path, "reason": "", "id": made["id"], "cleaned": page.cleaned, "text": text_digest(page.text)}
    return Kept(jsonl_line(made).encode(), note)


def reject(path: str, error: Unreadable) -> Kept:
    return Kept(b"", {"path": printable(path), "reason": str(error)})


def document(path: str, title: str, text: str) -> Record:
    kind, digest = FORMATS[suffix(path)], text_digest(f"{title}\n{text}")
    return {"id": identity(path), "path": path, "title": title, "format": kind, "text": text, "digest": digest}


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


def printable(path: str) -> str:
    """File names are bytes; those that are not UTF-8 cannot be written into JSON as they are."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


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
