"""Repeated looks at one set of test questions: who asks it daily is told yes by chance one day, so alpha is spent, not renewed.

Alpha spending (Lan and DeMets 1983) along the power family (Kim and DeMets 1987): after look k of a horizon of H, the share
sqrt(k / H) of alpha is spent, most of it early, while the questions are fresh. Each look is at another candidate, so the shares
simply add up (Bonferroni), which holds whatever their dependence and whatever was promoted between them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import sqrt

from tasks.records import text_digest

SKETCHED = 64  # questions kept of a set: how much two sets share is then known to 0.06
FRESH = 1 / 3  # of all questions of two sets of one size: what they share where half of each is new


@dataclass(frozen=True)
class Glance:
    """An earlier judgement by these very questions. mark: of the scores that were compared; rule: of tasks.verdict."""

    mark: str
    rule: str


@dataclass(frozen=True)
class Look:
    """number: of this judgement among those by these questions; contest: among those that asked for proof of being better.

    alpha: what is left for this one; 0 beyond the horizon, where nothing is proven any more. asked: sketch of the questions.
    """

    number: int
    contest: int
    horizon: int
    alpha: float
    mark: str
    asked: str


def look(mark: str, rule: str, asked: Iterable[str], earlier: Sequence[Glance], alpha: float, horizon: int) -> Look:
    """The same scores looked at again are the same look: they can tell nothing new by chance."""
    known = list(dict.fromkeys(earlier))
    here = Glance(mark, rule)
    before = known[: known.index(here)] if here in known else known
    contest = 1 + sum(glance.rule == "better" for glance in before)
    return Look(len(before) + 1, contest, horizon, alpha_left(contest, alpha, horizon), mark, sketch(asked))


def sketch(questions: Iterable[str]) -> str:
    """Enough of a set to tell how much of it another one shares: its lowest digests (bottom-k sketch: Cohen and Kaplan 2007)."""
    return " ".join(sorted({text_digest(question)[:8] for question in questions})[:SKETCHED])


def same_questions(one: str, other: str) -> bool:
    """Whether two sketches are of one set, for the most part: a set to which a question was added is no fresh one."""
    left, right = set(one.split()), set(other.split())
    lowest = set(sorted(left | right)[:SKETCHED])
    return len(lowest & left & right) >= FRESH * len(lowest)


def alpha_left(contest: int, alpha: float, horizon: int) -> float:
    """For this look alone; over the horizon these add up to alpha."""
    return spent(contest, alpha, horizon) - spent(contest - 1, alpha, horizon)


def spent(contest: int, alpha: float, horizon: int) -> float:
    return alpha * sqrt(min(contest, horizon) / horizon)


def look_sentence(found: Look, chance: float, cheaper: float) -> str:
    """Of a contest: what chance says of the two ways in, and what it may say."""
    said = f"Chance alone would make it look so much better with p = {chance:.2g}, so much cheaper with p = {cheaper:.2g}"
    where = f"look {found.contest} of {found.horizon} at these questions on an unchanged corpus"
    return f"{said}; this is {where}, which leaves {found.alpha / 2:.2g} for each."


def worn_note(found: Look) -> list[str]:
    """Worn out is a set that judged as often as was planned for: what is chosen by it fits it, by and by."""
    if max(found.number, found.contest) <= found.horizon:
        return []
    spent_all = " and no alpha is left for another proof that a candidate is better" if found.contest > found.horizon else ""
    return [
        f"The test questions are worn out: this is look {found.number} at them, the horizon in params/gate.yaml is "
        f"{found.horizon}{spent_all}. Ingest fresh questions: a set of which half is new starts with all of alpha."
    ]
