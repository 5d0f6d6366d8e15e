"""Passages embedded a second, and sentence-transformers':
`python tests/benchmarks/embedding_throughput.py [PASSAGES [REPEATS [TOKENS]]]`.

The demo's passages in random order, each time in a fresh process that loads its model and embeds a few before the clock starts.
The ways take turns (A B C A B C), and each waits a minute at most for a quiet machine, unless it has a single thread: where
other work takes one of two cores, torch's threads wait for each other and are ten times slower.

OpenVINO is among them where it is installed (`make .venv/installed-stack`). TOKENS: of a batch of ours, else as params say.

Prints each way's median rate and the median of its paired ratios to sentence-transformers' default `encode`, with a bootstrap
interval, by the clock and by processor time (with OMP_NUM_THREADS=1 the one that other work does not disturb); then nDCG@10 of
the demo's questions by the vectors alone, and the largest difference that a passage's batch makes to a coordinate. 10 minutes.
"""

import json
import os
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from tasks.chunks import chunks
from tasks.documents import documents
from tasks.params import BACKENDS, ChunksParams, DocumentsParams, IndexParams, ModelsParams
from tasks.params_files import load
from tasks.records import read_jsonl
from tasks.scores import retrieval_scores

ROOT = Path(__file__).parents[2]
DEFAULT = "sentence-transformers, default encode"
# Its best of precisions and batch sizes 8 to 128 on the machine of docs/index.md; in float32 that is the default's 32.
# Its ONNX and OpenVINO backends need optimum, whose releases exclude our transformers.
TUNED = {"sentence-transformers, bfloat16": ("bfloat16", 32)}
HERE = [backend for backend in BACKENDS if backend != "openvino-int8" or find_spec("openvino")]
OURS = {f"tandem, {backend}": backend for backend in HERE}
WAYS = (DEFAULT, *TUNED, *OURS)
WARM_UP = 64
Encode = Callable[[list[str]], Any]


def main() -> None:
    shipped = (1500, 7, load(IndexParams, ROOT / "params").batch_tokens)
    count, repeats, budget = [*map(int, sys.argv[1:]), *shipped[len(sys.argv) - 1 :]]
    print(f"{machine()}; batches of {budget} tokens", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(folder, count)
        seconds: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for repeat in range(repeats):
            for way in WAYS:
                seconds[way].append(timed(folder, way, budget))
            line = ", ".join(
                f"{way.removeprefix('sentence-transformers')} {seconds[way][-1][0]:.2f} ({seconds[way][-1][1]:.2f})"
                for way in WAYS
            )
            print(f"run {repeat + 1}, load {os.getloadavg()[0]:.1f}: {line}", flush=True)
        rows = [row(way, count, seconds) | judged(folder, way, budget) for way in WAYS]
    show(rows)


def machine() -> str:
    import torch

    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    packages = ("torch", "sentence-transformers", "transformers", "onnxruntime", "openvino")
    return (
        f"{names[0] if names else platform.processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, "
        f"{torch.backends.cpu.get_cpu_capability()}; " + ", ".join(f"{name} {installed(name)}" for name in packages)
    )


def installed(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def prepare(folder: Path, count: int) -> None:
    """folder/passages.json, in random order, and an embedder for each backend."""
    from tasks.models import write_embedder

    documents(ROOT / "data/demo/handbook", folder / "documents", folder / "files.jsonl", load(DocumentsParams, ROOT / "params"))
    chunks(folder / "documents", folder / "chunks", folder / "kept.jsonl", load(ChunksParams, ROOT / "params"))
    texts = [passage["embedded"] for passage in read_jsonl(folder / "chunks/passages.jsonl")]
    (folder / "passages.json").write_text(json.dumps(random.Random(0).sample(texts, min(count, len(texts)))))
    source = load(ModelsParams, ROOT / "params").embedder
    for backend in HERE:
        write_embedder(source.model_copy(update={"backend": backend}), folder / backend)


def timed(folder: Path, way: str, budget: int) -> tuple[float, float]:
    for _ in range(0 if os.environ.get("OMP_NUM_THREADS") == "1" else 60):
        if psutil.cpu_percent(interval=1) < 15:
            break
    command = [sys.executable, "-W", "ignore", __file__, "--one", str(folder), way, str(budget)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, "TQDM_DISABLE": "1"})
    wall, cpu = done.stdout.split()[-2:]
    return float(wall), float(cpu)


def one(folder: Path, way: str, budget: int) -> None:
    """In a process of its own: seconds for the passages, by the clock and of the processor."""
    texts = json.loads((folder / "passages.json").read_text())
    passages, _ = encoders(folder, way, budget)
    passages(texts[:WARM_UP])
    wall, cpu = time.monotonic(), time.process_time()
    passages(texts)
    print(time.monotonic() - wall, time.process_time() - cpu)


def encoders(folder: Path, way: str, budget: int) -> tuple[Encode, Encode]:
    """Passages and questions to vectors. sentence-transformers reads the same folder, with the same limit in tokens."""
    if way in OURS:
        from tasks.embedding import Embedder

        embedder = Embedder(folder / OURS[way])
        return lambda texts: embedder.passages(texts, budget), embedder.queries
    from sentence_transformers import SentenceTransformer

    precision, size = TUNED.get(way, ("float32", 32))
    model = SentenceTransformer(str(folder / "torch"), model_kwargs={"dtype": precision}, local_files_only=True)
    model.max_seq_length = load(ModelsParams, ROOT / "params").embedder.max_tokens

    def encode(texts: list[str]) -> Any:
        return model.encode(texts, batch_size=size)

    return encode, encode


def row(way: str, count: int, seconds: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    rate = count / np.median([wall for wall, _ in seconds[way]])
    return {"way": way, "rate": rate, "wall": ratio(way, seconds, 0), "cpu": ratio(way, seconds, 1)}


def ratio(way: str, seconds: dict[str, list[tuple[float, float]]], clock: int) -> str:
    """Median of the paired ratios, and its 95 % interval over the repeats."""
    ratios = np.array([each[clock] for each in seconds[DEFAULT]]) / np.array([each[clock] for each in seconds[way]])
    drawn = np.median(np.random.default_rng(0).choice(ratios, (10_000, len(ratios))), axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{np.median(ratios):.2f} ({low:.2f} to {high:.2f})"


def judged(folder: Path, way: str, budget: int) -> dict[str, float]:
    """On all passages and questions of the demo."""
    passages = read_jsonl(folder / "chunks/passages.jsonl")
    asked = [record for record in read_jsonl(ROOT / "data/demo/questions.jsonl") if record["document"]]
    encode, ask = encoders(folder, way, budget)
    texts = [passage["embedded"] for passage in passages]
    vectors = np.asarray(encode(texts), np.float32)
    order = np.argsort(-(np.asarray(ask([record["question"] for record in asked]), np.float32) @ vectors.T), axis=1)[:, :100]
    ranked = {
        record["id"]: [passages[place]["document"] for place in places] for record, places in zip(asked, order, strict=True)
    }
    scores = retrieval_scores(ranked, {record["id"]: record["document"] for record in asked})["ndcg@10"]
    alone = np.concatenate([np.asarray(encode([text]), np.float32) for text in texts[:100]])
    return {"ndcg": float(np.mean(list(scores.values()))), "batch": float(np.abs(alone - vectors[:100]).max())}


def show(rows: list[dict[str, Any]]) -> None:
    print("\n| | passages/s | times the default | by processor time | nDCG@10 | of the default's | largest difference by batch |")
    print("|---|---|---|---|---|---|---|")
    for each in rows:
        print(
            f"| {each['way']} | {each['rate']:.0f} | {each['wall']} | {each['cpu']} "
            f"| {each['ndcg']:.4f} | {100 * each['ndcg'] / rows[0]['ndcg']:.2f} % | {each['batch']:.0e} |"
        )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(Path(sys.argv[2]), sys.argv[3], int(sys.argv[4]))
    else:
        main()
