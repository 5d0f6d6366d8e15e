"""Looking for erased text in files: as it stands, as JSON and HTML write it, in SQLite's rows, and inside gzip and zip."""

import gzip
import html
import json
import re
import sqlite3
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, NamedTuple

from tasks.prompts import one_line
from tasks.records import Record

SHORTEST = 20  # characters of a line that stands for its page: a shorter one may be anybody's
BLOCK = 1 << 22  # bytes read at once
LARGEST_PACKED = 1 << 30  # bytes that are unpacked of one file: a bomb fills the memory otherwise
GZIP, ZIP, SQLITE = b"\x1f\x8b", b"PK\x03\x04", b"SQLite format 3\x00"
BROKEN = (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError)
ERASED = b"[erased]"


class Canary(NamedTuple):
    """What must not be found any more, as bytes -> what is written in its place."""

    forms: dict[bytes, bytes]

    @property
    def longest(self) -> int:
        return max(map(len, self.forms), default=0)

    def within(self, data: bytes) -> bool:
        return any(form in data for form in self.forms)

    def blotted(self, data: bytes) -> bytes:
        for form, instead in self.forms.items():
            data = data.replace(form, instead)
        return data


def canary(texts: Iterable[str], documents: Iterable[str] = ()) -> Canary:
    """Of texts, in every form in which they are written; and of pages' ids, where they stand as an id: an id may be a word."""
    forms = {form: ERASED for text in texts for form in written(text)}
    ids = {form: instead for document in documents for form, instead in named(document)}
    longest_first = sorted({**forms, **ids}.items(), key=lambda pair: -len(pair[0]))
    return Canary(dict(longest_first))


def written(text: str) -> Iterator[bytes]:
    """As it is, on one line, in JSON with and without other than ASCII, in JSON within JSON, and in HTML."""
    for line in {text, one_line(text)}:
        told = {line, html.escape(line), html.escape(line).replace("&#x27;", "&#39;")}
        once = {json.dumps(line, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
        twice = {json.dumps(each, ensure_ascii=ascii_only)[1:-1] for each in once for ascii_only in (True, False)}
        yield from (form.encode("utf-8", "surrogatepass") for form in told | once | twice)


def named(document: str) -> Iterator[tuple[bytes, bytes]]:
    """`"staff/leave"` in JSON, `/staff/leave.md` among files, `>staff/leave<` on a page, `staff/leave (0.731)` in a table."""
    frames = (('"', '"'), ("'", "'"), (">", "<"), ("documents/", "."), ("", " (0."), ('\\"', '\\"'))
    for start, end in frames:
        for name in {document, json.dumps(document)[1:-1], html.escape(document)}:
            yield f"{start}{name}{end}".encode("utf-8", "surrogatepass"), start.encode() + ERASED + end.encode()


def own_lines(passages: Iterable[Record], pairs: Iterable[Record], others: Iterable[str]) -> list[str]:
    """The lines of pages, and the questions and answers about them, that nothing else says: what tells that a file holds them."""
    lines = {line.strip() for row in passages for line in [*row["text"].splitlines(), one_line(row["text"])]}
    lines |= {str(pair[field]) for pair in pairs for field in ("question", "answer", "text", "reference") if pair.get(field)}
    candidates = {line for line in lines if len(line) >= SHORTEST}
    for other in others:
        candidates = {line for line in candidates if line not in other} if candidates else candidates
    return sorted(candidates)


# --- Files


def in_file(path: Path, wanted: Canary) -> bool:
    """Also where it is packed, and in SQLite's rows, which may lie in pieces. A file that is gone by now holds nothing."""
    if not path.exists():  # the log of a database that somebody is at work with
        return False
    with path.open("rb") as file:
        head = file.read(16)
        file.seek(0)
        if in_stream(file, wanted):
            return True
    if head.startswith(SQLITE):
        return bool(in_database(path, wanted))
    if head.startswith(GZIP) or head.startswith(ZIP):
        return any(wanted.within(part) for part in unpacked(path, head))
    return False


def in_stream(file: IO[bytes], wanted: Canary) -> bool:
    """With as much of the block before as a form may straddle."""
    kept = b""
    while block := file.read(BLOCK):
        if wanted.within(kept + block):
            return True
        kept = (kept + block)[-wanted.longest :]
    return False


def unpacked(path: Path, head: bytes) -> Iterator[bytes]:
    """What is inside, a member at a time; nothing of what only looks packed."""
    with suppress(*BROKEN):
        if head.startswith(GZIP):
            with gzip.open(path) as file:
                yield file.read(LARGEST_PACKED)
        else:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    yield name.encode("utf-8", "surrogatepass")
                    yield archive.open(name).read(LARGEST_PACKED)


# --- SQLite


def text_columns(database: sqlite3.Connection) -> Iterator[tuple[str, str]]:
    """(table, column), quoted, of all that can hold text."""
    names = database.execute("SELECT name FROM sqlite_master WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'").fetchall()
    for (table,) in names:
        for column in database.execute(f"PRAGMA table_info({quoted(table)})").fetchall():
            if not re.fullmatch(r"(?i)(big|small|tiny)?int(eger)?|real|float.*|double.*|bool(ean)?|date.*|timestamp", column[2]):
                yield quoted(table), quoted(column[1])


def quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def in_database(path: Path, wanted: Canary) -> list[str]:
    """`table.column` of every column with a row that holds it."""
    with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=30)) as database:
        return [f"{table}.{column}" for table, column in text_columns(database) if any_row(database, table, column, wanted)]


def any_row(database: sqlite3.Connection, table: str, column: str, wanted: Canary) -> bool:
    rows = database.execute(f"SELECT {column} FROM {table} WHERE {column} IS NOT NULL")
    return any(wanted.within(as_bytes(value)) for (value,) in rows)


def as_bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")


def blot_database(path: Path, wanted: Canary) -> int:
    """Overwrite it in every text column, and give the freed pages back. Returns how many values changed."""
    changed = 0
    with closing(sqlite3.connect(path, timeout=60)) as database:
        database.execute("PRAGMA secure_delete = ON")
        for table, column in text_columns(database):
            rows = database.execute(f"SELECT rowid, {column} FROM {table} WHERE {column} IS NOT NULL").fetchall()
            hits = [(blotted_value(value, wanted), row) for row, value in rows if wanted.within(as_bytes(value))]
            with database:
                database.executemany(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", hits)
            changed += len(hits)
        with suppress(sqlite3.OperationalError):  # somebody reads it: what was overwritten is gone from it, only the room is not
            database.execute("VACUUM")
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return changed


def blotted_value(value: object, wanted: Canary) -> object:
    if isinstance(value, bytes):
        return wanted.blotted(value)
    return wanted.blotted(as_bytes(value)).decode("utf-8", "surrogatepass")
