"""The gate's verdict, and its words: short sentences with numbers, for someone who decides and does not compute."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from typing import Any, Literal

from tasks.looks import Look
from tasks.params_verdict import Floors
from tasks.records import flat
from tasks.statistics import Resolution

Rule = Literal["first release", "not worse", "better"]
Decision = Literal["accepted", "refused", "cannot decide"]


@dataclass(frozen=True)
class ArmRow:
    """An arm on the test questions: primary score with its interval, the means that have a floor, cost in token equivalents."""

    arm: str
    mean: float
    low: float
    high: float
    fact: float | None
    abstention: float | None
    cost: float
    above_floors: bool


@dataclass(frozen=True)
class Comparison:
    """`arm` minus `other` in the primary score, with bounds that hold for all pairs of their family at once.

    won, lost: questions that only `arm`, only `other` has right. chance: exact p of McNemar on these, adjusted: by Holm over the
    family. effect: in standard deviations of the differences, None where all are equal. says: all of it in one sentence.
    """

    arm: str
    other: str
    difference: float
    low: float
    high: float
    won: int
    lost: int
    chance: float
    adjusted: float
    effect: float | None
    says: str = ""


@dataclass(frozen=True)
class SliceRow:
    """An arm on one slice of the test questions: primary score with its interval, which holds for this slice alone."""

    name: str
    arm: str
    questions: int
    pages: int
    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class SliceComparison:
    """Candidate minus champion on one slice. chance: p of such a fall by chance, adjusted: as one of so many slices (Holm)."""

    name: str
    questions: int
    pages: int
    difference: float
    chance: float
    adjusted: float
    lost: bool


@dataclass(frozen=True)
class Changes:
    """Ids of the questions that the champion's arm had right and the candidate's has wrong, and the reverse; their texts."""

    lost: tuple[str, ...]
    won: tuple[str, ...]
    texts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Verdict:
    """`reasons` say why it was accepted or, all of them, why not; `notes` hold what else a reader should know.

    decision: "cannot decide" where nothing speaks against the candidate but that these questions are too few to tell.

    arm: the arm to serve, None where none could be chosen. smallest_difference and questions_needed: what this test set can
    resolve, and how many questions the margin needs; None where that is unknown or infinite.
    """

    accepted: bool
    arm: str | None
    reasons: tuple[str, ...]
    notes: tuple[str, ...]
    comparisons: tuple[Comparison, ...]
    arms: tuple[ArmRow, ...]
    smallest_difference: float | None
    questions_needed: int | None
    thresholds: Mapping[str, Any]
    changes: Changes = Changes((), ())
    slices: tuple[SliceRow, ...] = ()
    champion_slices: tuple[SliceComparison, ...] = ()  # those with enough questions
    decision: Decision = "refused"
    look: Look | None = None  # None without a champion

    def to_json(self) -> str:
        """Readable, sorted, whole; an infinite bound is null."""
        return json.dumps(finite(asdict(self)), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n"


def below_floors(rows: Sequence[ArmRow], floors: Floors) -> list[str]:
    return [f"{row.arm} is not served: {shortfalls(row, floors)}." for row in rows if not row.above_floors]


def shortfalls(row: ArmRow, floors: Floors) -> str:
    values = {"primary": (row.mean, floors.primary), "fact": (row.fact, floors.fact)}
    values["abstention"] = (row.abstention, floors.abstention)
    return ", ".join(
        f"{name} {0.0 if value is None else value:.3f} is below the floor {floor}"
        for name, (value, floor) in values.items()
        if floor > 0 and (value is None or value < floor)
    )


def distances(rows: Sequence[ArmRow], comparisons: Sequence[Comparison], arm: str | None) -> list[str]:
    """How the other arms compare with the chosen one; without one, what each arm scored."""
    if arm is None:
        return [f"{described(row)}." for row in rows]
    others = {row.arm: row for row in rows if row.arm != arm}
    return [f"{described(others[c.arm])}; {spread(c)} than {arm}." for c in comparisons if c.other == arm and c.arm in others]


def described(row: ArmRow) -> str:
    return f"{row.arm} scores {row.mean:.2f} ({row.low:.2f} to {row.high:.2f}) at {row.cost:.0f} token equivalents per answer"


def spread(comparison: Comparison) -> str:
    """0.31 worse (0.37 worse to 0.25 worse)"""
    return f"{signed(comparison.difference)} ({signed(comparison.low)} to {signed(comparison.high)})"


def signed(value: float) -> str:
    if not isfinite(value):
        return "unlimited"
    return f"{abs(value):.2f} {'better' if value >= 0.005 else 'worse' if value <= -0.005 else 'apart'}"


def champion_sentences(comparison: Comparison, rule: Rule, margin: float, cheaper: bool, saved: float, proven: bool) -> list[str]:
    measured = f"Against the {comparison.other}, {comparison.arm} is {spread(comparison)}"
    price = (
        f"costs {abs(saved):.1f} token equivalents {'less' if saved > 0 else 'more'} per answer" if saved else "costs the same"
    )
    if rule == "not worse":
        wanted = f"the corpus changed, so it has to be no more than {margin:.2f} worse"
    elif cheaper:
        wanted = f"the corpus is unchanged, but it {price}, so it has to be no more than {margin:.2f} worse"
    else:
        wanted = f"the corpus is unchanged and no saving is proven (it {price}), so it has to be better"
    if proven:
        return [f"{measured}: {wanted}, which is proven."]
    worse = comparison.high < (0 if rule == "better" and not cheaper else -margin)
    return [f"{measured}: {wanted}, which is {'not so' if worse else 'not proven; these questions cannot tell'}."]


def open_sentence(resolved: Resolution, questions: int, margin: float, alpha: float) -> str:
    """What would settle it."""
    if alpha == 0:
        return "Cannot decide: these questions were asked so often that they prove nothing any more; ingest fresh ones."
    needed = known(resolved.questions_needed)
    if needed is None:
        return f"Cannot decide: {questions} questions from so few sources show nothing; ask about more pages."
    if needed <= questions:
        return (
            f"Cannot decide: {questions} questions resolve the margin of {margin:.2f}, but this is near its edge; add questions."
        )
    return f"Cannot decide: {questions} questions are too few, about {needed:.0f} would be needed for the margin of {margin:.2f}."


def under_changed_gate(verdict: Verdict, before: Mapping[str, Any]) -> Verdict:
    """The verdict, which says so where its thresholds are not those (`before`) by which the live release was judged: among the
    reasons where the candidate passes, as it may pass for that alone."""
    now, then = (
        flat({name: value for name, value in each.items() if name not in ("rule", "questions")})  # those are of the judgement
        for each in (verdict.thresholds, before)
    )
    names = sorted(name for name in now.keys() | then.keys() if now.get(name) != then.get(name))
    if not names:
        return verdict
    told = "; ".join(f"{name} was {then.get(name, 'not there')} and is {now.get(name, 'not there')}" for name in names)
    said = f"The gate is not the one by which the live release was judged (params/gate.yaml): {told}."
    if verdict.accepted:
        return replace(verdict, reasons=(*verdict.reasons, said))
    return replace(verdict, notes=(*verdict.notes, said))


def changes_notes(changes: Changes, left_out: Collection[str]) -> list[str]:
    found = []
    if changes.lost or changes.won:
        lost, won = (examples(names, changes.texts) for names in (changes.lost, changes.won))
        found.append(f"Right in the champion and wrong now: {lost}. Wrong then and right now: {won}.")
    if left_out:
        learnt = "its adapter was trained on them or on their pages"
        found.append(f"{len(left_out)} questions are not compared with the champion: {learnt}.")
    return found


def examples(names: Sequence[str], texts: Mapping[str, str], most: int = 3) -> str:
    """`12 questions ("How warm is ...?" [q7], ...)`"""
    shown = ", ".join(f'"{texts[name]}" [{name}]' if texts.get(name) else name for name in names[:most])
    more = ", ..." if len(names) > most else ""
    return f"{len(names)} questions ({shown}{more})" if names else "none"


def resolution_note(resolved: Resolution, questions: int, sources: int, margin: float) -> str:
    held = f"{questions} questions from {sources} sources"
    if known(resolved.smallest_difference) is None:
        return f"{held} resolve no difference at all."
    needed = f"the margin of {margin:.2f} needs about {resolved.questions_needed:.0f} questions"
    return f"{held} resolve differences of {resolved.smallest_difference:.2f} or more (with 80 % power); {needed}."


def known(value: float) -> float | None:
    return value if isfinite(value) else None


def finite(value: Any) -> Any:
    """The same value with None for every infinite number, which JSON cannot hold."""
    if isinstance(value, dict):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return known(value) if isinstance(value, float) else value
