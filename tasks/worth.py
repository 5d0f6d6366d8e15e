"""What answers are worth and what they cost, as columns of numbers that the statistics take."""

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.params import uses_adapter, uses_passages
from tasks.params_verdict import CostWeights
from tasks.reports import Answer
from tasks.scores import primary


def primaries(answers: Sequence[Answer], weights: Mapping[str, float]) -> list[float]:
    return [primary(answer.scores, weights) for answer in answers]


def mean_of(answers: Sequence[Answer], name: str, answerable: bool) -> float | None:
    """None where there is no such question."""
    values = [answer.scores[name] or 0.0 for answer in answers if (answer.document is not None) == answerable]
    return float(np.mean(values)) if values else None


def costs(answers: Sequence[Answer], weights: CostWeights) -> list[float]:
    return [cost(answer.arm, answer.prompt_tokens, answer.completion_tokens, weights) for answer in answers]


def cost(arm: str, prompt_tokens: float, completion_tokens: float, weights: CostWeights) -> float:
    """Token equivalents of one answer: measured tokens, and surcharges for the arms that search or carry an adapter."""
    tokens = prompt_tokens * weights.prompt_token + completion_tokens * weights.completion_token
    return tokens + weights.retrieval * uses_passages(arm) + weights.adapter * uses_adapter(arm)
