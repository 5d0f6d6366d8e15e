"""Retrieval as it is served: a full-text leg, a vector leg, their fusion, and a reranker where one is served.

A fusion is a convex combination of scores that were made comparable (Bruch, Gai and Ingber, "An Analysis of Fusion Functions for
Hybrid Retrieval", TOIS 2023), by their `ratio` to the leg's best or by `minmax`, or the sum of reciprocal ranks, `rrf` (Cormack,
Clarke and Buettcher, SIGIR 2009), which needs no weight but throws away how sure a leg is, and loses to one leg on some corpora.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.backends import Vectors
from tasks.embedding import Embedder, same_fingerprint
from tasks.encoders import pinned_query_encoder, query_encoder
from tasks.errors import InputError, IntegrityError
from tasks.nearest import nearest
from tasks.records import Record, read_json
from tasks.reranking import Reranker, adopted, check_reranker, pinned, reordered, sigmoid
from tasks.tables import check_store, checkout, connect, open_table, tags
from tasks.texts import as_asked

Ranking = list[tuple[str, float]]  # (passage id, score), best first
FIELDS = ["id", "document", "heading", "text"]
MAX_QUESTION_CHARACTERS = 8000
RRF_K = 60  # Cormack et al. 2009: found in a pilot, and "not critical"; it is LanceDB's and Elasticsearch's default too
MOST_FETCHED = 32  # times the candidates: a corpus of equal passages is not read whole to break its ties


class Index:
    """One version of the table, the one that the manifest names, read-only, with the embedder that it expects of questions: that
    of its passages, or the manifest's "query_encoder", tuned from it; and with the manifest's "reranker"."""

    def __init__(self, store: str, manifest: Mapping[str, Any], embedder: Embedder, reranker: Reranker | None = None) -> None:
        check_store(store)
        check_query_encoder(manifest, embedder.identity())
        check_reranker(manifest.get("reranker"), reranker)
        self.embedder, self.reranker = embedder, reranker
        self.dimension = int(manifest["embedder"]["dimension"])
        self.table = open_version(store, manifest)
        self.embedded: dict[str, Vectors] = {}
        self.shown: Any = None  # a condition on the rows; None: all of them

    def hide(self, covers: Callable[[str], bool]) -> None:
        """From now on no search finds a passage of a document that `covers` says yes to."""
        from lancedb.expr import col, lit

        pages = self.table.search().select(["document"]).limit(self.table.count_rows() or 1).to_arrow()["document"].unique()
        hidden = [page for page in pages.to_pylist() if covers(page)]
        self.shown = col("document").isin([lit(page) for page in hidden]).eq(lit(False)) if hidden else None

    def _among_shown(self, search: Any) -> Any:
        return search if self.shown is None else search.where(self.shown)

    def expect(self, questions: Sequence[str]) -> None:
        """Embed many questions in batches ahead of their searches: several times faster than one at a time."""
        cleaned = [checked_question(question) for question in questions]
        self.embedded |= zip(cleaned, self.embedder.queries(cleaned), strict=True)

    def forget(self, question: str) -> None:
        """So that its next search takes as long as a person would wait for it."""
        self.embedded.pop(checked_question(question), None)
        if self.reranker is not None:
            self.reranker.afresh.add(checked_question(question))

    def passages(self) -> Iterator[Record]:
        """All of them, a batch at a time: a large table is not held in memory."""
        rows = self._among_shown(self.table.search()).select(["document", "heading", "text"])
        rows = rows.limit(self.table.count_rows() or 1)
        for batch in rows.to_batches():
            yield from batch.to_pylist()

    def legs(self, question: str, candidates: int) -> tuple[Ranking, Ranking, dict[str, Record]]:
        """The text ranking, the vector ranking, and the passages that occur in them by id."""
        question = checked_question(question)
        vector = self.embedded[question] if question in self.embedded else self.embedder.queries([question])[0]
        check_query(vector, self.dimension)

        def by_text(limit: int) -> list[Record]:
            found = self._among_shown(self.table.search(question, query_type="fts", fts_columns="embedded"))
            return list(found.limit(limit).select([*FIELDS, "_score"]).to_list())

        def by_vector(limit: int) -> list[Record]:
            return list(self._among_shown(nearest(self.table, vector)).limit(limit).select([*FIELDS, "_distance"]).to_list())

        text, near = best(by_text, "_score", 1.0, candidates), best(by_vector, "_distance", -1.0, candidates)
        passages = {row["id"]: {field: row[field] for field in FIELDS} for row in [*text, *near]}
        return ranked(text, "_score", 1.0), ranked(near, "_distance", -1.0), passages

    def search(self, question: str, settings: Mapping[str, Any]) -> list[Record]:
        """The k best passages, best first, each with its score."""
        text, vector, passages = self.legs(question, settings["candidates"])
        ranking = fused(text, vector, settings)
        if depth := settings.get("rerank"):  # no less than k
            first = ranking[:depth]
            logits = self.read(question, [passages[key] for key, _ in first])
            ranking = [(key, sigmoid(logit)) for key, logit in reordered(first, logits, depth)]
        return [passages[key] | {"score": round(score, 6)} for key, score in ranking[: settings["k"]]]

    def read(self, question: str, passages: Sequence[Record]) -> dict[str, float]:
        """Passage id -> what the reranker says of it."""
        if self.reranker is None:
            raise IntegrityError("these settings of retrieval ask for a reranker, and none is here; run: dvc repro retrieval")
        return self.reranker.of(checked_question(question), passages)


def open_index(
    store: str, index: Path, embedder: Path, retriever: Path, retrieval: Path | None = None, kept: Path | None = None
) -> Index:
    """As the pipeline has it: the outputs of the stages `index`, `models` (its embedder), `retriever` and, once a reranker may
    have been adopted, `retrieval`; and where that finds the scores that it gave before."""
    manifest = read_json(index / "manifest.json") | {"query_encoder": pinned_query_encoder(retriever)}
    reranker = None
    if retrieval is not None:
        manifest["reranker"], reranker = pinned(retrieval), adopted(retrieval, kept)
    return Index(store, manifest, Embedder(query_encoder(embedder, retriever)), reranker)


def widened(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Ten passages at least, whatever number the prompt holds: retrieval is judged on them, an example may need substitutes."""
    return {**settings, "k": max(10, settings["k"])}


def open_version(store: str, manifest: Mapping[str, Any]) -> Any:
    """The table at the manifest's tag. Raises IntegrityError where it is gone or holds other rows."""
    table = open_table(connect(store), manifest["table"])
    if table is None:
        raise IntegrityError(f"the index at {store} has no table {manifest['table']}; build it: dvc repro --force index")
    if manifest["tag"] not in tags(table):
        raise IntegrityError(
            f"table {manifest['table']} has no version tagged {manifest['tag']}; build it: dvc repro --force index"
        )
    checkout(table, manifest["tag"])
    if table.count_rows() != manifest["rows"]:
        raise IntegrityError(
            f"{manifest['tag']} holds {table.count_rows()} rows, the manifest says {manifest['rows']}; run: tandem doctor"
        )
    return table


def check_query_encoder(manifest: Mapping[str, Any], actual: Mapping[str, Any]) -> None:
    """Raises IntegrityError where questions would be embedded by another model than the vectors of the passages expect."""
    tuned = manifest.get("query_encoder")
    if tuned is None:
        check_embedder(manifest["embedder"], actual)
        return
    if tuned["tuned"]["of"] != manifest["embedder"]["digest"]:
        raise IntegrityError(
            f"the query encoder was tuned for passages embedded by {tuned['tuned']['of'][:12]}, the index holds those of "
            f"{manifest['embedder']['digest'][:12]}; tune it anew: dvc repro retriever"
        )
    check_embedder(tuned, actual, "questions are embedded by", "run the stage anew: dvc repro retriever")


def check_embedder(
    expected: Mapping[str, Any],
    actual: Mapping[str, Any],
    rule: str = "the index was built with",
    mend: str = "rebuild the index: dvc repro index",
) -> None:
    """A query embedded by another model of the same dimension would give silent nonsense."""
    expected, actual = {"backend": "torch", **expected}, {"backend": "torch", **actual}  # a release from before has no backend
    for key in ("backend", "digest", "dimension", "pooling", "query_prompt", "passage_prompt"):
        if expected[key] != actual[key]:
            raise IntegrityError(
                f"{rule} {expected['id'] or expected['source']} ({key} {expected[key]}), the embedder here has "
                f"{actual[key]}; {mend}"
            )
    if not same_fingerprint(expected["fingerprint"], actual["fingerprint"]):
        raise IntegrityError(f"{rule} an embedder that gives other vectors than the one here (fingerprint differs); {mend}")


def checked_question(question: str) -> str:
    question = as_asked(question)
    if not question:
        raise InputError('the question is empty; write it in quotes: tandem ask "How many days of leave do I get?"')
    if len(question) > MAX_QUESTION_CHARACTERS:
        raise InputError(
            f"the question has {len(question)} characters; the limit is {MAX_QUESTION_CHARACTERS}. Ask for one thing"
        )
    return question


def check_query(vector: Vectors, dimension: int) -> None:
    """LanceDB says of another dimension that there is no vector column, and of NaN nothing: it finds no passage."""
    if vector.shape != (dimension,) or not np.isfinite(vector).all():
        what = "NaN" if vector.shape == (dimension,) else f"a vector of shape {vector.shape}"
        raise IntegrityError(
            f"the embedder made {what} of the question, the index holds {dimension} numbers; use another embedder"
        )


def best(fetch: Callable[[int], list[Record]], column: str, sign: float, count: int) -> list[Record]:
    """The `count` best rows, ties by id. LanceDB cuts among equal scores by the order of the rows, which is history: fetch on
    until the cut does not fall among those that it left out."""
    limit = 2 * count
    while True:
        rows = sorted(fetch(limit), key=lambda row: (-sign * row[column], row["id"]))
        if len(rows) < limit or rows[count - 1][column] != rows[-1][column] or limit >= MOST_FETCHED * count:
            return rows[:count]
        limit *= 4


def ranked(rows: Sequence[Mapping[str, Any]], column: str, sign: float) -> Ranking:
    """Ties by id, so that two builds of the same rows rank alike."""
    return best_first({row["id"]: sign * row[column] for row in rows})


def fused(text: Ranking, vector: Ranking, settings: Mapping[str, Any]) -> Ranking:
    """As the settings say. A release from before there was a choice names no fusion: it was `minmax`."""
    fusion = settings.get("fusion", "minmax")
    return reciprocal_ranks(text, vector) if fusion == "rrf" else fuse(text, vector, settings["text_weight"], fusion)


def reciprocal_ranks(*legs: Ranking) -> Ranking:
    """The sum of 1 / (60 + place) over the legs that found the passage."""
    scores: dict[str, float] = {}
    for leg in legs:
        for place, (key, _) in enumerate(leg, start=1):
            scores[key] = scores.get(key, 0.0) + 1 / (RRF_K + place)
    return best_first(scores)


def fuse(text: Ranking, vector: Ranking, text_weight: float, fusion: str) -> Ranking:
    """Weight 0 is the vector leg alone, 1 the text leg alone. A passage that one leg did not find scores 0 there."""
    if text_weight == 0:
        return vector
    if text_weight == 1:
        return text or vector  # no word of the question occurs in the corpus: better near than nothing
    if fusion == "ratio":  # a vector leg's score is minus the cosine distance: 0 there would be the best
        left, right = ratios(text), ratios([(key, 1 + score) for key, score in vector])
    else:
        left, right = normalised(text), normalised(vector)
    return best_first({key: text_weight * left.get(key, 0.0) + (1 - text_weight) * right.get(key, 0.0) for key in left | right})


def best_first(scores: Mapping[str, float]) -> Ranking:
    return sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))


def ratios(ranking: Ranking) -> dict[str, float]:
    """Scores as shares of the best: BM25 and cosine mean nothing at 0, so, unlike with `normalised`, it does not matter how many
    candidates there are, and a leg to which all its passages look alike says so."""
    top = max((score for _, score in ranking), default=0.0)
    return {key: max(score, 0.0) / top if top > 0 else 0.0 for key, score in ranking}


def normalised(ranking: Ranking) -> dict[str, float]:
    """Scores to [0, 1] within one question: a leg's own scale must not decide its weight."""
    if not ranking:
        return {}
    scores = [score for _, score in ranking]
    low, span = min(scores), max(scores) - min(scores)
    return {key: (score - low) / span if span else 1.0 for key, score in ranking}
