"""Stage `retrieval`: fusion weight and number of passages, chosen on the validation questions, with the curve behind it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.embedding import Embedder
from tasks.errors import InputError
from tasks.params import RetrievalParams
from tasks.plots import retrieval_curve
from tasks.prompts import right_passage
from tasks.records import Record, read_json, read_jsonl, write_json
from tasks.scores import retrieval_scores
from tasks.search import Index, Ranking, fuse
from tasks.stage import fresh_folder, run_stage, say
from tasks.statistics import bounds

TARGET = "ndcg@10"
Legs = tuple[Ranking, Ranking, dict[str, Record]]


def retrieval(
    index: Path, embedder: Path, questions: Path, out: Path, metrics: Path, plots: Path, store: str, params: RetrievalParams
) -> None:
    """Write out/settings.json {"text_weight", "k", "candidates", "mode"}; the curve goes to `metrics`."""
    searcher = Index(store, read_json(index / "manifest.json"), Embedder(embedder))
    asked = [record for record in read_jsonl(questions / "validation.jsonl") if record["document"]]
    if not asked:
        raise InputError("no validation question names a page; retrieval cannot be chosen. Add pairs with a document")
    searcher.expect([record["question"] for record in asked])
    legs = {record["id"]: searcher.legs(record["question"], params.candidates) for record in asked}
    settings, curve = choose(legs, {record["id"]: record for record in asked}, params)
    fresh_folder(out)
    retrieval_curve(curve, fresh_folder(plots) / "retrieval.png", chosen=settings["text_weight"])
    write_json(metrics, {"questions": len(asked), "settings": settings, "curve": curve})
    write_json(out / "settings.json", settings)
    say(f"retrieval: {settings['mode']}, text weight {settings['text_weight']}, {settings['k']} passages")


def choose(
    legs: Mapping[str, Legs], asked: Mapping[str, Record], params: RetrievalParams
) -> tuple[dict[str, Any], list[dict[str, float]]]:
    """The better leg alone, unless the best fusion is better than it beyond doubt; then the smallest k that loses nothing."""
    weights = sorted({0.0, *params.text_weights, 1.0})
    relevant = {question: record["document"] for question, record in asked.items()}
    scored = {weight: retrieval_scores(ranked_pages(legs, weight), relevant) for weight in weights}
    curve = [{"text_weight": weight} | {name: mean(values) for name, values in scored[weight].items()} for weight in weights]
    leg = max((0.0, 1.0), key=lambda weight: mean(scored[weight][TARGET]))
    best = max(weights, key=lambda weight: mean(scored[weight][TARGET]))
    weight = best if best == leg or clearly_better(scored[best][TARGET], scored[leg][TARGET], relevant, params) else leg
    k = smallest_k(hits(legs, asked, weight), params)
    mode = {0.0: "vector", 1.0: "text"}.get(weight, "hybrid")
    return {"text_weight": weight, "k": k, "candidates": params.candidates, "mode": mode}, curve


def ranked_pages(legs: Mapping[str, Legs], weight: float) -> dict[str, list[str]]:
    """Question -> the page of each passage, best passage first."""
    return {
        question: [passages[key]["document"] for key, _ in fuse(text, vector, weight)]
        for question, (text, vector, passages) in legs.items()
    }


def hits(legs: Mapping[str, Legs], asked: Mapping[str, Record], weight: float) -> dict[str, list[bool]]:
    """Question -> whether each passage, best first, holds the answer: states its fact, or is of its page where none is known."""
    return {
        question: [answers(passages[key], asked[question]) for key, _ in fuse(text, vector, weight)]
        for question, (text, vector, passages) in legs.items()
    }


def answers(passage: Record, record: Record) -> bool:
    return right_passage([passage], record["document"], record.get("fact")) is not None


def clearly_better(
    challenger: Mapping[str, float], holder: Mapping[str, float], pages: Mapping[str, str], params: RetrievalParams
) -> bool:
    """A paired bootstrap over pages; the guard for unseen pages is off, because either choice is safe to serve."""
    order = sorted(pages)
    difference = np.array([challenger[question] - holder[question] for question in order])
    found = bounds(
        difference, [pages[question] for question in order], 1 - params.confidence, params.resamples, params.seed, span=0
    )
    return bool(found.low[0] > 0)


def smallest_k(found_at: Mapping[str, Sequence[bool]], params: RetrievalParams) -> int:
    """Each further passage costs tokens and distracts: take the fewest that still hold the answer nearly as often."""
    found = {k: mean({question: float(any(places[:k])) for question, places in found_at.items()}) for k in sorted(params.k)}
    enough = max(found.values()) - params.k_tolerance
    return min(k for k, share in found.items() if share >= enough)


def mean(values: Mapping[str, float]) -> float:
    return sum(values.values()) / len(values)


if __name__ == "__main__":
    run_stage(retrieval)
