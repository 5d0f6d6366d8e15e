"""A million vectors through the index: `python tests/benchmarks/index_million.py [--rows 1000000] [--folder FOLDER]`.

Passages of a dozen words, with synthetic vectors of 384 dimensions (a hundred passages around each centre, cosine about 0.6) in
the place of an embedder's; everything else is the project's own code with the shipped params. Three processes: a build from
nothing; a refresh in which 1 % of the passages changed; then questions. Prints for each seconds, peak memory and bytes on disk,
and of the questions the median and 95th percentile of both legs, of the exact scan and of the index with other probes, and
recall@10 of passages that had no part in the tuning.
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tasks.backends import Vectors
from tasks.index import bring_up_to_date, describe, settings
from tasks.nearest import LANCE_PROBES, exact_thresholds, nearest, partitions, shares_found, written_probes
from tasks.params import IndexParams
from tasks.params_files import load
from tasks.records import Record, value_digest
from tasks.search import Index, open_version

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from hashing import HashEmbedder  # noqa: E402

DIMENSION, PER_CENTRE, SPREAD, CHANGED, QUESTIONS = 384, 100, 0.8, 0.01, 100
PARAMS = load(IndexParams, ROOT / "params").model_copy(update={"passages_per_commit": 20_000})


class Synthetic(HashEmbedder):
    """The vector of passage `n` is a function of the number that its text begins with, and of its edit."""

    def passages(self, texts: Sequence[str], batch_size: int = 32) -> Vectors:
        return np.stack([vector(*map(int, text.split("\n")[1].split()[:2])) for text in texts])

    def queries(self, texts: Sequence[str], batch_size: int = 32) -> Vectors:
        return self.passages([f"\n{text}" for text in texts])

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "dimension": DIMENSION}


def vector(number: int, edit: int) -> Vectors:
    centre = np.random.default_rng([7, number % (rows_of_run() // PER_CENTRE)]).normal(size=DIMENSION)
    found = centre + SPREAD * np.random.default_rng([8, number, edit]).normal(size=DIMENSION)
    return np.asarray(found / np.linalg.norm(found), np.float32)


def rows_of_run() -> int:
    return int(sys.argv[sys.argv.index("--rows") + 1]) if "--rows" in sys.argv else 1_000_000


def corpus(rows: int, day: int) -> list[Record]:
    """On day 2 every hundredth passage is another."""
    return [row(number, edit=int(day == 2 and number % round(1 / CHANGED) == 0)) for number in range(rows)]


def row(number: int, edit: int) -> Record:
    words = " ".join(f"w{(number * step + edit) % 50_021}" for step in (1, 3, 7, 31, 127, 8191, 17, 5, 11, 13))
    text, document = f"{number} {edit} {words}", f"page-{number // 10}"
    key = value_digest([document, text])
    return {"id": key, "document": document, "heading": document, "text": text, "embedded": f"{document}\n{text}"}


def build(folder: Path, rows: int, day: int) -> dict[str, Any]:
    passages, model = corpus(rows, day), any_embedder()
    manifest = describe(passages, model.identity(), settings(PARAMS))
    started = time.monotonic()
    table, work = bring_up_to_date(str(folder / "index"), manifest, passages, model, folder / "vectors.sqlite", PARAMS)
    seconds = time.monotonic() - started
    return {**work, "seconds": round(seconds, 1), "probes": written_probes(table), "about_partitions": partitions(rows)}


def ask(folder: Path, rows: int) -> dict[str, Any]:
    model = any_embedder()
    manifest = describe(corpus(rows, 2), model.identity(), settings(PARAMS))
    index = Index(str(folder / "index"), manifest, model)
    table = open_version(str(folder / "index"), manifest)
    queries = model.queries([row(number, 0)["text"] for number in range(37, rows, rows // QUESTIONS - 1)])
    thresholds = exact_thresholds(table, queries, 10)
    found: dict[str, Any] = {}
    texts = [row(number, 0)["text"] for number in range(5, rows, rows // QUESTIONS)]
    found["both legs, served"] = timed(lambda text: index.legs(text, 50), texts)
    ways = {
        "index, as tuned": written_probes(table),
        f"index, {LANCE_PROBES} probes": LANCE_PROBES,
        "index, all": partitions(rows) * 2,
    }
    for name, probes in {**ways, "exact scan": 0}.items():
        times = timed(partial(ten, table, probes=probes), list(queries))
        found[name] = times | {"recall@10": round(float(shares_found(table, queries, thresholds, 10, probes).mean()), 4)}
    return found


def ten(table: Any, query: Vectors, probes: int | None) -> Any:
    return nearest(table, query, probes).limit(10).select(["id", "_distance"]).to_arrow()


def timed(call: Callable[[Any], Any], inputs: Sequence[Any]) -> dict[str, float]:
    """Milliseconds, after three calls that are not counted."""
    spent = []
    for each in [*inputs[:3], *inputs]:
        started = time.perf_counter()
        call(each)
        spent.append(1000 * (time.perf_counter() - started))
    return {"median_ms": round(float(np.median(spent[3:])), 1), "p95_ms": round(float(np.quantile(spent[3:], 0.95)), 1)}


def any_embedder() -> Any:
    return Synthetic()


def megabytes(folder: Path) -> dict[str, int]:
    def size(paths: Iterator[Path]) -> int:
        return round(sum(path.stat().st_size for path in paths if path.is_file()) / 1e6)

    return {"index_MB": size((folder / "index").rglob("*")), "vectors_MB": size(folder.glob("vectors.sqlite*"))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, help="kept; default: one that is deleted afterwards")
    parser.add_argument("--phase", choices=["build", "refresh", "ask"], help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.phase:
        run = {"build": lambda: build(options.folder, options.rows, 1), "refresh": lambda: build(options.folder, options.rows, 2)}
        found = run.get(options.phase, lambda: ask(options.folder, options.rows))()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
        print(json.dumps({options.phase: found | megabytes(options.folder) | {"peak_GB": round(peak, 2)}}), flush=True)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.folder or Path(scratch)
        for phase in ("build", "refresh", "ask"):
            words = ["--rows", str(options.rows), "--folder", str(folder), "--phase", phase]
            subprocess.run([sys.executable, __file__, *words], check=True)


if __name__ == "__main__":
    main()
