"""Where LanceDB tables live, and the few calls that several modules need. Vectors by text are kept apart: tasks.embedding."""

import fcntl
import re
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from tasks.errors import ConflictError, InputError, IntegrityError
from tasks.lean_imports import import_lancedb
from tasks.params import IndexParams
from tasks.records import value_digest
from tasks.stage import say

# Lance commits with put-if-absent on these; on any other scheme it falls back to an unsafe commit with a mere warning
SAFE_SCHEMES = ("s3", "gs", "az")


def check_store(store: str) -> None:
    """Raises InputError for a URI scheme on which two writers could overwrite each other's commits, and for half a URI."""
    scheme = scheme_of(store)
    if not store:
        raise InputError("no place for the index: set TANDEM_INDEX_URI, or run through `make` or `tandem`, which set it")
    if scheme and scheme not in SAFE_SCHEMES:
        raise InputError(f"TANDEM_INDEX_URI={store}: {scheme}:// has no safe commit; use a folder or {', '.join(SAFE_SCHEMES)}")
    if scheme and not re.match(r"^\w+://[^/\s]", store):
        raise InputError(f"TANDEM_INDEX_URI={store}: a bucket is missing; write {scheme}://BUCKET/FOLDER")


def scheme_of(place: str) -> str:
    """Empty for a path. `s3:/bucket` has one too: taken for a path, it would silently be a folder called `s3:`."""
    found = re.match(r"([a-zA-Z][\w+.-]*):", place)
    return found[1] if found else ""


def is_local(store: str) -> bool:
    return not scheme_of(store)


def connect(store: str) -> Any:
    """A database whose handles always see the latest commit. Raises InputError where object storage does not answer."""
    lancedb = import_lancedb()
    try:
        return lancedb.connect(store, read_consistency_interval=timedelta(0))
    except (RuntimeError, ValueError, OSError) as error:
        if is_local(store):
            raise
        raise InputError(
            f"the index at {store} cannot be reached ({cause(str(error))}); check the bucket, the credentials and the address "
            "(docs/operations.md, Object storage)"
        ) from error


def cause(said: str) -> str:
    """What the storage itself said, out of a page of Rust."""
    found = re.search(r'<Message>(.*?)<|message: "(.*?)"|(BadScheme)', said)
    words = next(filter(None, found.groups())) if found else said[:200]
    return "http:// needs AWS_ALLOW_HTTP=true" if words == "BadScheme" else words


def table_names(database: Any) -> list[str]:
    return list(database.list_tables().tables)


@contextmanager
def only_writer(store: str) -> Iterator[None]:
    """One build or maintenance of a local store at a time, whoever started it; the kernel ends the lock of one that dies.

    On object storage there is no lock: Lance refuses the commit that comes second, and `check_content` what slipped through.
    """
    if not is_local(store):
        with told_conflicts(store):
            yield
        return
    path = Path(f"{store.rstrip('/')}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"another build or maintenance of the index at {store} is at work; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def told_conflicts(store: str) -> Iterator[None]:
    """Raises ConflictError for what Lance says to the writer who came second."""
    try:
        yield
    except (RuntimeError, ValueError, OSError) as error:
        if not re.search("conflict|already exists", str(error)):
            raise
        raise ConflictError(
            f"another build or maintenance of the index at {store} was first ({str(error)[:120]}); run again"
        ) from error


def open_table(database: Any, name: str) -> Any | None:
    """The newest version; None where there is none, also where a first build died before its first commit.

    Raises IntegrityError where a newer Lance made it, or a crash tore it.
    """
    try:
        return database.open_table(name)
    except (RuntimeError, ValueError, OSError) as error:
        if isinstance(error, ValueError) and "was not found" in str(error):
            return None
        raise unreadable(f"table {name} at {database.uri}", error, f"{name}.lance/_versions") from error


def checkout(table: Any, tag: str) -> None:
    """Pin `table` to the version under `tag`, which is there."""
    try:
        table.checkout(tag)
    except (RuntimeError, ValueError, OSError) as error:
        raise unreadable(f"version {tag} of table {table.name}", error, f"{table.name}.lance/_refs/tags") from error


def tags(table: Any) -> dict[str, int]:
    """Tag -> version."""
    try:
        return {tag: int(found["version"]) for tag, found in table.tags.list().items()}
    except (RuntimeError, ValueError, OSError) as error:
        raise unreadable(f"table {table.name}", error, f"{table.name}.lance/_refs/tags") from error


def restore_newest_tag(table: Any) -> None:
    """Make the newest tagged version the newest of all: by reference, no row is copied."""
    present = tags(table)
    if present:
        checkout(table, max(present, key=lambda tag: present[tag]))
        table.restore()
        table.checkout_latest()


def unreadable(what: str, error: Exception, where: str) -> IntegrityError:
    said = str(error).split(", /")[0]  # what follows is a place in the sources of Lance
    if "upgrade" in said.lower():
        return IntegrityError(f"{what} was made by a newer LanceDB ({said}); upgrade: make setup")
    return IntegrityError(
        f"{what} cannot be read ({said}). After a crash of the machine, move the newest file of {where} away, which it tore; "
        "else restore the index from a backup. Then build again what was lost: dvc repro --force --single-item index"
    )


def existing_ids(table: Any) -> set[str]:
    rows = table.search().select(["id"]).limit(table.count_rows() or 1).to_arrow()
    return set(rows["id"].to_pylist())


def rows_digest(table: Any) -> str:
    """As in the manifest: over the ids, which are digests of the rows' content."""
    return value_digest(sorted(existing_ids(table)))


def full_text(params: IndexParams) -> Any:
    """The full-text index that these settings ask for."""
    from lancedb.index import FTS

    return FTS(language=params.language, stem=params.stem, remove_stop_words=params.remove_stop_words, with_position=False)
