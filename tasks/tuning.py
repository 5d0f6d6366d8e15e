"""Which backend and how many tokens a batch suit this machine: measured on passages, and judged by what questions still find."""

import random
import statistics
import time
from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from tasks.backends import Vectors
from tasks.embedding import PROBES, Embedder
from tasks.records import Record
from tasks.scores import retrieval_scores

BUDGETS = (512, 1024, 4096, 16384)  # tokens a batch: a processor's cache holds the first, a GPU wants the last
ROUNDS = 3
FEWEST, MOST = 32, 2000  # passages a measurement
MOST_QUESTIONS = 200
LEAST_NDCG = 0.99  # of what torch finds
LEAST_COSINE = 0.98  # with torch's vectors, where no question says what is to be found
WORTH = 1.1  # times as fast as what is set: less is within the noise, and another backend embeds the whole corpus again


def measure(
    folders: Mapping[str, Path], budgets: Sequence[int], passages: list[Record], questions: list[Record], seconds: float
) -> list[Record]:
    """A record for each backend and budget: {"backend", "batch_tokens", "passages_per_second", "cosine", "ndcg@10"}.

    The cases take turns, so that whatever else the machine does meets them all alike; the median counts. `folders` holds `torch`,
    the measure of the others. `questions` name their page in "document"; "ndcg@10" is None where none is of a page in the sample.
    """
    embedders = {backend: Embedder(folder) for backend, folder in folders.items()}
    cases = list(product(embedders, sorted(budgets)))
    sample = whole_pages(passages, sample_size(embedders["torch"], passages, seconds / (ROUNDS * len(cases))))
    texts = [passage["embedded"] for passage in sample]
    rates: dict[tuple[str, int], list[float]] = {case: [] for case in cases}
    vectors: dict[str, Vectors] = {}
    for backend, budget in cases * ROUNDS:
        started = time.monotonic()
        vectors[backend] = embedders[backend].passages(texts, budget)
        rates[backend, budget].append(len(texts) / (time.monotonic() - started))
    judged = {
        backend: quality(embedders[backend], vectors[backend], vectors["torch"], sample, questions) for backend in embedders
    }
    return [
        {"backend": backend, "batch_tokens": budget, "passages_per_second": round(statistics.median(rates[backend, budget]), 1)}
        | judged[backend]
        for backend, budget in cases
    ]


def sample_size(embedder: Embedder, passages: list[Record], seconds: float) -> int:
    """What torch embeds in so many seconds; the first call is left out, it builds what later ones find."""
    texts = [passage["embedded"] for passage in random.Random(0).sample(passages, min(len(passages), 16))]
    embedder.passages(texts)
    started = time.monotonic()
    embedder.passages(texts)
    return int(np.clip(len(texts) / (time.monotonic() - started) * seconds, FEWEST, MOST))


def whole_pages(passages: list[Record], count: int) -> list[Record]:
    """At least so many passages: every one of some pages, so that the right one of a question is among them."""
    pages = sorted({passage["document"] for passage in passages})
    random.Random(0).shuffle(pages)
    by_page: dict[str, list[Record]] = {page: [] for page in pages}
    for passage in passages:
        by_page[passage["document"]].append(passage)
    sample: list[Record] = []
    for page in pages:
        if len(sample) >= count:
            break
        sample += by_page[page]
    return sample


def quality(
    embedder: Embedder, vectors: Vectors, exact: Vectors, sample: list[Record], questions: list[Record]
) -> dict[str, float | None]:
    cosine = float((vectors * exact).sum(axis=1).mean())
    return {"cosine": round(cosine, 4), "ndcg@10": ndcg(embedder, vectors, sample, questions)}


def ndcg(embedder: Embedder, vectors: Vectors, sample: list[Record], questions: list[Record]) -> float | None:
    """nDCG@10 of the pages, by the vectors alone."""
    pages = [passage["document"] for passage in sample]
    asked = [record for record in questions if record["document"] in set(pages)][:MOST_QUESTIONS]
    if not asked:
        return None
    order = np.argsort(-(embedder.queries([record["question"] for record in asked]) @ vectors.T), axis=1, kind="stable")
    ranked = {record["id"]: [pages[place] for place in places] for record, places in zip(asked, order, strict=True)}
    scores = retrieval_scores(ranked, {record["id"]: record["document"] for record in asked})["ndcg@10"]
    return round(sum(scores.values()) / len(scores), 4)


def propose(measured: list[Record], backend: str, batch_tokens: int) -> Record:
    """The fastest that finds as much as torch does; what is set, where that is hardly slower. `measured` holds what is set."""
    exact = next(record for record in measured if record["backend"] == "torch")
    now = next(record for record in measured if (record["backend"], record["batch_tokens"]) == (backend, batch_tokens))
    best = max((record for record in measured if as_good(record, exact)), key=lambda record: record["passages_per_second"])
    worth = best["passages_per_second"] >= WORTH * now["passages_per_second"] or not as_good(now, exact)
    return best if worth else now


def as_good(record: Record, exact: Record) -> bool:
    if exact["ndcg@10"] is None:
        return bool(record["cosine"] >= LEAST_COSINE)
    return bool(record["ndcg@10"] >= LEAST_NDCG * exact["ndcg@10"])


def stand_ins() -> list[Record]:
    """Texts of all lengths, where there is no corpus yet."""
    texts: list[Any] = [" ".join((PROBES * 20)[: 1 + number % 24]) + f" {number}" for number in range(MOST)]
    return [{"document": str(number), "embedded": text} for number, text in enumerate(texts)]
