"""Stage `retriever`: the embedder, fine-tuned on the training questions, where that is asked for and proven to find more.

It is judged on the validation questions, fused as it would be served, and goes on only if it is better there; the release gate
then judges the answers. No test question is read. What was tuned is in `out/encoder`, and `out/retriever.json` pins it.
"""

import shutil
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence, Set
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from tasks.backends import BATCH_TOKENS, Vectors
from tasks.calibrate import make_graph
from tasks.contrastive import Lesson, tune
from tasks.embedding import Embedder, VectorStore, embed_missing
from tasks.encoders import ENCODER, PINNED, pin
from tasks.errors import InputError
from tasks.exclusion import may_train
from tasks.lineage import LINEAGE, learnt, lineage
from tasks.params import IndexParams, QuestionsParams, RetrievalParams, RetrieverParams
from tasks.records import Record, read_jsonl, write_json
from tasks.retrieval import Legs, choose, ranked_items
from tasks.scores import answers, named, retrieval_scores
from tasks.search import Ranking, best, best_first, checked_question, ranked
from tasks.stage import fresh_folder, run_stage, say
from tasks.statistics import bounds
from tasks.tables import connect, full_text

TARGET = "ndcg@10"
PASSAGES_PER_COMMIT = 512  # what an interruption can lose


def retriever(
    embedder: Path, chunks: Path, train: Path, validation: Path, out: Path, metrics: Path, vectors: Path,
    params: RetrieverParams, settings: IndexParams, serving: RetrievalParams, dealt: QuestionsParams,
) -> None:  # fmt: skip
    """Write out/retriever.json {"sides"} and, where a tuned embedder is adopted, its identity and out/encoder."""
    fresh_folder(out)
    found: Record = {"sides": params.sides}
    if params.sides != "none":
        passages = read_jsonl(chunks / "passages.jsonl")
        found |= attempt(
            embedder, passages, with_page(train), with_page(validation), out / ENCODER, vectors, params, settings, serving,
            kept_out(passages, dealt.train_never),
        )  # fmt: skip
    write_json(metrics, found)
    write_json(out / PINNED, pin(out, params.sides))


def kept_out(passages: Sequence[Record], never: Sequence[str]) -> frozenset[int]:
    """The places of those that must not be learnt from, as a wrong answer either."""
    return frozenset(place for place, passage in enumerate(passages) if not may_train(passage["document"], never))


def with_page(path: Path) -> list[Record]:
    found = [record for record in read_jsonl(path) if record["document"]]
    if not found:
        raise InputError(
            f"no question in {path.name} names a page: nothing to tune the embedder by. Set sides: none, or add pairs"
        )
    return found


def attempt(
    embedder: Path, passages: list[Record], train: list[Record], validation: list[Record], encoder: Path, vectors: Path,
    params: RetrieverParams, settings: IndexParams, serving: RetrievalParams, never: frozenset[int],
) -> Record:  # fmt: skip
    """Tune, judge, and leave the tuned embedder at `encoder` where it is better. Returns the figures behind it."""
    plain = Embedder(embedder)
    matrix, embedded = embed(plain, passages, vectors)
    records, places = chosen_passages(plain, passages, matrix, train, params, never)
    lessons = [
        lesson(record, [passages[place]["embedded"] for place in row]) for record, row in zip(records, places, strict=True)
    ]
    check_apart(lineage(records), validation)
    say(f"retriever: {len(lessons)} questions to learn from, with {len(lessons[0].wrong)} wrong passages each")
    started = time.monotonic()
    fixed = matrix[places] if params.sides == "query" else None
    proof = tune(embedder, encoder, lessons, fixed, (plain.query_prompt, plain.passage_prompt), plain.max_tokens, params)
    seconds = round(time.monotonic() - started, 1)
    finish(plain, encoder, records, params.sides)
    tuned = Embedder(encoder)
    other, again = embed(tuned, passages, vectors) if params.sides == "both" else (matrix, 0)
    text = text_leg(passages, validation, settings, serving.candidates)
    before, after = (
        with_vectors(text, model, rows, passages, validation, serving.candidates)
        for model, rows in ((plain, matrix), (tuned, other))
    )
    verdict = judge(before, after, validation, params, serving)
    if not verdict["adopted"]:
        shutil.rmtree(encoder)
    say(told(verdict, params))
    work = {"seconds": seconds, "embedded": embedded, "embedded_again": again}
    return verdict | proof | work | {"lessons": len(lessons), "negatives": len(lessons[0].wrong)}


def embed(model: Embedder, passages: Sequence[Record], vectors: Path) -> tuple[Vectors, int]:
    """(passages, dimension), and how many had to be embedded; they are kept, so that the index finds them."""
    texts = [passage["embedded"] for passage in passages]
    with closing(VectorStore(vectors, model.digest)) as store:
        new = embed_missing(model, store, texts, BATCH_TOKENS, PASSAGES_PER_COMMIT)
        return store.get(texts), new


def chosen_passages(
    model: Embedder, passages: Sequence[Record], matrix: Vectors, train: Sequence[Record], params: RetrieverParams,
    never: frozenset[int],
) -> tuple[list[Record], list[list[int]]]:  # fmt: skip
    """The questions whose answer some passage holds, and for each the places of that passage and of the nearest wrong ones, as
    many for every question."""
    questions = model.queries([record["question"] for record in train])
    hints = model.queries([f"{record['question']} {record['answer']}" for record in train])
    by_page: dict[str, list[int]] = defaultdict(list)
    for place, passage in enumerate(passages):
        by_page[passage["document"]].append(place)
    records, places = [], []
    for record, question, hint in zip(train, questions, hints, strict=True):
        right = [place for place in by_page[record["document"]] if answers(passages[place], record)]
        if right:
            best = max(right, key=lambda place: float(matrix[place] @ hint))
            below = None if record["fact"] else params.max_nearness
            wrong = mined(matrix @ question, best, {*right, *never}, below, params.negatives)
            records.append(record | {"passages": [passages[place]["id"] for place in (best, *wrong)]})
            places.append([best, *wrong])
    if len(records) < 2:
        raise InputError("fewer than two training questions have a passage that answers them; add pairs, or set sides: none")
    fewest = min(map(len, places))
    return records, [row[:fewest] for row in places]


def mined(nearness: Vectors, best: int, right: Set[int], below: float | None, count: int) -> list[int]:
    """The nearest passages that do not hold the answer. Without a fact one that is nearly as near as the right one may hold it
    too (Moreira et al. 2024, NV-Retriever: negatives below 95 % of the positive's score): such a one comes last."""
    order = [int(place) for place in np.argsort(-nearness, kind="stable") if place not in right]
    doubtful = [place for place in order if below is not None and nearness[place] >= below * nearness[best]]
    return [*order[len(doubtful) :], *reversed(doubtful)][:count]


def lesson(record: Record, texts: Sequence[str]) -> Lesson:
    return Lesson(record["question"], texts[0], tuple(texts[1:]))


def check_apart(known: Record, validation: Sequence[Record]) -> None:
    """The splits are apart by page; files that were put there by hand need not be."""
    seen = learnt(known, validation)
    if seen:
        raise InputError(
            f"{len(seen)} validation questions ({seen[0]['id']}, ...) or others about their pages stand in the training split; "
            "they cannot judge the tuned embedder. Deal them anew: dvc repro --force questions"
        )


def finish(plain: Embedder, encoder: Path, records: Sequence[Record], sides: str) -> None:
    """What an embedder's folder holds beside its weights: who it is, what it learnt from, and what its backend needs."""
    write_json(encoder / "tandem.json", plain.source | {"tuned": {"sides": sides, "of": plain.digest}})
    write_json(encoder / LINEAGE, lineage(records))
    make_graph(encoder, plain.backend)


def text_leg(
    passages: Sequence[Record], asked: Sequence[Record], settings: IndexParams, candidates: int
) -> dict[str, Ranking]:  # fmt: skip
    """Question -> its ranking by full text, as an index of these passages gives it, from a table that goes again."""
    with tempfile.TemporaryDirectory(prefix="tandem-retriever-") as scratch:
        table = connect(scratch).create_table("text", [{key: passage[key] for key in ("id", "embedded")} for passage in passages])
        table.create_index("embedded", config=full_text(settings))

        def found(question: str, limit: int) -> list[Record]:
            query = table.search(question, query_type="fts", fts_columns="embedded").limit(limit)
            return list(query.select(["id", "_score"]).to_list())

        rows = {each["id"]: best(partial(found, checked_question(each["question"])), "_score", 1.0, candidates) for each in asked}
    return {question: ranked(some, "_score", 1.0) for question, some in rows.items()}


def with_vectors(
    text: Mapping[str, Ranking], model: Embedder, matrix: Vectors, passages: Sequence[Record], asked: Sequence[Record],
    candidates: int,
) -> dict[str, Legs]:  # fmt: skip
    """Both legs of each question, the vectors' by the exact scan."""
    by_id = {passage["id"]: passage for passage in passages}
    found: dict[str, Legs] = {}
    for record, vector in zip(asked, model.queries([record["question"] for record in asked]), strict=True):
        cosines = matrix @ vector
        nearest = np.argsort(-cosines, kind="stable")[:candidates]
        vectors = best_first({passages[place]["id"]: float(cosines[place]) - 1 for place in nearest})
        both = {key: by_id[key] for key, _ in (*text[record["id"]], *vectors)}
        found[record["id"]] = text[record["id"]], vectors, both
    return found


def judge(
    plain: Mapping[str, Legs],
    tuned: Mapping[str, Legs],
    asked: Sequence[Record],
    params: RetrieverParams,
    serving: RetrievalParams,
) -> dict[str, Any]:
    """Each as the stage `retrieval` would serve it, on the same questions, paired, by page. "low" has to lie above 0."""
    records = {record["id"]: record for record in asked}
    pages = {question: record["document"] for question, record in records.items()}
    before, after = served(plain, records, serving), served(tuned, records, serving)
    order = sorted(pages)
    gain = np.array([after[TARGET][question] - before[TARGET][question] for question in order])
    found = bounds(gain, [pages[question] for question in order], 1 - params.confidence, params.resamples, params.seed, span=0)
    low, high = (None if np.isinf(bound) else round(float(bound), 4) for bound in (found.low[0], found.high[0]))
    return {
        "adopted": bool(found.low[0] > 0),
        "questions": len(order),
        "pages": len(set(pages.values())),
        "plain": {name: mean(values) for name, values in before.items()},
        "tuned": {name: mean(values) for name, values in after.items()},
        "difference": {"mean": round(float(found.difference[0]), 4), "low": low, "high": high},
        "vectors_alone": {"plain": nearest_alone(plain, records), "tuned": nearest_alone(tuned, records)},
    }


def served(legs: Mapping[str, Legs], asked: Mapping[str, Record], serving: RetrievalParams) -> dict[str, dict[str, float]]:
    """Scores by question, with the leg or fusion that would be chosen."""
    return scored(legs, asked, choose(legs, asked, serving)[0])


def nearest_alone(legs: Mapping[str, Legs], asked: Mapping[str, Record]) -> float:
    return mean(scored(legs, asked, {"fusion": "none", "text_weight": 0.0})[TARGET])


def scored(
    legs: Mapping[str, Legs], asked: Mapping[str, Record], choice: Mapping[str, Any]
) -> dict[str, dict[str, float]]:  # fmt: skip
    items = {question: named(legs[question][2], record) for question, record in asked.items()}
    return retrieval_scores(ranked_items(legs, items, choice), {question: asked[question]["document"] for question in asked})


def mean(values: Mapping[str, float]) -> float:
    return round(sum(values.values()) / len(values), 4)


def told(verdict: Mapping[str, Any], params: RetrieverParams) -> str:
    before, after, gain = verdict["plain"][TARGET], verdict["tuned"][TARGET], verdict["difference"]
    figures = f"nDCG@10 {before:.3f} -> {after:.3f} on {verdict['questions']} validation questions"
    if verdict["adopted"]:
        return f"retriever: the tuned embedder is adopted, {figures}"
    return (
        f"retriever: the plain embedder goes on, {figures}; the gain of {gain['mean']:+.3f} (at least {gain['low']}) is not "
        f"above 0 with confidence {params.confidence:g}"
    )


if __name__ == "__main__":
    run_stage(retriever)
