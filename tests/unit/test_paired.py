"""p values against known answers: textbooks, scipy, and what simulation says they must be."""

import numpy as np
import pytest
from scipy.stats import binomtest, permutation_test

from tasks.paired import effect_size, enough, holm, mcnemar, sign_flips


def pages_of(count: int, questions: int = 1) -> list[str]:
    return [f"page {number // questions:04}" for number in range(count * questions)]


def test_flipping_signs_gives_the_exact_chance_that_scipy_counts() -> None:
    values = np.array([0.3, -0.1, 0.4, 0.2, 0.6, -0.2, 0.1, 0.5])
    exact = permutation_test(
        (values,), lambda x, axis: x.mean(axis=axis), permutation_type="samples", alternative="greater", n_resamples=np.inf
    )
    assert sign_flips(values, pages_of(8), 40_000, 1) == pytest.approx([exact.pvalue], abs=0.003)


def test_a_page_is_flipped_as_a_whole() -> None:
    """Ten pages that all say yes are ten yeses, however many questions each has."""
    for questions in (1, 8):
        chance = sign_flips(np.ones(10 * questions), pages_of(10, questions), 40_000, 1)
        assert chance == pytest.approx([1 / 2**10], abs=0.0005)


def test_no_difference_and_a_worse_one_are_no_evidence() -> None:
    values = np.stack([np.zeros(20), -np.ones(20)], axis=1)
    assert sign_flips(values, pages_of(20), 500, 1).tolist() == [1.0, 1.0]


@pytest.mark.parametrize(("count", "alpha"), [(8, 0.05), (40, 0.05), (40, 0.01)])
def test_noise_falls_below_alpha_no_more_often_than_alpha(count: int, alpha: float) -> None:
    """Binary, correlated within pages, and few pages: where a bootstrap is too sure."""
    random = np.random.default_rng(1)
    ease = random.beta(3, 1, (count, 4000)).repeat(3, axis=0)
    values = (random.random(ease.shape) < ease).astype(float) - (random.random(ease.shape) < ease)
    found = sign_flips(values, pages_of(count, 3), 1000, 1)
    assert (found <= alpha).mean() <= alpha + 3 * np.sqrt(alpha / 4000)


def test_resamples_are_enough_for_the_smallest_alpha() -> None:
    assert [enough(2000, alpha) for alpha in (0.05, 0.01, 0.001, 0.0)] == [2000, 2000, 20000, 2000]


def test_holm_adjusts_as_in_the_textbook() -> None:
    """Holm 1979; the numbers are those of R's p.adjust(c(0.01, 0.04, 0.03, 0.005), "holm")."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_is_seldom_wrong_anywhere_in_a_family() -> None:
    chances = np.random.default_rng(2).random((2000, 12))
    wrong = np.mean([min(holm(row)) <= 0.05 for row in chances.tolist()])
    assert wrong <= 0.05 + 0.015
    assert np.mean(chances.min(axis=1) <= 0.05) > 0.4  # twelve looks at 5 % are not one


@pytest.mark.parametrize(("won", "lost", "chance"), [(0, 0, 1.0), (10, 10, 1.0), (5, 0, 0.0625), (12, 2, 0.012939453125)])
def test_mcnemar_is_the_exact_binomial(won: int, lost: int, chance: float) -> None:
    assert mcnemar(won, lost) == mcnemar(lost, won) == pytest.approx(chance)
    if won + lost:
        assert mcnemar(won, lost) == binomtest(won, won + lost, 0.5).pvalue


def test_an_effect_is_told_in_standard_deviations_of_the_differences() -> None:
    assert effect_size(np.array([0.0, 1.0, 1.0, 0.0])) == pytest.approx(0.5 / np.std([0, 1, 1, 0], ddof=1))
    assert effect_size(np.ones(5)) is None
    assert effect_size(np.ones(1)) is None
