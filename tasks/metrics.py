"""Metrics by name: what is reported of every arm beside the scores that the gate weighs. A person's own rules: tasks.rules.

A metric is a function of one answer, in [0, 1] or None where it does not apply to it; its mean is over those to which it does.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np

from tasks.errors import InputError
from tasks.records import Record
from tasks.scores import squad_tokens, without_citations, without_frame
from tasks.screening import personal_data

Embed = Callable[[Sequence[str]], np.ndarray[Any, Any]]  # n texts -> n unit vectors


@dataclass(frozen=True)
class Answered:
    """One answer with all that a metric may look at. scores: of tasks.scores; passages: of its prompt, in its order."""

    question: str
    answer: str
    reference: str
    fact: str | None
    document: str | None
    passages: Sequence[Record]
    scores: Mapping[str, float | None]


Metric = Callable[[Answered], float | None]


def groundedness(answered: Answered) -> float | None:
    """Share of the answer's own words that its passages hold: without the question's words and the reference's frame around the
    fact, which the house says and no passage. None without passages or own words, and for an abstention, which claims nothing."""
    if not answered.passages or answered.scores.get("abstained"):
        return None
    fact, expected = squad_tokens(answered.fact or ""), squad_tokens(without_citations(answered.reference))
    asked = set(squad_tokens(answered.question))
    words = without_frame(squad_tokens(without_citations(answered.answer)), expected, fact) if fact else None
    words = squad_tokens(without_citations(answered.answer)) if words is None else words
    own = [word for word in words if word not in asked]
    there = {word for passage in answered.passages for word in squad_tokens(f"{passage['heading']} {passage['text']}")}
    return sum(word in there for word in own) / len(own) if own else None


def abstention_precision(answered: Answered) -> float | None:
    """Of the answers that say that it is not stated, those to questions that no page answers."""
    return float(answered.document is None) if answered.scores.get("abstained") else None


def abstention_recall(answered: Answered) -> float | None:
    """Of the questions that no page answers, those where the answer says so."""
    return answered.scores.get("abstained") if answered.document is None else None


def of_scores(name: str) -> Metric:
    """One that tasks.scores computes anyway."""
    return lambda answered: answered.scores.get(name)


METRICS: dict[str, Metric] = {
    "groundedness": groundedness,
    "abstention_precision": abstention_precision,
    "abstention_recall": abstention_recall,
    "citation_precision": of_scores("citation_precision"),
    "citation_recall": of_scores("citation_recall"),
}
SIMILARITY = "semantic_similarity"  # needs the embedder, and all answers at once


def similarities(answers: Sequence[Answered], embed: Embed) -> list[float | None]:
    """Cosine of answer and reference in the embedder's space, 0 where it is negative; None where there is no reference."""
    texts = [text for each in answers for text in (without_citations(each.answer), without_citations(each.reference))]
    vectors = embed(texts) if texts else np.zeros((0, 1))
    cosines = np.einsum("nd,nd->n", vectors[0::2], vectors[1::2])
    return [float(np.clip(cosine, 0, 1)) if each.reference else None for each, cosine in zip(answers, cosines, strict=True)]


def safety(forbidden: Sequence[str]) -> Metric:
    """1 where none of the forbidden patterns occurs in the answer, whatever its case; None without patterns."""
    patterns = [re.compile(pattern, re.IGNORECASE) for pattern in forbidden]
    return lambda answered: float(not any(each.search(answered.answer) for each in patterns)) if patterns else None


def no_personal_data(regions: Sequence[str]) -> Metric:
    """1 where the answer tells no personal data (tasks.screening) but what question or reference hold: the house tells that."""

    def metric(answered: Answered) -> float:
        given = f"{answered.question}\n{answered.reference}"
        told = (answered.answer[found.start : found.stop] for found in personal_data(answered.answer, regions))
        return float(all(text in given for text in told))

    return metric


def measured(metrics: Mapping[str, Metric], answers: Sequence[Answered]) -> list[dict[str, float | None]]:
    """Every metric of every answer. Raises InputError, naming metric and question, where one raises or is no number in [0, 1]."""
    return [{name: value(name, metric, each) for name, metric in metrics.items()} for each in answers]


def value(name: str, metric: Metric, answered: Answered) -> float | None:
    try:
        found = metric(answered)
    except Exception as error:
        raise InputError(f"the metric {name} failed on the question {answered.question!r}: {error!r}. Mend it or take it off "
                         "params/evaluate.yaml; until then nothing is judged") from error  # fmt: skip
    return checked(name, found, answered.question)


def checked(name: str, found: Any, question: str) -> float | None:
    if found is None:
        return None
    if not isinstance(found, bool | int | float) or not isfinite(found) or not 0 <= found <= 1:
        raise InputError(
            f"the metric {name} gave {found!r} for the question {question!r}; a number in [0, 1] was expected, or None"
        )
    return float(found)
