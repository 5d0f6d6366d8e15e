"""How far a mean over questions can be trusted: bootstrap over source pages, simultaneous bounds, resolution. Numpy only.

Questions on one page stand or fall together, so the page is the unit that is drawn (clustered standard errors:
Miller 2024, arXiv 2411.00640; cluster bootstrap: Field and Welsh 2007). Shapes: N questions, G pages, K columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, inf, log
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

POWER = 0.8  # the chance of seeing a difference that is there; Cohen's convention
DRAWS_PER_BATCH = 4_000_000  # counts held at once, 32 MB: keeps memory flat whatever the number of pages


@dataclass(frozen=True)
class Pages:
    """Sums (G, K) and numbers of questions (G,) per page, in the order of the page names."""

    sums: Floats
    counts: Floats

    @property
    def mean(self) -> Floats:
        """(K,): over questions, so a page weighs as many as it has."""
        return np.asarray(self.sums.sum(axis=0) / self.counts.sum())


@dataclass(frozen=True)
class Interval:
    mean: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Bounds:
    """Of K mean differences: estimate, simultaneous lower and upper bounds, clustered standard errors, each (K,)."""

    difference: Floats
    low: Floats
    high: Floats
    standard_error: Floats
    critical: float


@dataclass(frozen=True)
class Resolution:
    """The smallest true difference that this test set shows with 80 % power, and the questions that the margin needs."""

    smallest_difference: float
    questions_needed: float


def by_page(values: Floats, pages: Sequence[str]) -> Pages:
    """values (N, K) or (N,). Independent of the order of the questions, to the last bit. Raises ValueError on bad input."""
    values = np.asarray(values, dtype=np.float64)
    if len(values) != len(pages) or not len(pages):
        raise ValueError(f"{len(values)} values for {len(pages)} questions; there must be one each, and at least one")
    values = values.reshape(len(values), -1)
    if not np.isfinite(values).all():
        raise ValueError("a value is NaN or infinite")
    _, where = np.unique(np.asarray(pages), return_inverse=True)
    order = np.lexsort((*values.T, where))
    starts = np.flatnonzero(np.diff(where[order], prepend=-1))
    counts = np.bincount(where).astype(np.float64)
    return Pages(np.add.reduceat(values[order], starts, axis=0), counts)


def resampled_means(pages: Pages, resamples: int, seed: int) -> Floats:
    """(resamples, K): means over as many pages as there are, drawn with replacement."""
    random, count = np.random.default_rng(seed), len(pages.counts)
    batch = max(1, DRAWS_PER_BATCH // count)
    means = []
    for start in range(0, resamples, batch):
        draws = random.multinomial(count, np.full(count, 1 / count), size=min(batch, resamples - start))
        means.append((draws @ pages.sums) / (draws @ pages.counts)[:, None])
    return np.concatenate(means)


def standard_error(pages: Pages) -> Floats:
    """(K,): clustered, of a mean over questions (ratio estimator; Miller 2024, section 2.2). Infinite for one page."""
    count = len(pages.counts)
    if count < 2:
        return np.full(pages.sums.shape[1], inf)
    residuals = pages.sums - pages.mean * pages.counts[:, None]
    squares = (residuals**2).sum(axis=0) * count / (count - 1)
    error = np.sqrt(squares) / pages.counts.sum()
    return np.where(error < 1e-12, 0.0, error)  # equal values leave rounding, which must not be studentised


def unseen(pages: int, alpha: float) -> float:
    """Largest share of pages that could differ though none of `pages` did: exact rule of three (Hanley, Lippman-Hand 1983)."""
    return float(1 - alpha ** (1 / pages))


def intervals(values: Floats, pages: Sequence[str], confidence: float, resamples: int, seed: int) -> list[Interval]:
    """Percentile intervals of K mean scores in [0, 1]. One page says nothing: [0, 1]. Equal values: the rule of three."""
    groups = by_page(values, pages)
    tail, mean = (1 - confidence) / 2, groups.mean
    if len(groups.counts) < 2:
        low, high = np.zeros_like(mean), np.ones_like(mean)
    else:
        low, high = np.quantile(resampled_means(groups, resamples, seed), [tail, 1 - tail], axis=0)
        guard = np.where(standard_error(groups) == 0, unseen(len(groups.counts), tail), 0.0)
        low, high = np.maximum(low - guard, 0), np.minimum(high + guard, 1)
    return [Interval(float(m), float(a), float(b), len(pages)) for m, a, b in zip(mean, low, high, strict=True)]


def bounds(values: Floats, pages: Sequence[str], alpha: float, resamples: int, seed: int, span: float = 1.0) -> Bounds:
    """Lower bounds of K mean differences that all hold at once with probability 1 - alpha, and upper bounds likewise.

    The critical value is the (1 - alpha) quantile of the bootstrapped maximum of the studentised differences (Romano and
    Wolf 2005; over all ordered pairs it gives multiple comparisons with the best, Hsu 1996). `span` is the largest
    value possible: no bound comes nearer than what unseen pages could change; 0 turns that guard off. One page: infinite.
    """
    groups = by_page(values, pages)
    count, mean, error = len(groups.counts), groups.mean, standard_error(groups)
    if count < 2:
        return Bounds(mean, np.full_like(mean, -inf), np.full_like(mean, inf), error, inf)
    # The bootstrap's own spread lacks the factor G / (G - 1) that `error` has.
    scale = np.where(error > 0, error * np.sqrt((count - 1) / count), inf)
    studentised = (resampled_means(groups, resamples, seed) - mean) / scale
    below = max(0.0, float(np.quantile(studentised.max(axis=1), 1 - alpha)))
    above = max(0.0, float(np.quantile((-studentised).max(axis=1), 1 - alpha)))
    guard = span * unseen(count, alpha)
    return Bounds(mean, mean - np.maximum(below * error, guard), mean + np.maximum(above * error, guard), error, below)


def resolution(error: float, critical: float, questions: int, pages: int, margin: float, alpha: float) -> Resolution:
    """From a paired clustered standard error: (critical + z_power) * error is resolved; the error falls with 1 / sqrt(n).

    The guard of `bounds` falls with 1 / pages, so the margin needs log(alpha) / log(1 - margin) pages besides.
    """
    smallest = max((critical + NormalDist().inv_cdf(POWER)) * error, unseen(pages, alpha))
    if smallest == inf or pages < 2:
        return Resolution(inf, inf)
    by_error = questions * ((critical + NormalDist().inv_cdf(POWER)) * error / margin) ** 2
    by_pages = questions / pages * log(alpha) / log(1 - margin) if margin < 1 else 0.0
    return Resolution(smallest, ceil(max(by_error, by_pages)))
