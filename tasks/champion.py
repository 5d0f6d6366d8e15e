"""Served arm against served arm: may the candidate replace the champion, overall and slice by slice?"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tasks.comparisons import compared
from tasks.params import GateParams
from tasks.reports import Answer, Report
from tasks.slice_rules import against_slices, lost_sentences, slices_note
from tasks.statistics import Resolution, bounds, resolution
from tasks.verdict import Changes, Comparison, Rule, SliceComparison, champion_sentences
from tasks.worth import costs, primaries


@dataclass(frozen=True)
class Duel:
    """`why`: the sentences on the whole. `proven`: by them, it may go live. `lost`: slices that forbid it all the same."""

    comparison: Comparison
    resolved: Resolution
    slices: tuple[SliceComparison, ...]
    why: list[str]
    proven: bool
    lost: list[str]
    notes: list[str]
    changes: Changes


def duel(answers: Sequence[Answer], champion: Report, arm: str, params: GateParams, rule: Rule) -> Duel:
    """Paired by question; `answers` are the candidate's, of the arm that it would serve, to what the champion was asked.

    An unchanged corpus leaves two ways in, a better score or a lower cost; each gets half of alpha, so that a candidate that
    is no different gets in with a chance of alpha at most.
    """
    alpha = params.alpha if rule == "not worse" else params.alpha / 2
    live, pages = champion.of(str(champion.served)), [answer.page for answer in answers]
    weights, sampling = params.primary.model_dump(), (params.resamples, params.seed)
    differences = np.subtract(primaries(answers, weights), primaries(live, weights))
    found = bounds(differences, pages, alpha, *sampling)
    saved = np.subtract(costs(live, params.cost), costs(answers, params.cost))
    cheaper = float(bounds(saved, pages, alpha, *sampling, span=0).low[0]) > 0
    names = (arm, f"champion ({champion.served})")
    rights = dict(zip(names, ([answer.right for answer in side] for side in (answers, live)), strict=True))
    comparison = compared([names], found, differences[:, None], rights)[0]
    resolved = resolution(float(found.standard_error[0]), found.critical, len(pages), len(set(pages)), params.margin, alpha)
    proven = comparison.low > (0 if rule == "better" and not cheaper else -params.margin)
    why = champion_sentences(comparison, rule, params.margin, cheaper, float(saved.mean()), proven)
    slices = against_slices(answers, differences, params)
    lost, notes = lost_sentences(slices, params.margin), slices_note(slices, params.slice_questions)
    return Duel(comparison, resolved, slices, why, proven, lost, notes, changed(answers, live))


def changed(answers: Sequence[Answer], live: Sequence[Answer]) -> Changes:
    """Which answers turned. A mean that stays can hide that as many were forgotten as were learnt."""
    before = {answer.question: answer for answer in live}
    turned = [answer for answer in answers if answer.right != before[answer.question].right]
    lost, won = ([a.question for a in turned if a.right == right] for right in (False, True))
    return Changes(tuple(lost), tuple(won), {answer.question: answer.text for answer in turned})
