"""Served arm against served arm: may the candidate replace the champion, overall and slice by slice?"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from statistics import NormalDist

import numpy as np

from tasks.comparisons import compared
from tasks.looks import Glance, Look, look, look_sentence
from tasks.paired import enough, sign_flips
from tasks.params_verdict import GateParams
from tasks.records import value_digest
from tasks.reports import Answer, Report
from tasks.slice_rules import against_slices, lost_sentences, slices_note
from tasks.statistics import Floats, Resolution, bounds, resolution
from tasks.verdict import Changes, Comparison, Rule, SliceComparison, champion_sentences, open_sentence
from tasks.worth import costs, primaries


@dataclass(frozen=True)
class Duel:
    """`why`: the sentences on the whole. proven: by them, it may go live. open: neither that nor the opposite is shown.
    lost: sentences on slices that forbid it all the same."""

    comparison: Comparison
    resolved: Resolution
    slices: tuple[SliceComparison, ...]
    look: Look
    why: list[str]
    proven: bool
    open: bool
    lost: list[str]
    notes: list[str]
    changes: Changes


@dataclass(frozen=True)
class Pair:
    """The two sides' answers by question, how much better each is (N,), and how much cheaper (N,)."""

    names: tuple[str, str]
    ours: Sequence[Answer]
    theirs: Sequence[Answer]
    better: Floats
    cheaper: Floats

    @property
    def pages(self) -> list[str]:
        return [answer.page for answer in self.ours]


@dataclass(frozen=True)
class Contest:
    """The two ways past an unchanged corpus: p values of being better and of being cheaper, and what each may spend."""

    better: float
    cheaper: float
    alpha: float

    @property
    def saves(self) -> bool:
        return self.cheaper <= self.alpha


def duel(
    answers: Sequence[Answer], champion: Report, arm: str, params: GateParams, rule: Rule, earlier: Sequence[Glance]
) -> Duel:
    """`answers`: the candidate's, of the arm that it would serve, to what the champion was asked.

    An unchanged corpus leaves two ways in, a better score or a lower cost; each gets half of the alpha that is left for this
    look, so that over the horizon a candidate that is no different gets in with a chance of alpha at most.
    """
    pair = paired(answers, champion, arm, params)
    asked = (answer.text or answer.question for answer in answers)
    seen = look(mark(pair), rule, asked, earlier, params.alpha, params.horizon)
    contest = contested(pair, params, seen.alpha / 2) if rule == "better" else None
    strictly = contest is not None and not contest.saves
    comparison, resolved = measured(pair, params, contest)
    if contest is not None and strictly:
        proven = comparison.low > 0 and contest.better <= contest.alpha
        left_open = comparison.high >= params.margin or contest.alpha == 0
    else:
        proven = comparison.low > -params.margin
        left_open = comparison.high >= -params.margin
    left_open = left_open and not proven
    saved = float(pair.cheaper.mean())
    why = champion_sentences(comparison, rule, params.margin, contest is not None and contest.saves, saved, proven)
    why += [look_sentence(seen, contest.better, contest.cheaper)] if contest else []
    why += [open_sentence(resolved, len(answers), params.margin, seen.alpha)] if left_open else []
    slices = against_slices(answers, pair.better, params)
    lost, notes = lost_sentences(slices, params.margin), slices_note(slices, params.slice_questions)
    return Duel(comparison, resolved, slices, seen, why, proven, left_open, lost, notes, changed(answers, pair.theirs))


def paired(answers: Sequence[Answer], champion: Report, arm: str, params: GateParams) -> Pair:
    live, weights = champion.of(str(champion.served)), params.primary.model_dump()
    better = np.subtract(primaries(answers, weights), primaries(live, weights))
    cheaper = np.subtract(costs(live, params.cost), costs(answers, params.cost))
    return Pair((arm, f"champion ({champion.served})"), answers, live, better, cheaper)


def mark(pair: Pair) -> str:
    """Of all that the statistics see."""
    return value_digest([pair.names, pair.better.tolist(), pair.cheaper.tolist()])


def contested(pair: Pair, params: GateParams, alpha: float) -> Contest:
    values = np.stack([pair.better, pair.cheaper], axis=1)
    better, cheaper = sign_flips(values, pair.pages, enough(params.resamples, alpha), params.seed).tolist()
    return Contest(better, cheaper, alpha)


def measured(pair: Pair, params: GateParams, contest: Contest | None) -> tuple[Comparison, Resolution]:
    """Bounds at alpha, or half of it in a contest: they do not shrink with the looks. What can be resolved does."""
    pages = pair.pages
    alpha = params.alpha if contest is None else params.alpha / 2
    found = bounds(pair.better, pages, alpha, params.resamples, params.seed)
    rights = {name: [answer.right for answer in side] for name, side in zip(pair.names, (pair.ours, pair.theirs), strict=True)}
    comparison = compared([pair.names], found, pair.better[:, None], rights)[0]
    error, critical = float(found.standard_error[0]), found.critical
    if contest is not None and not contest.saves:
        if contest.alpha == 0:
            return comparison, Resolution(inf, inf)
        critical = max(critical, NormalDist().inv_cdf(1 - contest.alpha))
    return comparison, resolution(error, critical, len(pages), len(set(pages)), params.margin, alpha)


def changed(answers: Sequence[Answer], live: Sequence[Answer]) -> Changes:
    """Which answers turned. A mean that stays can hide that as many were forgotten as were learnt."""
    before = {answer.question: answer for answer in live}
    turned = [answer for answer in answers if answer.right != before[answer.question].right]
    lost, won = ([a.question for a in turned if a.right == right] for right in (False, True))
    return Changes(tuple(lost), tuple(won), {answer.question: answer.text for answer in turned})
