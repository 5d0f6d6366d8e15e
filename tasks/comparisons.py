"""Every comparison of two sets of answers, told whole: the difference with its bounds, right and wrong, effect, one sentence."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from tasks.paired import effect_size, holm, mcnemar
from tasks.statistics import Bounds, Floats
from tasks.verdict import Comparison, spread

Name = tuple[str, str]  # arm, other
EFFECTS = ((0.8, "large"), (0.5, "medium"), (0.2, "small"), (0.0, "negligible"))  # Cohen 1988


def compared(names: Sequence[Name], found: Bounds, values: Floats, rights: Mapping[str, Sequence[bool]]) -> list[Comparison]:
    """values (N, K): the differences that `found` bounds. rights: whether each answer is right, by the names of both sides."""
    splits = [split(rights[arm], rights[other]) for arm, other in names]
    chances = {frozenset(name): mcnemar(*counts) for name, counts in zip(names, splits, strict=True)}
    adjusted = dict(zip(chances, holm(list(chances.values())), strict=True))  # a pair is one comparison, both ways
    numbers = zip(found.difference.tolist(), found.low.tolist(), found.high.tolist(), strict=True)
    return [
        told(
            Comparison(*name, *bounded, *counts, chances[frozenset(name)], adjusted[frozenset(name)], effect_size(column)),
            len(column),
        )
        for name, bounded, counts, column in zip(names, numbers, splits, values.T, strict=True)
    ]


def split(ours: Sequence[bool], theirs: Sequence[bool]) -> tuple[int, int]:
    """(right here and wrong there, wrong here and right there)"""
    pairs = list(zip(ours, theirs, strict=True))
    return sum(a and not b for a, b in pairs), sum(b and not a for a, b in pairs)


def told(found: Comparison, questions: int) -> Comparison:
    return replace(found, says=sentence(found, questions))


def sentence(found: Comparison, questions: int) -> str:
    """For someone who decides and does not compute."""
    verdict = "proven to be better" if found.low > 0 else "proven to be worse" if found.high < 0 else "not proven either way"
    counts = f"of {questions} questions {found.won} are right only in {found.arm}, {found.lost} only in {found.other}"
    tested = f"McNemar's p = {found.adjusted:.2g}"
    return f"{found.arm} against {found.other}: {spread(found)}, {verdict}{effect(found.effect)}; {counts} ({tested})."


def effect(size: float | None) -> str:
    if size is None:
        return ""
    return f", a {next(word for least, word in EFFECTS if abs(size) >= least)} effect ({size:+.2f} standard deviations)"
