"""What is told of two sets of answers to the same questions."""

import numpy as np
import pytest

from tasks.comparisons import compared, effect, sentence, split
from tasks.paired import mcnemar
from tasks.statistics import bounds
from tasks.verdict import Comparison

PAGES = [f"page {number // 2}" for number in range(80)]
RIGHT = {
    "rag": [n % 10 != 0 for n in range(80)],
    "lora": [n % 2 == 0 for n in range(80)],
    "prompt": [n % 2 == 0 for n in range(80)],
}
NAMES = [("rag", "lora"), ("lora", "rag"), ("rag", "prompt"), ("prompt", "rag"), ("lora", "prompt"), ("prompt", "lora")]


def comparisons() -> dict[tuple[str, str], Comparison]:
    values = np.array([np.subtract(RIGHT[a], RIGHT[b], dtype=float) for a, b in NAMES]).T
    return dict(zip(NAMES, compared(NAMES, bounds(values, PAGES, 0.05, 500, 1), values, RIGHT), strict=True))


def test_only_the_questions_that_one_side_alone_has_right_are_counted() -> None:
    assert split(RIGHT["rag"], RIGHT["lora"]) == (40, 8)
    assert split([True, True, False], [True, True, False]) == (0, 0)


def test_a_pair_is_told_both_ways_and_counted_once_in_its_family() -> None:
    found = comparisons()
    there, back = found["rag", "lora"], found["lora", "rag"]
    assert (there.won, there.lost, there.difference) == (back.lost, back.won, -back.difference)
    assert there.chance == back.chance == mcnemar(40, 8)
    assert there.adjusted == back.adjusted == pytest.approx(3 * mcnemar(40, 8))  # three pairs, not six
    assert found["lora", "prompt"].adjusted == 1.0
    assert found["lora", "prompt"].effect is None


def test_every_comparison_has_a_plain_sentence() -> None:
    found = comparisons()
    said = found["rag", "lora"].says
    assert said.startswith("rag against lora: 0.40 better (")
    assert "proven to be better, a medium effect (+0.60 standard deviations)" in said
    assert "of 80 questions 40 are right only in rag, 8 only in lora (McNemar's p = 9.9e-06)" in said
    assert "not proven either way; of 80 questions 0 are right only in lora" in found["lora", "prompt"].says
    assert found["lora", "rag"].says == sentence(found["lora", "rag"], 80) != said
    assert "proven to be worse, a medium effect (-0.60" in found["lora", "rag"].says


@pytest.mark.parametrize(("size", "word"), [(0.1, "negligible"), (-0.3, "small"), (0.5, "medium"), (-2.0, "large")])
def test_an_effect_has_a_word(size: float, word: str) -> None:
    assert f"a {word} effect ({size:+.2f} standard deviations)" in effect(size)
