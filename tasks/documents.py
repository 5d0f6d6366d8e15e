"""Raw files -> clean documents with stable ids, and a reject list with a reason for each: ingested = accepted +
rejected.
"""

import os
import stat
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath

from tasks.errors import InputError, IntegrityError
from tasks.params import DocumentsParams
from tasks.parsers import FORMATS, parse
from tasks.records import Record, text_digest, write_json, write_jsonl
from tasks.stage import fresh_folder, run_stage, say
from tasks.texts import Unreadable

MEGABYTE = 1_000_000
SAY_EVERY = 500  # files


def documents(raw: Path, out: Path, params: DocumentsParams) -> None:
    """Write out/documents.jsonl, sorted by id ({"id", "path", "title", "format", "text", "digest"}), rejected.jsonl,
    counts.json.

    The id is the path below `raw` without its extension, in NFC; the digest is the sha256 of title, newline, text.
    Raises InputError for a missing folder, two files with one id, and where no file was accepted.
    """
    if not raw.is_dir():
        raise InputError(f"{raw} is missing or no folder; put documents there with: tandem ingest --documents PATH")
    paths = list_files(raw)
    refuse_shared_ids(paths)
    max_bytes = int(params.max_megabytes * MEGABYTE)
    accepted, rejected, cleaned = read_all(raw, paths, max_bytes, params.max_pdf_pages)
    reconcile(paths, accepted, rejected)
    if not accepted:
        raise InputError(nothing_accepted(raw, rejected))
    say(f"{len(paths)} files: {len(accepted)} accepted, {len(rejected)} rejected")
    fresh_folder(out)
    write_jsonl(out / "documents.jsonl", sorted(accepted, key=lambda record: record["id"]))
    write_jsonl(out / "rejected.jsonl", rejected)
    write_json(out / "counts.json", counts(accepted, rejected, cleaned))


def list_files(raw: Path) -> list[str]:
    """POSIX paths below `raw`, sorted, of all that is not a folder. Hidden files and folders do not count."""
    found: list[str] = []

    def unlisted(error: OSError) -> None:
        found.append(Path(error.filename).relative_to(raw).as_posix())

    for folder, folders, files in os.walk(raw, onerror=unlisted):
        folders[:] = [name for name in folders if not name.startswith(".")]
        links = [name for name in folders if os.path.islink(os.path.join(folder, name))]  # listed, not entered
        names = [name for name in files + links if not name.startswith(".")]
        found += [(Path(folder) / name).relative_to(raw).as_posix() for name in names]
    return sorted(found)


def identity(path: str) -> str:
    return unicodedata.normalize("NFC", str(PurePosixPath(path).with_suffix("")))


def suffix(path: str) -> str:
    return PurePosixPath(path).suffix.lower()


def refuse_shared_ids(paths: Iterable[str]) -> None:
    """Which of two would win is not ours to choose; on a disk that folds case, ids must differ by more than case as
    well.
    """
    seen: dict[str, str] = {}
    for path in paths:
        if suffix(path) not in FORMATS:
            continue
        other = seen.setdefault(unicodedata.normalize("NFC", identity(path).casefold()), path)
        if other != path:
            raise InputError(f"{other!r} and {path!r} have one id, {identity(path)!r}; rename or remove one of them")


def read_all(raw: Path, paths: Sequence[str], max_bytes: int, max_pages: int) -> tuple[list[Record], list[Record], int]:
    """(accepted documents, rejected files with reasons, unseen characters taken out)"""
    accepted, rejected, cleaned = [], [], 0
    for number, path in enumerate(paths, start=1):
        try:
            data = read_bytes(raw, path, max_bytes)
            page = parse(data, FORMATS[suffix(path)], PurePosixPath(path).stem, max_bytes, max_pages)
        except Unreadable as error:
            rejected.append({"path": printable(path), "reason": str(error)})
        else:
            cleaned += page.cleaned
            accepted.append(document(path, page.title, page.text))
        if number % SAY_EVERY == 0:
            say(f"{number} of {len(paths)} files read, {len(rejected)} rejected")
    return accepted, rejected, cleaned


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


def reconcile(paths: Sequence[str], accepted: Sequence[Record], rejected: Sequence[Record]) -> None:
    handled = Counter(record["path"] for record in [*accepted, *rejected])
    if handled != Counter(map(printable, paths)):
        raise IntegrityError("files were lost or counted twice between the folder and the lists; please report this")


def counts(accepted: Sequence[Record], rejected: Sequence[Record], cleaned: int) -> dict[str, int]:
    return {
        "ingested": len(accepted) + len(rejected),
        "accepted": len(accepted),
        "rejected": len(rejected),
        "cleaned_characters": cleaned,
        "repeated_texts": len(accepted) - len({record["text"] for record in accepted}),
    }


def nothing_accepted(raw: Path, rejected: Sequence[Record]) -> str:
    head = f"corpus has 0 documents: none of {len(rejected)} files in {raw} can be used; supported: {' '.join(FORMATS)}"
    return "\n".join([head, *(f"  {record['path']}: {record['reason']}" for record in rejected[:20])])


if __name__ == "__main__":
    run_stage(documents)
