"""A cross-encoder: it reads question and passage together, and puts the best that the legs found into a new order (Nogueira and
Cho, "Passage Re-ranking with BERT", 2019). Some dozen times as dear as the legs themselves, so it ships only where it is proven.
"""

import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tasks.embedding import VectorStore
from tasks.errors import InputError, IntegrityError
from tasks.pair_backends import open_pair_backend
from tasks.records import Record, folder_digest, read_json

RERANKER, PINNED = "reranker", "reranker.json"  # in the output of the stage `retrieval`, where it was adopted
PROBES = (
    ("How many days of paid leave do I get?", "Leave\nEvery baker has 29 days of paid leave a year."),
    ("How many days of paid leave do I get?", "Vans\nThe van leaves at 5:45."),
    ("ERR_4012 rate limit", "Errors\nERR_4012 means that the rate limit was reached."),
)
FINGERPRINT_TOLERANCE = 0.05  # of a logit, which lies between some -12 and 12


class Reranker:
    """In a folder, as the stage `models` left it; its weights are opened when they are first asked for.

    kept: scores known already, so that a pipeline reads no pair twice. Who serves has none.
    """

    def __init__(self, folder: Path, kept: Path | None = None) -> None:
        self.folder = folder
        self.source: Record = read_json(folder / "tandem.json")
        self.store = None if kept is None else VectorStore(kept, self.digest)
        self.afresh: set[str] = set()  # questions whose pairs are read again, because the time that it takes is measured

    @cached_property
    def digest(self) -> str:
        return folder_digest(self.folder)

    @cached_property
    def backend(self) -> Any:
        return open_pair_backend(self.source["backend"], self.folder, self.source["max_tokens"])

    def of(self, question: str, passages: Sequence[Mapping[str, Any]]) -> dict[str, float]:
        """Passage id -> logit. Title and headings stand before the text, as both legs see it."""
        logits = self.logits([(question, as_read(passage)) for passage in passages])
        return {passage["id"]: logit for passage, logit in zip(passages, logits, strict=True)}

    def logits(self, pairs: Sequence[tuple[str, str]]) -> list[float]:
        """Of (question, passage): how well the one answers the other; any number."""
        if self.store is None or any(question in self.afresh for question, _ in pairs):
            return [float(logit) for logit in self.read(pairs)]
        names = ["\n\n".join(pair) for pair in pairs]
        named = dict(zip(names, pairs, strict=True))
        missing = self.store.missing(names)
        if missing:
            self.store.put(missing, beside_one(self.read([named[name] for name in missing])))
        return [float(row[0]) for row in self.store.get(names)]

    def read(self, pairs: Sequence[tuple[str, str]]) -> Any:
        """(pairs,). Raises InputError where the model gives none: an order by NaN is any order."""
        logits = self.backend.logits(pairs)
        if not np.isfinite(logits).all():
            question, passage = pairs[int(np.flatnonzero(~np.isfinite(logits))[0])]
            raise InputError(
                f"the reranker gave no number for {question[:80]!r} and {passage[:80]!r}; use another one, or source: none in "
                "params/models.yaml"
            )
        return logits

    def identity(self) -> dict[str, Any]:
        """What a release pins."""
        source = {key: self.source[key] for key in ("source", "id", "revision", "max_tokens", "backend")}
        fingerprint = [round(float(logit), 2) for logit in self.read(PROBES)]
        return source | {"digest": self.digest, "fingerprint": fingerprint}


def beside_one(logits: Any) -> Any:
    """(n,) -> (n, 2): the store of vectors refuses one of length 0, which a logit may be."""
    return np.stack([logits, np.ones_like(logits)], axis=1).astype(np.float32)


def sigmoid(logit: float) -> float:
    """In [0, 1], as people are shown it; beyond 37 it is 1, so nothing is ordered by it."""
    return 1 / (1 + math.exp(-logit)) if logit >= 0 else math.exp(logit) / (1 + math.exp(logit))


def as_read(passage: Mapping[str, Any]) -> str:
    return f"{passage['heading']}\n{passage['text']}"


def reordered(ranking: Sequence[tuple[str, float]], logits: Mapping[str, float], depth: int) -> list[tuple[str, float]]:
    """The first `depth` by the reranker's logits. The others follow as they were; nobody is shown so many, and their scores mean
    something else."""
    first = [(key, logits[key]) for key, _ in ranking[:depth]]
    return [*sorted(first, key=lambda pair: (-pair[1], pair[0])), *ranking[depth:]]


def reranker_of(models: Path, kept: Path | None) -> Reranker | None:
    """That of the stage `models`; None where params name none."""
    return None if read_json(models / "tandem.json")["source"] == "none" else Reranker(models, kept)


def adopted(retrieval: Path, kept: Path | None = None) -> Reranker | None:
    """That with which the stage `retrieval` chose to serve."""
    return Reranker(retrieval / RERANKER, kept) if (retrieval / RERANKER).exists() else None


def pinned(retrieval: Path) -> Record | None:
    """Its identity."""
    return dict(read_json(retrieval / PINNED)) if (retrieval / PINNED).exists() else None


def check_reranker(expected: Mapping[str, Any] | None, actual: Reranker | None) -> None:
    """Raises IntegrityError where another model would order the passages than was measured."""
    if expected is None:
        return
    mend = "run: tandem doctor, or in the pipeline: dvc repro --force retrieval"
    if actual is None:
        raise IntegrityError(f"the passages of this release are ordered by a reranker, and none is here; {mend}")
    found = actual.identity()
    for key in ("digest", "backend", "max_tokens"):
        if expected[key] != found[key]:
            raise IntegrityError(f"the reranker here has {key} {found[key]}, the one that was measured {expected[key]}; {mend}")
    told, gives = expected["fingerprint"], found["fingerprint"]
    if len(told) != len(gives) or not np.allclose(told, gives, atol=FINGERPRINT_TOLERANCE):
        raise IntegrityError(f"the reranker here gives other scores than the one that was measured (fingerprint differs); {mend}")
