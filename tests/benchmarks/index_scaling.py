"""The time of one fixed change against the size of the corpus: `python tests/benchmarks/index_scaling.py [PAGES ...]`.

One page of ten passages is edited, in a corpus of 1,000, 3,000 and 10,000 such pages (384 dimensions, vectors that stand for a
model's). Prints passages embedded, commits, bytes, and the seconds of the step by its parts; then the log-log slope of the
step alone between the smallest and the largest corpus, and with the start of its process (the imports, measured) added.
"""

import hashlib
import math
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.embedding import Vectors
from tasks.index import bring_up_to_date, describe, measure_recall, settings
from tasks.params import IndexParams
from tasks.params_files import load
from tasks.records import Record, read_jsonl, value_digest, write_jsonl

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from hashing import HashEmbedder  # noqa: E402

DIMENSION, PASSAGES, REPEATS = 384, 10, 5
PARAMS = load(IndexParams, ROOT / "params").model_copy(update={"passages_per_commit": 20_000})
WORDS = [
    f"{first}{second}"
    for first in ("bo", "ka", "ri", "su", "te", "lo")
    for second in ("ran", "mil", "dor", "fen", "gas", "pit", "nul")
]


class Quick(HashEmbedder):
    """A random direction a text: enough for the work of an index."""

    def passages(self, texts: Sequence[str], batch_tokens: int = 1024) -> Vectors:
        self.embedded += texts
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) for text in texts]
        vectors = np.stack([np.random.default_rng(seed).normal(size=DIMENSION) for seed in seeds])
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)

    def identity(self) -> dict[str, Any]:
        return {**super().identity(), "dimension": DIMENSION}


def page(number: int, edit: int = 0) -> list[Record]:
    chosen = random.Random(number * 1000 + edit)
    return [row(f"page-{number}", position, " ".join(chosen.choices(WORDS, k=40))) for position in range(PASSAGES)]


def row(document: str, position: int, text: str) -> Record:
    key = value_digest([document, text, position])
    return {"id": key, "document": document, "heading": document, "text": text, "embedded": f"{document}\n{text}"}


def measure(pages: int, folder: Path) -> float:
    passages = [passage for number in range(pages) for passage in page(number)]
    build(folder, passages)
    seconds = []
    for edit in range(1, REPEATS + 1):
        write_jsonl(folder / "passages.jsonl", [*page(0, edit), *passages[PASSAGES:]])
        held, started = size(folder / "index"), time.monotonic()
        read = read_jsonl(folder / "passages.jsonl")
        reading = time.monotonic() - started
        table, work = build(folder, read)
        building = time.monotonic() - started - reading
        model: Any = Quick()
        measure_recall(table, model, model.identity(), PARAMS.recall_sample)
        seconds.append(time.monotonic() - started)
        print(
            f"{pages:6} pages {len(passages):7} passages: {work['embedded']:3} embedded, {work['commits']} commits, "
            f"{(size(folder / 'index') - held) / 1000:8.0f} KB; {seconds[-1]:6.2f} s "
            f"(read {reading:.2f}, build {building:.2f}, recall {seconds[-1] - reading - building:.2f})",
            flush=True,
        )
    return statistics.median(seconds)


def build(folder: Path, passages: list[Record]) -> tuple[Any, dict[str, Any]]:
    model: Any = Quick()
    manifest = describe(passages, model.identity(), settings(PARAMS))
    return bring_up_to_date(str(folder / "index"), manifest, passages, model, folder / "vectors.sqlite", PARAMS)


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    sizes = [int(word) for word in sys.argv[1:]] or [1_000, 3_000, 10_000]
    medians = {}
    for pages in sizes:
        with tempfile.TemporaryDirectory() as folder:
            medians[pages] = measure(pages, Path(folder))
    first, last = sizes[0], sizes[-1]
    if first != last:
        start = start_seconds()
        alone, whole = (slope(medians[first] + more, medians[last] + more, last / first) for more in (0.0, start))
        print(f"log-log slope of the step alone {alone:.2f}; with the {start:.1f} s that its process takes to start {whole:.2f}")


def slope(first: float, last: float, ratio: float) -> float:
    return math.log(last / first) / math.log(ratio)


def start_seconds() -> float:
    """The median of three processes that import what the stage imports, and load no model."""
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        subprocess.run([sys.executable, "-c", "import lancedb, sentence_transformers"], check=True)
        seconds.append(time.monotonic() - started)
    return statistics.median(seconds)


if __name__ == "__main__":
    main()
