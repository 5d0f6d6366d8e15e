"""Stage `retrieval`: fusion, its weight, whether a reranker orders what it finds, and the number of passages, chosen on the
validation questions, with the curve behind it.

What counts is the first passage that holds the answer: states the question's fact, or is of its page where no fact is known. On
short pages nearly every setting finds the right page, and what the model then reads decides.
"""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.errors import InputError
from tasks.lean_imports import import_arrow_without_pandas
from tasks.params import RetrievalParams
from tasks.plots import retrieval_curve
from tasks.records import Record, read_jsonl, write_json
from tasks.reranking import PINNED, RERANKER, Reranker, reordered, reranker_of
from tasks.scores import named, retrieval_scores
from tasks.search import Ranking, checked_question, fused, open_index
from tasks.stage import fresh_folder, run_stage, say
from tasks.statistics import bounds

TARGET = "ndcg@10"
Legs = tuple[Ranking, Ranking, dict[str, Record]]
Scores = Mapping[str, Mapping[str, float]]  # question -> passage id -> what the reranker says


def retrieval(
    index: Path, embedder: Path, retriever: Path, reranker: Path, questions: Path, out: Path, metrics: Path, plots: Path,
    store: str, vectors: Path, params: RetrievalParams,
) -> None:  # fmt: skip
    """Write out/settings.json {"fusion", "text_weight", "k", "candidates", "mode"}; the curve goes to `metrics`. Where the
    reranker is adopted, the settings have "rerank" too, and it lies in out/reranker."""
    searcher = open_index(store, index, embedder, retriever)
    asked = [record for record in read_jsonl(questions / "validation.jsonl") if record["document"]]
    if not asked:
        raise InputError("no validation question names a page; retrieval cannot be chosen. Add pairs with a document")
    searcher.expect([record["question"] for record in asked])
    legs = {record["id"]: searcher.legs(record["question"], params.candidates) for record in asked}
    reads = reranker_of(reranker, vectors)
    scores = None if reads is None else read_all(reads, asked, legs, params)
    settings, points = choose(legs, {record["id"]: record for record in asked}, params, scores)
    curves = {"curve": [point for point in points if "rerank" not in point]}
    if reads is not None:
        curves["reranked"] = [point for point in points if "rerank" in point]
    fresh_folder(out)
    shown, chosen = picture(curves["reranked" if "rerank" in settings else "curve"], settings)
    retrieval_curve(shown, fresh_folder(plots) / "retrieval.png", chosen)
    write_json(metrics, {"questions": len(asked), "settings": settings, **curves})
    if reads is not None and "rerank" in settings:
        adopt(reads, out)
    write_json(out / "settings.json", settings)
    tried = "" if reads is None else f", reranker {'adopted' if 'rerank' in settings else 'not adopted'}"
    weight = f"{settings['fusion']}, text weight {settings['text_weight']}"
    say(f"retrieval: {settings['mode']} ({weight}), {settings['k']} passages{tried}")


def adopt(reranker: Reranker, out: Path) -> None:
    """Here, and not as an input of what comes after, which would be stale whenever a reranker that lost is exchanged."""
    shutil.copytree(reranker.folder, out / RERANKER, copy_function=shutil.copyfile)
    write_json(out / PINNED, reranker.identity())


def read_all(reranker: Reranker, asked: Sequence[Record], legs: Mapping[str, Legs], params: RetrievalParams) -> Scores:
    """Question -> passage id -> logit, of every passage that any choice would put before the reranker."""
    found: dict[str, dict[str, float]] = {}
    for record in asked:
        text, vector, passages = legs[record["id"]]
        tops = [fused(text, vector, choice)[: params.rerank] for choice in candidates(params)]
        keys = sorted({key for top in tops for key, _ in top})
        found[record["id"]] = reranker.of(checked_question(record["question"]), [passages[key] for key in keys])
    say(f"retrieval: the reranker has scored {sum(map(len, found.values()))} pairs of {len(found)} questions")
    return found


def choose(
    legs: Mapping[str, Legs], asked: Mapping[str, Record], params: RetrievalParams, scores: Scores | None = None
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The better leg alone, unless the best fusion is better than it beyond doubt; that, unless the best with a reranker (whose
    `scores` are given) is better beyond doubt again; then the smallest k that loses nothing."""
    plain = candidates(params)
    read = [] if scores is None else [choice | {"rerank": params.rerank} for choice in plain]
    pages = {question: record["document"] for question, record in asked.items()}
    items = {question: named(legs[question][2], record) for question, record in asked.items()}
    found = [retrieval_scores(ranked_items(legs, items, choice, scores), pages) for choice in [*plain, *read]]
    curve = [
        choice | {name: mean(values) for name, values in each.items()}
        for choice, each in zip([*plain, *read], found, strict=True)
    ]

    def best(places: Iterable[int]) -> int:
        return max(places, key=lambda place: curve[place][TARGET])

    def surer(challenger: int, holder: int) -> int:
        better = curve[challenger][TARGET] > curve[holder][TARGET]
        sure = better and clearly_better(found[challenger][TARGET], found[holder][TARGET], pages, params)
        return challenger if sure else holder

    leg = best(place for place, choice in enumerate(plain) if choice["fusion"] == "none")
    place = surer(best(range(len(plain))), leg)
    place = surer(best(range(len(plain), len(curve))), place) if read else place
    chosen = [*plain, *read][place]
    ranked = ranked_items(legs, items, chosen, scores)
    k = smallest_k({question: [item == pages[question] for item in ranked[question]] for question in ranked}, params)
    mode = {0.0: "vector", 1.0: "text"}.get(chosen["text_weight"], "hybrid")
    return chosen | {"k": k, "candidates": params.candidates, "mode": mode}, curve


def candidates(params: RetrievalParams) -> list[dict[str, Any]]:
    """Both legs are always among them. Reciprocal ranks weigh both alike."""
    choices: list[dict[str, Any]] = [{"fusion": "none", "text_weight": weight} for weight in (0.0, 1.0)]
    for fusion in params.fusion:
        weights = [0.5] if fusion == "rrf" else sorted({*params.text_weights} - {0.0, 1.0})
        choices += [{"fusion": fusion, "text_weight": weight} for weight in weights]
    return choices


def picture(curve: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> tuple[list[dict[str, Any]], float | None]:
    """The points over the weight, of the fusion that is served or else the first that has weights; the weight to mark."""
    weighted = [point["fusion"] for point in curve if point["fusion"] not in ("none", "rrf")]
    shown = settings["fusion"] if settings["fusion"] in weighted else next(iter(weighted), "none")
    points = [{**point} for point in curve if point["fusion"] in ("none", shown)]
    for point in points:
        del point["fusion"]
        point.pop("rerank", None)
    return points, None if settings["fusion"] == "rrf" else settings["text_weight"]


def ranked_items(
    legs: Mapping[str, Legs], items: Mapping[str, Mapping[str, str]], choice: Mapping[str, Any], scores: Scores | None = None
) -> dict[str, list[str]]:
    """Question -> what each passage counts as, best passage first."""
    rankings = {question: fused(*legs[question][:2], choice) for question in items}
    if "rerank" in choice and scores is not None:
        rankings = {question: reordered(found, scores[question], choice["rerank"]) for question, found in rankings.items()}
    return {question: [items[question][key] for key, _ in found] for question, found in rankings.items()}


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
    import_arrow_without_pandas()
    run_stage(retrieval)
