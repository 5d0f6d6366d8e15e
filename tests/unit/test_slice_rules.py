"""The rule on slices: noise loses none of them, a fall of one is seen, small ones are shown only."""

from pathlib import Path

import numpy as np
import pytest

from tasks.params_files import load
from tasks.params_verdict import GateParams
from tasks.reports import Answer
from tasks.slice_rules import against_slices, lost_sentences, slice_rows, slices_note

PARAMS = load(GateParams, Path(__file__).parents[2] / "params").model_copy(update={"resamples": 1000})
FOLDERS, PAGES, PER_PAGE = 6, 12, 4
RANDOM = np.random.default_rng(1)
EASE = RANDOM.beta(3, 1, (FOLDERS * PAGES, 1)).repeat(PER_PAGE, axis=0)[:, 0]
KINDS = RANDOM.integers(0, 3, len(EASE))  # slices that cross the folders
LENGTHS = RANDOM.integers(0, 3, len(EASE))
ANSWERS = [
    Answer(f"q{n:03}", f"folder{n // PER_PAGE // PAGES}/page{n // PER_PAGE}", "rag", {}, 1, 1,
           slices=(f"folder {n // PER_PAGE // PAGES}", f"answer {KINDS[n]}", f"question {LENGTHS[n]}", "all of them"))
    for n in range(len(EASE))
]  # fmt: skip
FIRST = np.array(["folder 0" in answer.slices for answer in ANSWERS])


def noise(seed: int, fall: float = 0.0, same: float = 0.0) -> np.ndarray:
    """Two equally good sets of answers, minus each other. fall: taken from the chance of a right one in the first folder.
    same: share of the questions with one and the same answer, as of a refresh (on the demo's day two: 0.94)."""
    random = np.random.default_rng(seed)
    before = random.random(len(EASE)) < EASE
    again = np.where(random.random(len(EASE)) < same, before, random.random(len(EASE)) < EASE)
    return (again & ~(FIRST & (random.random(len(EASE)) < fall / EASE))).astype(float) - before


def test_noise_loses_a_slice_no_more_often_than_alpha() -> None:
    found = [against_slices(ANSWERS, noise(seed), PARAMS) for seed in range(400)]
    assert {len(comparisons) for comparisons in found} == {FOLDERS + 3 + 3}  # that of all questions is no slice
    by_chance = np.mean([min(c.adjusted for c in comparisons) <= PARAMS.alpha for comparisons in found])
    refused = np.mean([any(c.lost for c in comparisons) for comparisons in found])
    assert refused <= by_chance <= 0.05 + 0.025  # alpha, and two standard errors of 400 runs


@pytest.mark.parametrize(("fall", "same"), [(0.4, 0.94), (0.6, 0.0)])
def test_a_topic_that_fell_is_seen_though_the_whole_hardly_moved(fall: float, same: float) -> None:
    """48 questions of 288 from 12 pages: a fall of 0.4 there is one of 0.07 on the whole, which the margin of 0.10 lets through.
    The noisier the pair and the fewer the pages, the larger a fall has to be; one of 0.25 was seen in 56 of 100 alike pairs."""
    found = [against_slices(ANSWERS, noise(seed, fall, same), PARAMS) for seed in range(100)]
    assert np.mean([any(c.lost and c.name == "folder 0" for c in comparisons) for comparisons in found]) >= 0.95


def test_a_slice_of_few_questions_is_shown_and_not_judged() -> None:
    few = PARAMS.model_copy(update={"slice_questions": 100})
    assert {c.name for c in against_slices(ANSWERS, noise(1), few)} <= {"answer 0", "answer 1", "answer 2", "question 0",
                                                                        "question 1", "question 2"}  # fmt: skip
    none = PARAMS.model_copy(update={"slice_questions": 1000})
    assert against_slices(ANSWERS, noise(1), none) == ()
    assert slices_note((), 1000) == []


def test_a_fall_within_the_margin_loses_nothing_however_sure_it_is() -> None:
    found = against_slices(ANSWERS, np.where(FIRST, -0.09, 0.0), PARAMS)
    fell = next(c for c in found if c.name == "folder 0")
    assert fell.adjusted < 0.05 and not fell.lost
    assert "the lowest is 'folder 0' at -0.09" in slices_note(found, 20)[0]


def test_a_lost_slice_is_named_with_its_questions_and_its_chance() -> None:
    found = against_slices(ANSWERS, np.where(FIRST, -0.5, 0.0), PARAMS)
    said = lost_sentences(found, PARAMS.margin)
    assert len(said) == 1 and slices_note(found, 20) == []
    assert "On the slice 'folder 0' (48 questions from 12 sources) it is 0.50 worse than the champion" in said[0]


def test_every_slice_and_arm_has_a_mean_with_an_interval_of_its_own() -> None:
    right = (EASE > 0.5).astype(float)
    rows = slice_rows(ANSWERS, {"rag": right.tolist(), "lora": (1 - right).tolist()}, PARAMS)
    row = next(row for row in rows if (row.name, row.arm) == ("folder 0", "rag"))
    assert (row.questions, row.pages) == (48, 12)
    assert row.mean == pytest.approx(right[FIRST].mean())
    assert row.low < row.mean < row.high
    assert len(rows) == 2 * (FOLDERS + 3 + 3 + 1)
