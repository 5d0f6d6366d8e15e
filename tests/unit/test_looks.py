"""Looking again and again: the chance of promoting noise over a quarter, and that the same look twice is one."""

from pathlib import Path

import numpy as np
import pytest
from test_gate import PARAMS as GATE
from test_gate import SKILL, champion, report, text

from tasks.gate import decide
from tasks.looks import Glance, alpha_left, look, same_questions, sketch, spent, worn_note
from tasks.paired import enough, sign_flips
from tasks.params_files import load
from tasks.params_verdict import GateParams

SHIPPED = load(GateParams, Path(__file__).parents[2] / "params")
ALPHA, HORIZON = SHIPPED.alpha, SHIPPED.horizon
QUARTERS, PAGES, PER_PAGE = 1000, 40, 5


def test_what_is_left_for_each_look_adds_up_to_alpha_and_nothing_is_left_beyond_the_horizon() -> None:
    left = [alpha_left(number, ALPHA, HORIZON) for number in range(1, HORIZON + 3)]
    assert sum(left) == pytest.approx(ALPHA) == spent(HORIZON, ALPHA, HORIZON)
    assert left[:HORIZON] == sorted(left[:HORIZON], reverse=True) and min(left[:HORIZON]) > 0
    assert left[HORIZON:] == [0.0, 0.0]


def quarters() -> tuple[np.ndarray, np.ndarray]:
    """(pages, quarters * looks): the champion and a new training run every day, equally good and equally dear but for noise; the
    champion's own luck is in all the looks of its quarter."""
    random = np.random.default_rng(1)
    ease = random.beta(3, 1, (PAGES, QUARTERS, 1))
    scores = random.binomial(PER_PAGE, ease.repeat(HORIZON + 1, axis=2)).astype(np.float32)
    costs = random.normal(0, 1, (PAGES, QUARTERS, HORIZON + 1)).astype(np.float32)
    flat = (PAGES, QUARTERS * HORIZON)
    return (scores[:, :, 1:] - scores[:, :, :1]).reshape(flat), (costs[:, :, :1] - costs[:, :, 1:]).reshape(flat)


def test_pure_noise_is_promoted_in_no_more_than_one_quarter_of_twenty() -> None:
    """1,000 quarters of daily retrains on an unchanged corpus, by either way in: a better score or a lower cost."""
    pages = [f"page {number:02}" for number in range(PAGES)]
    allowed = np.tile([alpha_left(number, ALPHA, HORIZON) / 2 for number in range(1, HORIZON + 1)], QUARTERS)
    promoted = np.zeros((QUARTERS, HORIZON), dtype=bool)
    every_day_anew = np.zeros((QUARTERS, HORIZON), dtype=bool)
    for sums in quarters():
        strength = sums.sum(axis=0) / np.sqrt((sums**2).sum(axis=0) + 1e-12)  # of the same order as its p value
        near = strength > 2.6
        chances = sign_flips(sums[:, near].astype(float), pages, enough(2000, allowed.min()), 1)
        proven = np.zeros(len(strength), dtype=bool)
        proven[near] = chances <= allowed[near]
        assert proven.any() and strength[proven].min() > 2.65  # what was not looked at closely could not have been proven
        promoted |= proven.reshape(QUARTERS, HORIZON)
        every_day_anew |= (strength > 1.96).reshape(QUARTERS, HORIZON)
    assert promoted.any(axis=1).mean() <= ALPHA
    assert every_day_anew.any(axis=1).mean() > 0.5  # alpha for each look is no alpha for a quarter


def test_the_same_scores_looked_at_again_are_the_same_look() -> None:
    earlier = [Glance("a", "better"), Glance("b", "not worse"), Glance("c", "better"), Glance("a", "better")]
    again = look("c", "better", [], earlier, 0.05, 90)
    assert (again.number, again.contest) == (3, 2)
    new = look("d", "better", [], earlier, 0.05, 90)
    assert (new.number, new.contest, new.alpha) == (4, 3, alpha_left(3, 0.05, 90))


@pytest.mark.parametrize("count", [10, 300, 5000])
def test_a_set_with_some_new_questions_is_the_same_one_and_one_that_is_mostly_new_is_fresh(count: int) -> None:
    def asked(first: int) -> str:
        return sketch(f"question {number}" for number in range(first, first + count))

    assert len(asked(0)) < 600
    for share, same in ((0, True), (0.1, True), (0.3, True), (0.7, False), (1, False)):
        assert same_questions(asked(0), asked(round(share * count))) == same, share


def test_a_set_that_was_looked_at_too_often_is_said_to_be_worn_out() -> None:
    assert worn_note(look("x", "better", [], [Glance(str(n), "better") for n in range(89)], 0.05, 90)) == []
    said = worn_note(look("x", "better", [], [Glance(str(n), "better") for n in range(90)], 0.05, 90))[0]
    assert "worn out: this is look 91 at them, the horizon in params/gate.yaml is 90 and no alpha is left" in said
    refreshes = worn_note(look("x", "not worse", [], [Glance(str(n), "not worse") for n in range(90)], 0.05, 90))[0]
    assert "look 91" in refreshes and "no alpha" not in refreshes


def test_an_unchanged_corpus_asks_for_more_at_every_look_and_a_changed_one_does_not() -> None:
    worn = [Glance(str(number), "better") for number in range(GATE.horizon)]
    better = report(1), champion(2, skill=SKILL | {"rag+lora": 0.6})
    first = decide(*better, GATE, corpus_changed=False)
    assert first.accepted and first.look and first.look.contest == 1
    assert "look 1 of 90 at these questions on an unchanged corpus, which leaves 0.0026 for each" in " ".join(first.reasons)
    last = decide(*better, GATE, corpus_changed=False, earlier=worn)
    assert (last.accepted, last.decision) == (False, "cannot decide")
    assert "they prove nothing any more; ingest fresh ones" in " ".join(last.reasons)
    assert any("worn out" in note for note in last.notes)
    assert decide(*better, GATE, corpus_changed=True, earlier=worn).accepted


def test_the_very_same_answers_are_judged_too_when_no_alpha_is_left() -> None:
    worn = [Glance(str(number), "better") for number in range(GATE.horizon)]
    verdict = decide(report(1), champion(1), GATE, corpus_changed=False, earlier=worn)
    assert (verdict.decision, verdict.questions_needed) == ("cannot decide", None)
    verdict.to_json()


def test_a_refused_look_counts_and_the_verdict_says_which_it_was() -> None:
    first = decide(report(1), champion(2), GATE, corpus_changed=False)
    assert not first.accepted and first.look is not None
    earlier = [Glance(first.look.mark, "better")]
    assert decide(report(1), champion(2), GATE, corpus_changed=False, earlier=earlier) == first
    second = decide(report(3), champion(2), GATE, corpus_changed=False, earlier=earlier)
    assert second.look is not None and second.look.contest == 2 and second.look.alpha < first.look.alpha
    assert "look 2 of 90" in text(second)
