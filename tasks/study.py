"""What would make the assistant better? A learning curve and a bake-off of base models, and what they say in words.

All is measured on the same validation questions, pages drawn (tasks.statistics). A sentence of advice is one family of
comparisons, bounded at the gate's alpha; what its bounds do not show is "cannot tell".
"""

from collections.abc import Mapping, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np

from tasks.facts import states
from tasks.page_rows import right
from tasks.params import ARMS, uses_adapter
from tasks.params_verdict import GateParams
from tasks.records import Record, value_digest
from tasks.statistics import Bounds, Floats, bounds, intervals
from tasks.verdict import signed

WAYS = {
    "prompt": "Neither retrieval nor an adapter",
    "rag": "Retrieval without an adapter",
    "lora": "An adapter without retrieval",
    "rag+lora": "Retrieval and an adapter",
}
STEPS = {
    "retrieval alone": ("rag", "prompt"),
    "an adapter alone": ("lora", "prompt"),
    "the adapter on top of retrieval": ("rag+lora", "rag"),
}


class Point(NamedTuple):
    """One adapter: its base model and how large that is, what it learnt from, and all answers of the four arms."""

    base: str
    parameters: int
    share: float
    pairs: int
    answers: Sequence[Record]  # as the stage `evaluate` writes them
    costs: Mapping[str, float]  # by arm


class Advice(NamedTuple):
    about: str
    says: str
    tells: bool  # or the measurements do not


class Scores(NamedTuple):
    """Of one point on the questions that all points were asked. values: arm -> (N,)."""

    point: Point
    values: Mapping[str, Floats]
    pages: Sequence[str]

    @property
    def best(self) -> str:
        return max(ARMS, key=lambda arm: float(self.values[arm].mean()))

    @property
    def adapted(self) -> str:
        """The better arm with an adapter."""
        return max(filter(uses_adapter, ARMS), key=lambda arm: float(self.values[arm].mean()))


def drawn(records: Sequence[Record], most: int, seed: int) -> list[Record]:
    """By a hash of their ids, so that a smaller draw is part of a larger one."""
    ranked = sorted(records, key=lambda record: value_digest([seed, record["id"]]))
    return sorted(ranked[:most], key=lambda record: str(record["id"]))


def scored(points: Sequence[Point]) -> list[Scores]:
    """On the questions that every one was asked: an adapter is not asked what it learnt."""
    asked = [{record["question"] for record in point.answers} for point in points]
    common = sorted(set.intersection(*asked))
    found = []
    for point in points:
        primary = {(record["arm"], record["question"]): record["scores"]["primary"] for record in point.answers}
        page = {record["question"]: str(record["document"] or record["question"]) for record in point.answers}
        values: dict[str, Floats] = {arm: np.array([primary[arm, question] for question in common]) for arm in ARMS}
        found.append(Scores(point, values, [page[question] for question in common]))
    return found


def advice(points: Sequence[Point], gate: GateParams) -> list[Advice]:
    """`points`: those of the base model in use first, by the size of what they learnt from; then one per other base model."""
    found = scored(points)
    own = [each for each in found if each.point.base == points[0].base]
    others = [each for each in found if each.point.base != points[0].base]
    return [ways(own[-1], gate), more_pairs(own, gate), more_pages(own[-1], gate), another_model(own[-1], others, gate)]


def compared(differences: Sequence[Floats], pages: Sequence[str], gate: GateParams) -> Bounds:
    return bounds(np.stack(differences, axis=1), pages, gate.alpha, gate.resamples, gate.seed)


def told(found: Bounds, place: int = 0) -> str:
    """0.31 worse (0.37 worse to 0.25 worse)"""
    difference, low, high = (float(column[place]) for column in (found.difference, found.low, found.high))
    return f"{signed(difference)} ({signed(low)} to {signed(high)})"


def ways(scores: Scores, gate: GateParams) -> Advice:
    """By the gate's own rule: the cheapest arm proven to be within the margin of every other."""
    about, values = "retrieval or an adapter", scores.values
    names: list[tuple[str, str]] = list(permutations(ARMS, 2))
    found = compared([values[arm] - values[other] for arm, other in names], scores.pages, gate)
    lows = {arm: min(float(low) for (name, _), low in zip(names, found.low, strict=True) if name == arm) for arm in ARMS}
    proven = [arm for arm in ARMS if lows[arm] > -gate.margin]
    gains = "; ".join(f"{what}: {told(found, names.index(pair))}" for what, pair in STEPS.items())
    if not proven:
        best = f"{scores.best} has the best mean, {values[scores.best].mean():.2f}"
        return Advice(
            about, f"Cannot tell: {best}, but no way is proven to be within {gate.margin:.2f} of all others. {gains}.", False
        )
    arm = min(proven, key=lambda arm: (scores.point.costs[arm], -values[arm].mean()))
    low = f", which is below the floor of {gate.floors.primary:g}" if values[arm].mean() < gate.floors.primary else ""
    why = f"{arm} scores {values[arm].mean():.2f}{low}, the cheapest way proven to be within {gate.margin:.2f} of the best"
    return Advice(about, f"{WAYS[arm]}: {why}. {gains}.", True)


def more_pairs(curve: Sequence[Scores], gate: GateParams) -> Advice:
    """By the last step of the curve: what more pairs of the same kind brought last."""
    about = "question/answer pairs"
    if len(curve) < 2:
        return Advice(about, "Cannot tell: the curve has one point only; name more `shares` in params/study.yaml.", False)
    before, last = curve[-2:]
    arm = last.adapted
    found = compared([last.values[arm] - before.values[arm]], last.pages, gate)
    step = f"with {last.point.pairs:,} instead of {before.point.pairs:,} examples {arm} is {told(found)}"
    if found.low[0] > 0:
        return Advice(about, f"More pairs: {step}, so the curve still rises.", True)
    if found.high[0] < gate.margin:
        return Advice(about, f"Not more pairs of this kind: {step}, proven to be less than {gate.margin:.2f}.", True)
    return Advice(about, f"Cannot tell whether more pairs would help: {step}.", False)


def more_pages(scores: Scores, gate: GateParams) -> Advice:
    """Of the wrong answers with passages: was what had to be read among them?"""
    about = "pages, or a better reader"
    arm = max(("rag", "rag+lora"), key=lambda arm: float(scores.values[arm].mean()))
    wrong = [record for record in scores.point.answers if record["arm"] == arm and record["document"] and not right(record)]
    if len({record["document"] for record in wrong}) < 2:
        return Advice(about, f"Cannot tell: {arm} has hardly any answer wrong that a page would give.", False)
    given = np.array([float(at_hand(record)) for record in wrong])
    pages = [str(record["document"]) for record in wrong]
    found = intervals(given, pages, 1 - 2 * gate.alpha, gate.resamples, gate.seed)[0]
    share = f"{found.mean:.0%} ({found.low:.0%} to {found.high:.0%}) of the {len(wrong)} wrong answers of {arm}"
    if found.low > 0.5:
        return Advice(
            about, f"A better reader (a larger model, more pairs) before more pages: {share} had what answers them.", True
        )
    if found.high < 0.5:
        return Advice(about, f"More pages, or better search, before a better reader: only {share} had what answers them.", True)
    return Advice(about, f"Cannot tell whether pages or the reader are short: {share} had what answers them.", False)


def at_hand(record: Record) -> bool:
    fact = record.get("fact")
    return any(states(passage, fact) if fact else passage["document"] == record["document"] for passage in record["passages"])


def another_model(own: Scores, others: Sequence[Scores], gate: GateParams) -> Advice:
    """The best arm of each, all against the one in use at once."""
    about = "base model"
    if not others:
        return Advice(about, "Cannot tell: one base model was tried; name others under `bases` in params/study.yaml.", False)
    found = compared([each.values[each.best] - own.values[own.best] for each in others], own.pages, gate)
    rows = [(each, float(low), float(high), told(found, place)) for place, (each, low, high)
            in enumerate(zip(others, found.low, found.high, strict=True))]  # fmt: skip
    every = "; ".join(f"{size(each, own)} {each.point.base} is {said}" for each, _, _, said in rows)
    larger = [row for row in rows if row[0].point.parameters > own.point.parameters]
    better = max((row for row in larger if row[1] > 0), key=lambda row: row[1], default=None)
    if better:
        return Advice(about, f"A larger model, {better[0].point.base}, is proven to be better: {every}.", True)
    equal = [row for row in rows if row not in larger and row[1] > -gate.margin]
    if equal:
        smallest = min(equal, key=lambda row: row[0].point.parameters)[0].point.base
        return Advice(about, f"A smaller model, {smallest}, is enough (less than {gate.margin:.2f} worse): {every}.", True)
    if all(row[2] < gate.margin for row in rows):
        return Advice(about, f"The model in use: none of the others is proven better, none by {gate.margin:.2f}: {every}.", True)
    return Advice(about, f"Cannot tell: {every}.", False)


def size(each: Scores, own: Scores) -> str:
    return "the larger" if each.point.parameters > own.point.parameters else "the smaller"


def summary(points: Sequence[Point], gate: GateParams) -> Record:
    """For people, and for the report: every point by its means with intervals, and the advice."""
    found = scored(points)
    return {
        "questions": len(found[0].pages),
        "points": [
            {"base": each.point.base, "parameters": each.point.parameters, "share": each.point.share, "pairs": each.point.pairs,
             "arms": {arm: means(each.values[arm], each.pages, gate) for arm in ARMS}}
            for each in found
        ],
        "advice": [each._asdict() for each in advice(points, gate)],
    }  # fmt: skip


def means(values: Floats, pages: Sequence[str], gate: GateParams) -> Record:
    found = intervals(values, pages, 1 - gate.alpha, gate.resamples, gate.seed)[0]
    return {"mean": found.mean, "low": found.low, "high": found.high, "n": found.n}
