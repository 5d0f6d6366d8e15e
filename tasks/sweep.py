"""A small sweep: which values of params/adapter.yaml to try, and which of the adapters that they gave is worth a change."""

import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tasks.params import AdapterParams, SweepParams

Values = dict[str, Any]


class Trial(NamedTuple):
    values: Values  # those that were changed; empty: params/adapter.yaml as it is
    loss: float  # best of its validation
    parameters: int  # that it trained
    seconds: float


class Winner(NamedTuple):
    trial: Trial
    reason: str


def combinations(params: SweepParams, base: AdapterParams) -> list[Values]:
    """What to try: params/adapter.yaml as it is, then the grid without that, at most `most` of it, drawn by `seed`."""
    names = sorted(params.grid)
    every = [dict(zip(names, values, strict=True)) for values in itertools.product(*(params.grid[name] for name in names))]
    used = {name: getattr(base, name) for name in names}
    others = [values for values in every if values != used]
    if len(others) > params.most:
        others = random.Random(params.seed).sample(others, params.most)
    return [{}, *others]


def choose(trials: Sequence[Trial], tolerance: float) -> Winner:
    """The cheapest of those within `tolerance` (a share of the loss) of the best; what is in use wins where it is among them."""
    best = min(trials, key=lambda trial: trial.loss)
    close = [trial for trial in trials if trial.loss <= best.loss * (1 + tolerance)]
    used = next((trial for trial in close if not trial.values), None)
    if used is not None:
        return Winner(used, f"params/adapter.yaml stays: {compared(used, best, tolerance)}")
    cheapest = min(close, key=lambda trial: (trial.parameters, trial.seconds))
    if cheapest is best:
        return Winner(
            best, f"{name(best.values)}: the lowest validation loss, {best.loss:.4f}, and none within {tolerance:.0%} is smaller"
        )
    return Winner(cheapest, f"{name(cheapest.values)}: the smallest of those {compared(cheapest, best, tolerance)}")


def compared(trial: Trial, best: Trial, tolerance: float) -> str:
    if trial is best:
        return f"its validation loss, {trial.loss:.4f}, is the lowest"
    return f"within {tolerance:.0%} of the lowest validation loss ({trial.loss:.4f}; {best.loss:.4f} by {name(best.values)})"


def name(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items()) or "as it is"
