"""How far two judges agree beyond chance: Cohen's kappa (Cohen 1960), its interval by drawing pages (tasks.statistics)."""

from collections.abc import Sequence

import numpy as np

from tasks.records import Record
from tasks.statistics import Floats, by_page, resampled_means


def agreement(
    ours: Sequence[bool], theirs: Sequence[bool], pages: Sequence[str], confidence: float, resamples: int, seed: int
) -> Record:
    """kappa is None where one of both says the same of everything: no agreement could then be told from chance."""
    pairs = list(zip(ours, theirs, strict=True))
    cells = np.array([[a and b, a and not b, b and not a, not a and not b] for a, b in pairs], dtype=np.float64)  # (N, 4)
    groups = by_page(cells, pages)
    tail = (1 - confidence) / 2
    drawn = kappas(resampled_means(groups, resamples, seed)) if len(groups.counts) > 1 else np.array([np.nan])
    kappa, known = float(kappas(groups.mean[None])[0]), drawn[np.isfinite(drawn)]
    low, high = np.quantile(known, [tail, 1 - tail]).tolist() if len(known) else (-1.0, 1.0)
    found = {"n": len(pairs), "agree": float(groups.mean[0] + groups.mean[3])}
    return found | ({"kappa": kappa, "low": low, "high": high} if np.isfinite(kappa) else {"kappa": None})


def kappas(shares: Floats) -> Floats:
    """shares (R, 4): both yes, only the first, only the second, neither. NaN where chance alone agrees always."""
    both, first, second, neither = shares.T
    chance = (both + first) * (both + second) + (neither + first) * (neither + second)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.asarray(np.where(chance < 1 - 1e-9, (both + neither - chance) / (1 - chance), np.nan))
