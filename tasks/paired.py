"""Two sets of answers to the same questions: how likely chance alone makes one look so much better, and how large that is.

The bootstrap of tasks.statistics says how far a difference can be trusted. A p value is for where many are asked at once (Holm
1979) or again and again, and where pages are too few for the bootstrap's tails. Shapes: N questions, G pages, K columns.
"""

from collections.abc import Sequence
from math import ceil

import numpy as np

from tasks.statistics import DRAWS_PER_BATCH, Floats, by_page

PER_CHANCE = 20  # resamples for every 1 / alpha, so that a p value near alpha is known to a fifth


def sign_flips(values: Floats, pages: Sequence[str], resamples: int, seed: int) -> Floats:
    """(K,): the chance of a mean as high as that of `values` (N, K) if every page's sum might as well have had the other sign.

    One-sided, and valid for any number of pages where only noise tells the two sides apart (randomisation test: Fisher 1935;
    over clusters: Canay, Romano and Shaikh 2017; with 1 added above and below: Phipson and Smyth 2010). Questions outside a
    column's slice are 0 there.
    """
    sums = by_page(values, pages).sums
    random, observed = np.random.default_rng(seed), sums.sum(axis=0) - 1e-9  # rounding must not hide a tie
    batch, reached = max(1, DRAWS_PER_BATCH // max(sums.shape)), np.zeros(sums.shape[1])
    for start in range(0, resamples, batch):
        heads = random.integers(0, 2, (min(batch, resamples - start), len(sums)), dtype=np.int8)
        reached += ((2.0 * heads - 1) @ sums >= observed).sum(axis=0)
    return np.asarray((1 + reached) / (1 + resamples))


def enough(resamples: int, alpha: float) -> int:
    """Resamples with which a p value can fall below alpha, and clearly so."""
    return max(resamples, ceil(PER_CHANCE / alpha)) if alpha > 0 else resamples


def holm(chances: Sequence[float]) -> list[float]:
    """Adjusted p values: those below alpha hold together, whatever their dependence (Holm 1979)."""
    order = sorted(range(len(chances)), key=lambda place: chances[place])
    adjusted, highest = [0.0] * len(chances), 0.0
    for rank, place in enumerate(order):
        highest = max(highest, min(1.0, (len(chances) - rank) * chances[place]))
        adjusted[place] = highest
    return adjusted


def mcnemar(won: int, lost: int) -> float:
    """Two-sided exact p of as uneven a split of the questions that only one side has right (McNemar 1947; exact: the binomial).

    It takes questions for independent, which those of one page are not: beside the bootstrap, never instead of it.
    """
    from scipy.stats import binomtest

    return float(binomtest(won, won + lost).pvalue) if won + lost else 1.0


def effect_size(differences: Floats) -> float | None:
    """Mean difference in standard deviations of the differences (Cohen 1988, d_z); None where they are all equal."""
    spread = float(np.std(differences, ddof=1)) if len(differences) > 1 else 0.0
    return float(np.mean(differences)) / spread if spread > 1e-12 else None
