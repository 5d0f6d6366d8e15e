"""Upkeep of the index store: the versions that somebody needs stay, the rest goes, by the calls that LanceDB has.

LanceDB prunes by age alone, and refuses altogether where a tagged version is old (pylance, which could skip those, is not
installed). So each version that stays is committed once more, which copies no data, and its tag moves to that commit; then
everything older can go. The tag still names the same rows, which is checked before it moves.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from tasks.errors import IntegrityError
from tasks.failpoints import failpoint
from tasks.nearest import nearest
from tasks.table_files import make_durable, table_folder
from tasks.tables import checkout, connect, is_local, open_table, restore_newest_tag, rows_digest, table_names, tags

OURS = "passages-"  # how the names of our tables begin; others in the same store are left alone
MOST_FRAGMENTS = 50  # every refresh adds one; at 100 a vector query takes 1.5 times as long, at 200 2.5 times
FOREVER = timedelta(days=36500)
LOCAL_GRACE, SHARED_GRACE = 5.0, 3600.0  # seconds: a version younger than this stays, for a clock's sake or another machine's


def keep_versions(store: str, wanted: Mapping[str, Iterable[str]], grace: float | None = None) -> None:
    """Keep these tags (table -> tags) and free every other version and table of ours. Needs `only_writer`.

    Raises IntegrityError, with nothing lost, where another machine writes to the same table meanwhile.
    """
    grace = (LOCAL_GRACE if is_local(store) else SHARED_GRACE) if grace is None else grace
    database = connect(store)
    for name in table_names(database):
        table = open_table(database, name) if name.startswith(OURS) else None
        if table is None:
            continue
        kept = drop_other_tags(table, set(wanted.get(name, ())))
        if kept:
            keep_tags(database, name, kept, grace)
        elif age(table) >= grace:
            database.drop_table(name)


def drop_other_tags(table: Any, wanted: set[str]) -> list[str]:
    """Those of `wanted` that are there, the oldest first."""
    present = tags(table)
    for tag in present.keys() - wanted:
        table.tags.delete(tag)
    return sorted(wanted & present.keys(), key=lambda tag: present[tag])


def keep_tags(database: Any, name: str, kept: list[str], grace: float) -> None:
    began = time.time()
    for tag in kept:
        with same_rows(database, name, tag) as table:
            table.restore()
    compact(database, name, kept[-1])
    if is_local(database.uri):  # a power loss must not find the old versions gone and the new ones not there yet
        make_durable(table_folder(database.uri, name))
    prune(open_table(database, name), began - grace)


@contextmanager
def same_rows(database: Any, name: str, tag: str) -> Iterator[Any]:
    """Yields the version under `tag`; what is the newest afterwards gets the tag, if it holds the same rows."""
    table = open_table(database, name)
    checkout(table, tag)
    digest = rows_digest(table)
    yield table
    newest: Any = open_table(database, name)
    version = newest.version
    newest.checkout(version)
    if rows_digest(newest) != digest:
        raise IntegrityError(f"somebody else writes to table {name}; nothing of it was freed. Run it again: tandem maintain")
    failpoint("upkeep.before-retag")
    newest.tags.update(tag, version)


def compact(database: Any, name: str, newest: str) -> None:
    """Merge the fragments of the newest version, where they are so many that queries suffer: it writes all rows once more."""
    table: Any = open_table(database, name)
    if table.stats()["fragment_stats"]["num_fragments"] <= MOST_FRAGMENTS:
        return
    with same_rows(database, name, newest) as table:
        table.checkout_latest()
        table.optimize(cleanup_older_than=FOREVER)


def prune(table: Any, before: float) -> None:
    """Free what only versions older than `before` (seconds since 1970) need.

    `optimize` also merges fragments, whatever their number; of an empty version there are none to merge. Should we die
    before the rows are back, the next build brings them back.
    """
    from lancedb.expr import lit

    failpoint("upkeep.before-prune")
    table.delete(lit(True))
    failpoint("upkeep.after-delete")
    try:
        table.optimize(cleanup_older_than=timedelta(seconds=time.time() - before))
    finally:
        restore_newest_tag(table)


def age(table: Any) -> float:
    """Seconds since its newest commit."""
    newest: datetime = max(version["timestamp"] for version in table.list_versions())
    return (datetime.now() - newest).total_seconds()


def check_answers(table: Any) -> None:
    """The version answers by both legs. Raises IntegrityError where it does not find a passage by that passage's own vector."""
    row = table.search().select(["id", "embedded", "vector"]).limit(1).to_list()[0]
    table.search(row["embedded"][:200], query_type="fts", fts_columns="embedded").limit(1).to_list()
    near = nearest(table, row["vector"]).limit(1).to_list()
    if not near or near[0]["_distance"] > 1e-3:
        raise IntegrityError(f"table {table.name} does not find its own passages; build it again: dvc repro --force index")


def texts_of(table: Any) -> Iterator[str]:
    for batch in table.search().select(["embedded"]).limit(table.count_rows()).to_batches(10_000):
        yield from batch["embedded"].to_pylist()
