"""The vector leg: how it searches, what it finds of what an exact scan finds, and how many partitions that takes.

An IVF_FLAT index holds whole vectors in partitions of similar ones and looks into the `probes` nearest of a question. A distance
is exact whatever the probes, so a score means the same before and after an index is made; what probes change is what is missed.
They are tuned when the index is made, and written on the vector column: so they are part of the version, and go where it goes.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.backends import Vectors
from tasks.embedding import Embedder
from tasks.stage import say

if TYPE_CHECKING:
    import pyarrow as pa

SCAN_ROWS = 20_000  # of vectors that are held in memory at once while recall is measured
PARTITION_ROWS = 4096  # vectors in a partition of the vector index, about
LANCE_PROBES = 20  # where nothing is written on the column
PROBES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
PROBES_KEY = b"tandem:probes"  # on the vector column; 0: the exact scan, which was faster
TUNED_BY = 4  # times the passages by which recall is measured
TIMED = 9  # questions
ORDER_SEED = 1


def nearest(table: Any, query: Any, probes: int | None = None) -> Any:
    """The search by one vector or several, by as many probes as the table says; `.limit` and `.select` are the caller's."""
    search = table.search(query, vector_column_name="vector").distance_type("cosine")
    probes = written_probes(table) if probes is None else probes
    if probes == 0:
        return search.bypass_vector_index()
    return search if probes is None else search.nprobes(probes)


def written_probes(table: Any) -> int | None:
    found = (table.schema.field("vector").metadata or {}).get(PROBES_KEY)
    return None if found is None else int(found)


def tune(table: Any, model: Embedder, identity: Mapping[str, Any], sample: int, floor: float, made: bool) -> None:
    """Write the fewest probes that lose half of what `floor` allows, where the index was just `made` or those in use lose more.

    One Lance commit, or none. Judged by several times the passages by which recall is then measured, and by those among them: so
    chance does not refuse a build. Probes in use that do, at less than twice the cost, stay.
    """
    every, written = partitions(table.count_rows()), written_probes(table)
    used = min(LANCE_PROBES if written is None else written, every)
    if every == 1 or (used == 0 and not made):  # one partition is an exact scan of a copy in memory
        return
    enough = judge(table, model, identity, sample, floor)
    fits = used > 0 and enough(used)
    if fits and not made:
        return
    wanted = first([probes for probes in PROBES if probes < every] + [every], enough)
    if slower_than_exact(table, model, identity, wanted):
        wanted = 0
    elif fits and used < 2 * wanted:
        return
    say(
        f"the vector index looks into {wanted} of about {every} partitions"
        if wanted
        else "the vector index is slower: exact scan"
    )
    table.update_field_metadata({"path": "vector", "metadata": {PROBES_KEY.decode(): str(wanted)}})


def judge(table: Any, model: Embedder, identity: Mapping[str, Any], sample: int, floor: float) -> Callable[[int], bool]:
    """Whether so many probes find enough."""
    measured = queries_of(table, model, identity, sample)
    queries = np.concatenate([measured, queries_of(table, model, identity, (TUNED_BY - 1) * sample, start=sample)])
    k = min(10, table.count_rows())
    thresholds = exact_thresholds(table, queries, k)

    def enough(probes: int) -> bool:
        found = shares_found(table, queries, thresholds, k, probes)
        return bool(found[: len(measured)].mean() >= floor and found.mean() >= 1 - (1 - floor) / 2)

    return enough


def partitions(rows: int) -> int:
    return max(1, round(rows / PARTITION_ROWS))


def first(ladder: Sequence[int], enough: Callable[[int], bool]) -> int:
    """The first step that is enough, by bisection; the last where none is."""
    low, high = 0, len(ladder) - 1
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(ladder[middle]) else (middle + 1, high)
    return ladder[low]


def slower_than_exact(table: Any, model: Embedder, identity: Mapping[str, Any], probes: int) -> bool:
    """Medians over the same questions, asked in turn."""
    seconds: dict[int, list[float]] = {probes: [], 0: []}
    for query in queries_of(table, model, identity, TIMED):
        for way, spent in seconds.items():
            started = time.perf_counter()
            nearest(table, query, way).limit(10).select(["id", "_distance"]).to_arrow()
            spent.append(time.perf_counter() - started)
    return statistics.median(seconds[probes]) > statistics.median(seconds[0])


def queries_of(table: Any, model: Embedder, identity: Mapping[str, Any], count: int, start: int = 0) -> Vectors:
    """(q, dimension): passages as queries, `count` of them or what there is, after the first `start` of one random order.

    A passage's own vector is the query, unless the embedder treats questions otherwise. Not at equal distances: a corpus has its
    own rhythm, and every hundredth passage of a reference is of one kind.
    """
    order = np.random.default_rng(ORDER_SEED).permutation(table.count_rows())
    texts, queries = sampled(table, sorted(order[start : start + count].tolist()))
    return model.queries(texts) if texts and identity["query_prompt"] != identity["passage_prompt"] else queries


def sampled(table: Any, places: list[int]) -> tuple[list[str], Vectors]:
    """Passages at these offsets: texts, vectors."""
    if not places:
        return [], np.empty((0, table.schema.field("vector").type.list_size), np.float32)
    rows = table.take_offsets(places).select(["embedded", "vector"]).to_arrow().combine_chunks()
    return rows["embedded"].to_pylist(), matrix_of(rows.to_batches()[0])


def exact_thresholds(table: Any, queries: Vectors, k: int) -> Vectors:
    """(q, dimension) queries -> (q,) cosine similarity of each one's k-th nearest passage."""
    best = np.full((len(queries), k), -2, np.float32)
    for batch in table.search().select(["vector"]).limit(table.count_rows()).to_batches(SCAN_ROWS):
        similarities = np.concatenate([best, queries @ matrix_of(batch).T], axis=1)
        best = -np.partition(-similarities, k - 1, axis=1)[:, :k]
    return np.asarray(best.min(axis=1), np.float32)


def matrix_of(batch: "pa.RecordBatch") -> Vectors:
    flat = batch["vector"].flatten().to_numpy(zero_copy_only=False)
    return np.asarray(flat, np.float32).reshape(batch.num_rows, -1)


def shares_found(table: Any, queries: Vectors, thresholds: Vectors, k: int, probes: int | None = None) -> Vectors:
    """(q,): of each query's k nearest. By similarity, not by id: equal passages on two pages tie, and either is right.

    All in one call, ten times as fast.
    """
    found = nearest(table, list(queries), probes).limit(k).select(["id", "_distance"]).to_arrow()
    asked = found["query_index"].to_numpy() if len(queries) > 1 else np.zeros(found.num_rows, np.int32)  # one query has no number
    right = 1 - found["_distance"].to_numpy() >= thresholds[asked] - 1e-5
    return np.asarray(np.bincount(asked[right], minlength=len(queries)) / k, np.float32)
