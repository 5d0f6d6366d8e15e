"""Slices in the verdict: what every arm scores on each, and whether the candidate lost one of them to the champion."""

from collections.abc import Mapping, Sequence

import numpy as np

from tasks.paired import enough, holm, sign_flips
from tasks.params_verdict import GateParams
from tasks.reports import Answer
from tasks.statistics import Floats, intervals
from tasks.verdict import SliceComparison, SliceRow


def members(answers: Sequence[Answer]) -> dict[str, list[int]]:
    """Slice -> places of its answers, by name."""
    found: dict[str, list[int]] = {}
    for place, answer in enumerate(answers):
        for name in dict.fromkeys(answer.slices):
            found.setdefault(name, []).append(place)
    return dict(sorted(found.items()))


def slice_rows(answers: Sequence[Answer], columns: Mapping[str, Sequence[float]], params: GateParams) -> tuple[SliceRow, ...]:
    """Every slice and arm, with an interval of its own. `answers`: those of any arm, in the order of the columns."""
    arms, values = list(columns), np.array(list(columns.values())).T
    rows = []
    for name, places in members(answers).items():
        pages = [answers[place].page for place in places]
        found = intervals(values[places], pages, 1 - params.alpha, params.resamples, params.seed)
        rows += [
            SliceRow(name, arm, len(places), len(set(pages)), interval.mean, interval.low, interval.high)
            for arm, interval in zip(arms, found, strict=True)
        ]
    return tuple(rows)


def against_slices(answers: Sequence[Answer], differences: Floats, params: GateParams) -> tuple[SliceComparison, ...]:
    """Candidate minus champion on every slice that has enough questions; `answers` are the candidate's.

    Lost is a slice whose fall is more than chance, as all of these slices are looked at (Holm), and more than the margin. To ask
    instead for proof that none fell would refuse every candidate: a slice of 30 questions resolves no margin of 0.10.
    """
    judged = {name: places for name, places in members(answers).items() if len(places) >= params.slice_questions}
    judged = {name: places for name, places in judged.items() if len(places) < len(answers)}  # the whole is judged elsewhere
    if not judged:
        return ()
    columns = np.zeros((len(answers), len(judged)))
    for column, places in enumerate(judged.values()):
        columns[places, column] = differences[places]
    pages = [answer.page for answer in answers]
    resamples = enough(params.resamples, params.alpha / len(judged))
    chances = sign_flips(-columns, pages, resamples, params.seed).tolist()
    found = []
    for (name, places), chance, adjusted in zip(judged.items(), chances, holm(chances), strict=True):
        mean = float(differences[places].mean())
        lost = adjusted <= params.alpha and mean < -params.margin
        found.append(SliceComparison(name, len(places), len({pages[place] for place in places}), mean, chance, adjusted, lost))
    return tuple(found)


def lost_sentences(comparisons: Sequence[SliceComparison], margin: float) -> list[str]:
    return [
        f"On the slice {c.name!r} ({c.questions} questions from {c.pages} sources) it is {-c.difference:.2f} worse than the "
        f"champion, more than the margin of {margin:.2f} and more than chance (p = {c.adjusted:.2g}, Holm over "
        f"{len(comparisons)} slices)."
        for c in comparisons
        if c.lost
    ]


def slices_note(comparisons: Sequence[SliceComparison], least: int) -> list[str]:
    """What was looked at, where nothing was lost."""
    if not comparisons or any(c.lost for c in comparisons):
        return []
    lowest = min(comparisons, key=lambda c: c.difference)
    return [
        f"None of the {len(comparisons)} slices of {least} questions or more is worse than in the champion by more than the "
        f"margin and by more than chance; the lowest is {lowest.name!r} at {lowest.difference:+.2f} (p = {lowest.adjusted:.2g})."
    ]
