"""The gate: may this candidate go live, and with which arm? Pure, and closed in doubt. The rule: architecture.md, section 6."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from math import inf
from typing import Any

import numpy as np

from tasks.params import ARMS, CostWeights, GateParams, uses_adapter, uses_passages
from tasks.reports import Answer, Report, faults
from tasks.scores import primary
from tasks.statistics import Bounds, Resolution, bounds, intervals, resolution
from tasks.verdict import (
    ArmRow,
    Changes,
    Comparison,
    Rule,
    Verdict,
    below_floors,
    champion_sentences,
    changes_notes,
    described,
    distances,
    known,
    resolution_note,
)

__all__ = ["Verdict", "cost", "decide"]

Columns = dict[str, list[float]]  # arm -> primary score of every question, in the order of the question ids


def decide(candidate: Report, champion: Report | None, params: GateParams, corpus_changed: bool) -> Verdict:
    """Judge a candidate against its own arms, the floors and the champion's served arm.

    Deterministic. Whatever is missing, doubled, NaN or measured on other questions is a refusal with all its reasons;
    a champion report that does not say which arm is served is a mistake of the caller: ValueError.
    """
    if champion is not None and champion.served is None:
        raise ValueError("the champion's report must name the arm that it serves: load_report(folder, served=...)")
    rule: Rule = "first release" if champion is None else "not worse" if corpus_changed else "better"
    thresholds = params.model_dump() | {"rule": rule, "questions": candidate.questions_digest}
    broken = all_faults(candidate, champion, params)
    if broken:
        pages = sorted({answer.question: answer.page for answer in candidate.answers}.values())
        few = few_questions(pages, Resolution(inf, inf), params)
        refusals = (*broken, *few, *recall_faults(candidate, params))
        return Verdict(False, None, refusals, (), (), (), None, None, thresholds)
    return judge(candidate, champion, params, rule, thresholds)


def judge(candidate: Report, champion: Report | None, params: GateParams, rule: Rule, thresholds: Mapping[str, Any]) -> Verdict:
    """`decide` for evidence that is sound."""
    weights, pages = params.primary.model_dump(), [answer.page for answer in candidate.of(ARMS[0])]
    columns: Columns = {arm: primaries(candidate.of(arm), weights) for arm in ARMS}
    rows = arm_rows(candidate, columns, pages, params)
    pairs, comparisons = all_pairs(columns, pages, params)
    arm, reasons = choose(rows, comparisons, params.margin, champion.served if champion else None)
    resolved, changes = resolve(rows, pairs, comparisons, pages, params), Changes((), ())
    refusals = [*few_questions(pages, resolved, params), *recall_faults(candidate, params)]
    if arm is None:
        refusals += reasons + below_floors(rows, params.floors)
    elif champion is not None:
        answers = [answer for answer in candidate.of(arm) if answer.question not in champion.left_out]
        pages, changes = [answer.page for answer in answers], changed(answers, champion)
        against, resolved, why, proven = against_champion(answers, champion, arm, params, rule)
        comparisons += against
        (reasons if proven else refusals).extend(why)
    notes = [*(reasons if refusals else []), *below_floors(rows, params.floors), *distances(rows, comparisons, arm)]
    notes += changes_notes(changes, champion.left_out if champion else ())
    notes.append(resolution_note(resolved, len(pages), len(set(pages)), params.margin))
    return Verdict(
        accepted=not refusals,
        arm=arm,
        reasons=tuple(refusals or reasons),
        notes=tuple(note for note in notes if note not in refusals),
        comparisons=tuple(comparisons),
        arms=rows,
        smallest_difference=known(resolved.smallest_difference),
        questions_needed=None if known(resolved.questions_needed) is None else int(resolved.questions_needed),
        thresholds=thresholds,
        changes=changes,
    )


# --- Evidence


def all_faults(candidate: Report, champion: Report | None, params: GateParams) -> list[str]:
    """Everything that makes the two reports no evidence, or not comparable."""
    weighed = {name for name, weight in params.primary.model_dump().items() if weight > 0}
    needed = sorted(weighed | {"fact", "abstained"})
    found = [f"Candidate: {fault}" for fault in faults(candidate, ARMS, needed)] + kind_faults(candidate, params)
    if champion is not None:
        found += [f"Champion: {fault}" for fault in faults(champion, (str(champion.served),), needed)]
        found += pairing_faults(candidate, champion)
    return found


def kind_faults(candidate: Report, params: GateParams) -> list[str]:
    """Both kinds of questions are needed: those that a page answers and, for its floor, those that none does."""
    answerable, found = {answer.document is not None for answer in candidate.answers}, []
    if True not in answerable:
        found.append("No test question has a source page; add questions that the corpus answers.")
    if False not in answerable and params.floors.abstention > 0:
        found.append(
            "Abstention cannot be measured: every test question has a source page; add questions that the corpus does "
            "not answer, or set floors.abstention to 0 in params/gate.yaml."
        )
    return found


def pairing_faults(candidate: Report, champion: Report) -> list[str]:
    if champion.questions_digest != candidate.questions_digest:
        here, there = candidate.questions_digest[:12], champion.questions_digest[:12]
        return [f"The champion was measured on other questions ({there}, now {here}); measure it again on these."]
    answered = {answer.question for answer in champion.answers} | champion.left_out
    if answered != {answer.question for answer in candidate.answers}:
        return ["Candidate and champion answer different questions under one digest; run both evaluations again."]
    if champion.yardstick != candidate.yardstick:
        return ["The champion was scored by other rules (style, abstention or weights changed); score it again by these."]
    return []


def recall_faults(candidate: Report, params: GateParams) -> list[str]:
    recall = candidate.index_recall
    if recall is None or not 0 <= recall <= 1:
        return [f"The index's recall against the exact scan is not known (found {recall}); run: dvc repro index."]
    if recall < params.min_recall:
        return [f"The index finds {recall:.3f} of what an exact scan finds; min_recall is {params.min_recall}."]
    return []


def few_questions(pages: Sequence[str], resolved: Resolution, params: GateParams) -> list[str]:
    found = []
    if len(pages) < params.min_questions:
        smallest = known(resolved.smallest_difference)
        found.append(
            f"Need at least {params.min_questions} test questions (have {len(pages)}); smallest detectable difference "
            f"would be {'unknown' if smallest is None else f'{smallest:.2f}'}."
        )
    if len(set(pages)) < 2:
        found.append("All test questions come from one page, which says nothing about the others; add questions on other pages.")
    return found


# --- Arms


def arm_rows(candidate: Report, columns: Columns, pages: Sequence[str], params: GateParams) -> tuple[ArmRow, ...]:
    values = np.array([columns[arm] for arm in ARMS]).T
    found = intervals(values, pages, 1 - params.alpha, params.resamples, params.seed)
    rows = []
    for arm, interval in zip(ARMS, found, strict=True):
        answers = candidate.of(arm)
        fact = mean_of(answers, "fact", answerable=True)
        abstention = mean_of(answers, "abstained", answerable=False)
        floored = (
            (interval.mean, params.floors.primary),
            (fact, params.floors.fact),
            (abstention, params.floors.abstention),
        )
        above = all(floor == 0 or (value is not None and value >= floor) for value, floor in floored)
        cost = float(np.mean(costs(answers, params.cost)))
        rows.append(ArmRow(arm, interval.mean, interval.low, interval.high, fact, abstention, cost, above))
    return tuple(rows)


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


def all_pairs(columns: Columns, pages: Sequence[str], params: GateParams) -> tuple[Bounds, list[Comparison]]:
    """Every arm minus every other, bounded at once: whichever arm is truly the best, its comparison is among them."""
    names = list(permutations(columns, 2))
    values = np.array([np.subtract(columns[arm], columns[other]) for arm, other in names]).T
    found = bounds(values, pages, params.alpha, params.resamples, params.seed)
    return found, compared(names, found)


def compared(names: Sequence[tuple[str, str]], found: Bounds) -> list[Comparison]:
    numbers = zip(found.difference, found.low, found.high, strict=True)
    return [Comparison(*pair, *map(float, values)) for pair, values in zip(names, numbers, strict=True)]


def choose(
    rows: Sequence[ArmRow], comparisons: Sequence[Comparison], margin: float, served: str | None
) -> tuple[str | None, list[str]]:
    """The cheapest arm proven within the margin of every other above the floors; else the champion's arm; else the best."""
    above = {row.arm: row for row in rows if row.above_floors}
    if not above:
        return None, ["No arm is above the floors."]
    lowest = {arm: [c.low for c in comparisons if c.arm == arm and c.other in above] for arm in above}
    proven = [above[arm] for arm, lows in lowest.items() if min(lows, default=0.0) > -margin]
    if proven:
        row = min(proven, key=lambda row: (row.cost, -row.mean))
        return row.arm, [f"{described(row)}: the cheapest arm proven to be within {margin:.2f} of the best."]
    if served in above:
        return served, [
            f"{described(above[served])}: no arm is proven to be within {margin:.2f} of the best, so the live arm stays."
        ]
    row = max(above.values(), key=lambda row: (row.mean, -row.cost))
    return row.arm, [f"{described(row)}: no arm is proven to be within {margin:.2f} of the best, so the best mean is taken."]


# --- Champion


def against_champion(
    answers: Sequence[Answer], champion: Report, arm: str, params: GateParams, rule: Rule
) -> tuple[list[Comparison], Resolution, list[str], bool]:
    """Served arm against served arm, paired by question: (the comparison, what it can resolve, sentences, whether proven).

    An unchanged corpus leaves two ways in, a better score or a lower cost; each gets half of alpha, so that a candidate that
    is no different gets in with a chance of alpha at most.
    """
    alpha = params.alpha if rule == "not worse" else params.alpha / 2
    live, pages = champion.of(str(champion.served)), [answer.page for answer in answers]
    weights, sampling = params.primary.model_dump(), (params.resamples, params.seed)
    found = bounds(np.subtract(primaries(answers, weights), primaries(live, weights)), pages, alpha, *sampling)
    saved = np.subtract(costs(live, params.cost), costs(answers, params.cost))
    cheaper = float(bounds(saved, pages, alpha, *sampling, span=0).low[0]) > 0
    comparison = compared([(arm, f"champion ({champion.served})")], found)[0]
    resolved = resolution(float(found.standard_error[0]), found.critical, len(pages), len(set(pages)), params.margin, alpha)
    proven = comparison.low > (0 if rule == "better" and not cheaper else -params.margin)
    sentences = champion_sentences(comparison, rule, params.margin, cheaper, float(saved.mean()), proven)
    return [comparison], resolved, sentences, proven


def changed(answers: Sequence[Answer], champion: Report) -> Changes:
    """Which answers turned. A mean that stays can hide that as many were forgotten as were learnt."""
    live = {answer.question: answer for answer in champion.of(str(champion.served))}
    turned = [answer for answer in answers if answer.right != live[answer.question].right]
    lost, won = ([a.question for a in turned if a.right == right] for right in (False, True))
    return Changes(tuple(lost), tuple(won), {answer.question: answer.text for answer in turned})


def resolve(
    rows: Sequence[ArmRow], pairs: Bounds, comparisons: Sequence[Comparison], pages: Sequence[str], params: GateParams
) -> Resolution:
    """Of the hardest comparison that the choice of the arm rests on: those of the arms above the floors, or else of all."""
    above = {row.arm for row in rows if row.above_floors}
    names = above if len(above) > 1 else {row.arm for row in rows}
    used = [place for place, c in enumerate(comparisons) if {c.arm, c.other} <= names]
    error = float(pairs.standard_error[used].max())
    return resolution(error, pairs.critical, len(pages), len(set(pages)), params.margin, params.alpha)
