"""Kinds of vector index at equal recall.

`python tests/benchmarks/index_types.py [--rows 200000] [--vectors FILE.npy] [--kinds IVF_FLAT,IVF_RQ]`. Each kind is built on
the same vectors (synthetic as in index_million.py, or the rows of a file). For 200 vectors of the table as questions the
cheapest setting is looked for that finds 0.995 of their ten nearest; 100 others then tell recall and the median and 95th
percentile of the seconds, the kinds taking turns. Printed beside it: seconds of the build and bytes on disk.
"""

import argparse
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from tasks.backends import Vectors
from tasks.nearest import PARTITION_ROWS, exact_thresholds

DIMENSION, PER_CENTRE, SPREAD, WANTED = 384, 100, 0.8, 0.995
PROBES = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
BATCH = 10_000


class Setting(NamedTuple):
    probes: int
    refine: int  # 0: distances as the index has them

    def search(self, table: Any, query: Any) -> Any:
        found = table.search(query, vector_column_name="vector").distance_type("cosine")
        if self.probes == 0:
            return found.bypass_vector_index().limit(10)
        found = found.nprobes(self.probes).limit(10)
        return found.refine_factor(self.refine) if self.refine else found


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--vectors", type=Path)
    parser.add_argument("--kinds", default="IVF_FLAT,IVF_PQ,IVF_PQ fine,IVF_RQ,IVF_HNSW_SQ")
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    vectors = np.load(given.vectors) if given.vectors else None
    rows = len(vectors) if vectors is not None else given.rows
    print(f"{rows} vectors, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}", flush=True)
    tables = {kind: built(folder / kind, kind, batches(rows, vectors), rows) for kind in ("exact", *given.kinds.split(","))}
    queries = drawn(tables["exact"], rows)
    thresholds = exact_thresholds(tables["exact"], queries, 10)
    chosen = {
        kind: Setting(0, 0) if kind == "exact" else cheapest(table, kind, queries[:200], thresholds[:200])
        for kind, table in tables.items()
    }
    compare(tables, chosen, queries[200:], thresholds[200:])
    shutil.rmtree(folder)


def kinds(rows: int) -> dict[str, Any]:
    from lancedb.index import HnswSq, IvfFlat, IvfPq, IvfRq

    parts: dict[str, Any] = {"distance_type": "cosine", "num_partitions": max(1, round(rows / PARTITION_ROWS))}
    return {
        "IVF_FLAT": IvfFlat(**parts),
        "IVF_PQ": IvfPq(num_sub_vectors=DIMENSION // 8, **parts),
        "IVF_PQ fine": IvfPq(num_sub_vectors=DIMENSION // 4, **parts),
        "IVF_RQ": IvfRq(**parts),
        "IVF_HNSW_SQ": HnswSq(**parts),
    }


def batches(rows: int, vectors: Vectors | None) -> Iterator[pa.RecordBatch]:
    for start in range(0, rows, BATCH):
        stop = min(start + BATCH, rows)
        block = vectors[start:stop] if vectors is not None else np.stack([synthetic(n, rows) for n in range(start, stop)])
        flat = pa.array(np.asarray(block, np.float32).reshape(-1))
        column = pa.FixedSizeListArray.from_arrays(flat, block.shape[1])
        yield pa.record_batch([pa.array(range(start, stop)), column], names=["id", "vector"])


def synthetic(number: int, rows: int) -> Vectors:
    centre = np.random.default_rng([7, number % (rows // PER_CENTRE)]).normal(size=DIMENSION)
    found = centre + SPREAD * np.random.default_rng([8, number]).normal(size=DIMENSION)
    return np.asarray(found / np.linalg.norm(found), np.float32)


def built(folder: Path, kind: str, rows_of: Iterator[pa.RecordBatch], rows: int) -> Any:
    import lancedb

    table = lancedb.connect(str(folder)).create_table("vectors", pa.Table.from_batches(list(rows_of)))
    before, started = size(folder), time.monotonic()
    if kind != "exact":
        table.create_index("vector", config=kinds(rows)[kind], name="vector_idx")
    print(f"{kind}: built in {time.monotonic() - started:.1f} s, {(size(folder) - before) / 1e6:.0f} MB more", flush=True)
    return table


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def drawn(table: Any, rows: int) -> Vectors:
    places = np.random.default_rng(1).permutation(rows)[:300].tolist()
    found = table.take_offsets(places).select(["vector"]).to_arrow()["vector"].combine_chunks()
    return np.asarray(found.flatten().to_numpy(), np.float32).reshape(len(places), -1)


def cheapest(table: Any, kind: str, queries: Vectors, thresholds: Vectors) -> Setting:
    """By the seconds of twenty questions, among the settings that find enough."""
    refines = (0,) if kind == "IVF_FLAT" else (1, 2, 4, 8, 16, 32)
    fits: list[tuple[float, Setting]] = []
    for refine in refines:
        enough = (Setting(probes, refine) for probes in PROBES)
        setting = next((one for one in enough if recall(table, one, queries, thresholds) >= WANTED), None)
        if setting is not None:
            fits.append((float(np.median(seconds(table, setting, queries[:20]))), setting))
            print(f"{kind}: {setting.probes} probes, refine {refine}: {fits[-1][0] * 1000:.1f} ms", flush=True)
    return min(fits)[1] if fits else Setting(PROBES[-1], refines[-1])


def recall(table: Any, setting: Setting, queries: Vectors, thresholds: Vectors) -> float:
    found = setting.search(table, list(queries)).select(["id", "_distance"]).to_arrow()
    right = 1 - found["_distance"].to_numpy() >= thresholds[found["query_index"].to_numpy()] - 1e-5
    return float(right.sum()) / (10 * len(queries))


def seconds(table: Any, setting: Setting, queries: Vectors) -> list[float]:
    return [elapsed(table, setting, query) for query in queries]


def elapsed(table: Any, setting: Setting, query: Vectors) -> float:
    started = time.perf_counter()
    setting.search(table, query).select(["id", "_distance"]).to_arrow()
    return time.perf_counter() - started


def compare(tables: dict[str, Any], chosen: dict[str, Setting], queries: Vectors, thresholds: Vectors) -> None:
    times: dict[str, list[float]] = {kind: [] for kind in tables}
    for query in queries:
        for kind, table in tables.items():
            times[kind].append(elapsed(table, chosen[kind], query))
    print("| kind | probes | refine | recall@10 | median ms | 95th percentile |\n|---|---|---|---|---|---|")
    for kind, table in tables.items():
        setting = chosen[kind]
        median, slow = np.percentile(np.asarray(times[kind]) * 1000, (50, 95))
        share = recall(table, setting, queries, thresholds)
        print(f"| {kind} | {setting.probes} | {setting.refine} | {share:.4f} | {median:.1f} | {slow:.1f} |")


if __name__ == "__main__":
    main()
