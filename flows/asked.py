"""The newest answers of `tandem ask` and `tandem serve`, kept so that `tandem why` can tell later how each came about.

One SQLite file below TANDEM_HOME, for this user alone: it holds questions as they were asked, and texts of the corpus. It may be
deleted at any time; an erasure calls `forget`.
"""

import json
import secrets
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from flows.settings import Settings
from tasks.errors import InputError
from tasks.records import Record

KEPT = 1000  # answers; some 5 kB each
SHOWN = 3  # ids that a message lists
BUSY_SECONDS = 5.0  # that an answer waits for another one to be kept; then it is given without


def place(settings: Settings) -> Path:
    return settings.home / "asked.sqlite"


@contextmanager
def opened(path: Path) -> Iterator[sqlite3.Connection]:
    """`secure_delete`: what is forgotten is overwritten, not only unlinked."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    path.touch(mode=0o600)
    with closing(sqlite3.connect(path, timeout=BUSY_SECONDS)) as database, database:
        database.execute("PRAGMA secure_delete = ON")
        database.execute("CREATE TABLE IF NOT EXISTS answers (number INTEGER PRIMARY KEY, id TEXT UNIQUE, record TEXT)")
        yield database


def remember(path: Path, record: Record) -> str:
    """Keep an explanation and return its id; the oldest beyond KEPT goes."""
    identity = secrets.token_hex(4)
    with opened(path) as database:
        row = (identity, json.dumps(record | {"id": identity}, ensure_ascii=False))
        database.execute("INSERT INTO answers (id, record) VALUES (?, ?)", row)
        database.execute("DELETE FROM answers WHERE number <= (SELECT max(number) FROM answers) - ?", (KEPT,))
    return identity


def keep(settings: Settings, record: Record) -> str | None:
    """`remember`; an answer is given also where it cannot be kept: on a full disk, or below a home that only others may write."""
    try:
        return remember(place(settings), record)
    except (OSError, sqlite3.Error) as error:
        print(f"tandem: `tandem why` will not know this answer: {error}", file=sys.stderr)
        return None


def recall(path: Path, identity: str) -> Record:
    """Raises InputError where there is no such answer, or none any more, and where the file is none of ours."""
    try:
        found, newest = looked_up(path, identity)
    except sqlite3.DatabaseError as error:
        raise InputError(f"{path} cannot be read ({error}); delete it: only `tandem why` needs it") from error
    if found is None:
        known = f"the newest: {', '.join(newest)}" if newest else "there is none yet; ask something: tandem ask"
        raise InputError(f"there is no answer {identity[:80]!r} among the last {KEPT} that were asked here; {known}")
    return dict(json.loads(found[0]))


def looked_up(path: Path, identity: str) -> tuple[Any, list[str]]:
    with opened(path) as database:
        found = database.execute("SELECT record FROM answers WHERE id = ?", (identity,)).fetchone()
        newest = [row[0] for row in database.execute("SELECT id FROM answers ORDER BY number DESC LIMIT ?", (SHOWN,))]
    return found, newest


def forget(path: Path, concerns: Callable[[Record], bool]) -> int:
    """Drop the answers that `concerns` says yes to, for good; returns how many."""
    if not path.exists():
        return 0
    with opened(path) as database:
        rows = database.execute("SELECT number, record FROM answers").fetchall()
        gone = [(number,) for number, record in rows if concerns(json.loads(record))]
        database.executemany("DELETE FROM answers WHERE number = ?", gone)
    return len(gone)
