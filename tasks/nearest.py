"""The vector leg: how it searches, what it finds of what an exact scan finds, and how many partitions that takes.

An index holds the vectors in partitions of similar ones and looks into the `probes` nearest of a question. Up to `SHORTENED_FROM`
rows it holds them whole (IVF_FLAT), beyond that one bit of each coordinate (IVF_RQ; Gao, Long: RaBitQ, SIGMOD 2024), by which
`REFINE` times as many as are wanted are found, to be compared whole. So a distance is exact in either, and a score means the same
before and after an index is made; what probes change is what is missed. They are tuned when the index is made, and written on the
vector column: so they are part of the version, and go where it goes.
"""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tasks.backends import Vectors
from tasks.embedding import Embedder
from tasks.stage import say

if TYPE_CHECKING:
    import pyarrow as pa

SCAN_ROWS = 20_000  # of vectors that are held in memory at once while recall is measured
PARTITION_ROWS = 4096  # vectors in a partition of the vector index, about
SHORTENED_FROM = 100_000  # rows; below, whole vectors are as fast or faster (tests/benchmarks/index_types.py)
REFINE = 16  # with 8 it takes more probes, with 32 it is slower
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
    search = search if probes is None else search.nprobes(probes)
    return search.refine_factor(REFINE) if shortened(table) else search  # its own distances are guesses, on another scale


def make_index(table: Any, whole: bool = False) -> None:
    """One commit. A table keeps the kind that it has: where one bit did not find enough, it would not the next time either."""
    from lancedb.index import IvfFlat, IvfRq

    rows, dimension = table.count_rows(), table.schema.field("vector").type.list_size
    first_or_short = table.index_stats("vector_idx") is None or shortened(table)
    short = not whole and rows >= SHORTENED_FROM and dimension % 8 == 0 and first_or_short
    kind = IvfRq if short else IvfFlat
    table.create_index("vector", config=kind(distance_type="cosine", num_partitions=partitions(rows)))


def shortened(table: Any) -> bool:
    stats = table.index_stats("vector_idx")
    return stats is not None and stats.index_type == "IVF_RQ"


def written_probes(table: Any) -> int | None:
    found = (table.schema.field("vector").metadata or {}).get(PROBES_KEY)
    return None if found is None else int(found)


class Sample(NamedTuple):
    """Passages as questions, with the truth about them."""

    queries: Vectors  # (q, dimension)
    thresholds: Vectors  # (q,): the similarity of each one's k-th nearest passage
    k: int


def sample_of(table: Any, model: Embedder, identity: Mapping[str, Any], count: int, start: int = 0) -> Sample:
    queries, k = queries_of(table, model, identity, count, start), min(10, table.count_rows())
    return Sample(queries, exact_thresholds(table, queries, k), k)


class Measured(NamedTuple):
    sample: Sample
    recall: float


def measure(table: Any, model: Embedder, identity: Mapping[str, Any], count: int) -> Measured:
    """Recall@10 of the vector leg as served against an exact scan, with `count` passages as queries."""
    sample = sample_of(table, model, identity, count)
    return Measured(sample, recall_of(table, sample))


def recall_of(table: Any, sample: Sample, probes: int | None = None) -> float:
    return round(float(shares_found(table, *sample, probes).mean()), 4)


def served_recall(
    table: Any, model: Embedder, identity: Mapping[str, Any], measured: Measured, floor: float, made: bool
) -> float:
    """Recall@10 of the vector leg as it will be served. Where its index was just `made`, or the probes lose more than half of
    what `floor` allows, the fewest that do not are looked for: one Lance commit, or none.

    Tuned by several times the passages by which recall was measured, and by those among them: so chance does not refuse a build.
    Probes in use that do, at less than twice the cost, stay. Searches are timed: nothing of ours may run meanwhile.
    """
    sample, recall = measured
    every, written = partitions(table.count_rows()), written_probes(table)
    used = min(LANCE_PROBES if written is None else written, every)
    tunable = table.index_stats("vector_idx") is not None and every > 1  # one partition is an exact scan of a copy in memory
    if not tunable or (not made and (used == 0 or recall >= wanted_recall(floor))):
        return recall
    count = len(sample.queries)
    others = sample_of(table, model, identity, (TUNED_BY - 1) * count, start=count)
    enough = judge(table, sample, others, floor)
    fits = used > 0 and enough(used)
    if fits and not made:
        return recall
    wanted = first([probes for probes in PROBES if probes < every] + [every], enough)
    if shortened(table) and not enough(wanted):
        say("one bit a coordinate does not find enough here: whole vectors")
        make_index(table, whole=True)
        return served_recall(table, model, identity, Measured(sample, recall_of(table, sample)), floor, made=True)
    if slower_than_exact(table, model, identity, wanted):
        wanted = 0
    elif fits and used < 2 * wanted:
        return recall
    write_probes(table, wanted, every)
    return recall_of(table, sample)


def wanted_recall(floor: float) -> float:
    return 1 - (1 - floor) / 2


def judge(table: Any, measured: Sample, others: Sample, floor: float) -> Callable[[int], bool]:
    """Whether so many probes find enough."""
    share = len(measured.queries) / (len(measured.queries) + len(others.queries))

    def enough(probes: int) -> bool:
        found = recall_of(table, measured, probes)
        if found < floor:
            return False
        rest = recall_of(table, others, probes) if len(others.queries) else found
        return share * found + (1 - share) * rest >= wanted_recall(floor)

    return enough


def write_probes(table: Any, probes: int, every: int) -> None:
    say(
        f"the vector index looks into {probes} of about {every} partitions"
        if probes
        else "the vector index is slower: exact scan"
    )
    table.update_field_metadata({"path": "vector", "metadata": {PROBES_KEY.decode(): str(probes)}})


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
        similarities = queries @ matrix_of(batch).T
        for row, floor in enumerate(best.min(axis=1)):  # few are nearer than the k nearest so far: no sorting of them all
            nearer = similarities[row][similarities[row] > floor]
            best[row] = np.partition(np.concatenate([best[row], nearer]), -k)[-k:]
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
