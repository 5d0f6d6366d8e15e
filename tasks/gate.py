"""The gate: may this candidate go live, and with which arm? Pure, and closed in doubt. The rule: architecture.md, section 6."""

from collections.abc import Mapping, Sequence
from itertools import permutations
from math import inf
from typing import Any

import numpy as np

from tasks.champion import duel
from tasks.comparisons import compared
from tasks.looks import Glance, worn_note
from tasks.params import ARMS
from tasks.params_verdict import GateParams
from tasks.reports import Report, faults
from tasks.slice_rules import slice_rows
from tasks.statistics import Bounds, Resolution, bounds, intervals, resolution
from tasks.verdict import (
    ArmRow,
    Changes,
    Comparison,
    Decision,
    Rule,
    Verdict,
    below_floors,
    changes_notes,
    described,
    distances,
    known,
    resolution_note,
)
from tasks.worth import cost, costs, mean_of, primaries

__all__ = ["Verdict", "cost", "decide"]

Columns = dict[str, list[float]]  # arm -> primary score of every question, in the order of the question ids


def decide(
    candidate: Report, champion: Report | None, params: GateParams, corpus_changed: bool, earlier: Sequence[Glance] = ()
) -> Verdict:
    """Judge a candidate against its own arms, the floors and the champion's served arm.

    earlier: the judgements by these very test questions so far. Deterministic. Whatever is missing, doubled, NaN or measured on
    other questions is a refusal with all its reasons;
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
    return judge(candidate, champion, params, rule, thresholds, earlier)


def judge(
    candidate: Report, champion: Report | None, params: GateParams, rule: Rule, thresholds: Mapping[str, Any],
    earlier: Sequence[Glance],
) -> Verdict:  # fmt: skip
    """`decide` for evidence that is sound."""
    weights, pages = params.primary.model_dump(), [answer.page for answer in candidate.of(ARMS[0])]
    columns: Columns = {arm: primaries(candidate.of(arm), weights) for arm in ARMS}
    rows = arm_rows(candidate, columns, pages, params)
    rights: dict[str, list[bool]] = {arm: [answer.right for answer in candidate.of(arm)] for arm in ARMS}
    pairs, comparisons = all_pairs(columns, rights, pages, params)
    arm, reasons = choose(rows, comparisons, params.margin, champion.served if champion else None)
    resolved, against = resolve(rows, pairs, comparisons, pages, params), None
    too_few, refusals = few_questions(pages, resolved, params), recall_faults(candidate, params)
    if arm is None:
        refusals += reasons + below_floors(rows, params.floors)
    elif champion is not None:
        answers = [answer for answer in candidate.of(arm) if answer.question not in champion.left_out]
        pages = [answer.page for answer in answers]
        against = duel(answers, champion, arm, params, rule, earlier)
        resolved = against.resolved
        comparisons.append(against.comparison)
        (reasons if against.proven else too_few if against.open else refusals).extend(against.why)
        refusals += against.lost
    decision: Decision = "refused" if refusals else "cannot decide" if too_few else "accepted"
    refusals += too_few
    notes = [*(reasons if refusals else []), *below_floors(rows, params.floors), *distances(rows, comparisons, arm)]
    if against and champion:
        notes += [*against.notes, *worn_note(against.look), *changes_notes(against.changes, champion.left_out)]
    needed = known(resolved.questions_needed)
    notes.append(resolution_note(resolved, len(pages), len(set(pages)), params.margin))
    return Verdict(
        accepted=not refusals,
        arm=arm,
        reasons=tuple(refusals or reasons),
        notes=tuple(note for note in notes if note not in refusals),
        comparisons=tuple(comparisons),
        arms=rows,
        smallest_difference=known(resolved.smallest_difference),
        questions_needed=None if needed is None else int(max(needed, params.min_questions if too_few else 0)),
        thresholds=thresholds,
        changes=against.changes if against else Changes((), ()),
        slices=slice_rows(candidate.of(ARMS[0]), columns, params),
        champion_slices=against.slices if against else (),
        decision=decision,
        look=against.look if against else None,
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


def all_pairs(
    columns: Columns, rights: Mapping[str, Sequence[bool]], pages: Sequence[str], params: GateParams
) -> tuple[Bounds, list[Comparison]]:
    """Every arm minus every other, bounded at once: whichever arm is truly the best, its comparison is among them."""
    names = list(permutations(columns, 2))
    values = np.array([np.subtract(columns[arm], columns[other]) for arm, other in names]).T
    found = bounds(values, pages, params.alpha, params.resamples, params.seed)
    return found, compared(names, found, values, rights)


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


def resolve(
    rows: Sequence[ArmRow], pairs: Bounds, comparisons: Sequence[Comparison], pages: Sequence[str], params: GateParams
) -> Resolution:
    """Of the hardest comparison that the choice of the arm rests on: those of the arms above the floors, or else of all."""
    above = {row.arm for row in rows if row.above_floors}
    names = above if len(above) > 1 else {row.arm for row in rows}
    used = [place for place, c in enumerate(comparisons) if {c.arm, c.other} <= names]
    error = float(pairs.standard_error[used].max())
    return resolution(error, pairs.critical, len(pages), len(set(pages)), params.margin, params.alpha)
