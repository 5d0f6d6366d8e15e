import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import InputError, IntegrityError
from tasks.search import (
    MAX_QUESTION_CHARACTERS,
    Ranking,
    check_embedder,
    checked_question,
    fuse,
    fused,
    normalised,
    ranked,
    ratios,
    reciprocal_ranks,
    widened,
)

LEGS = st.dictionaries(st.sampled_from("abcdefgh"), st.floats(-100, 100), max_size=8).map(
    lambda scores: sorted(scores.items(), key=lambda pair: (-pair[1], pair[0]))
)
IDENTITY = {
    "source": "builtin",
    "id": "",
    "digest": "a" * 64,
    "dimension": 384,
    "pooling": "mean",
    "query_prompt": "",
    "passage_prompt": "",
    "fingerprint": [0.1, 0.2],
}


FUSIONS = st.sampled_from(["ratio", "minmax"])


@given(text=LEGS, vector=LEGS, weight=st.floats(0.01, 0.99), fusion=FUSIONS)
def test_fusion_keeps_every_passage_once_best_first_within_zero_and_one(
    text: Ranking, vector: Ranking, weight: float, fusion: str
) -> None:
    fused = fuse(text, vector, weight, fusion)
    assert sorted(key for key, _ in fused) == sorted({key for key, _ in [*text, *vector]})
    scores = [score for _, score in fused]
    assert scores == sorted(scores, reverse=True)
    assert all(-1e-9 <= score <= 1 + 1e-9 for score in scores)


@given(text=LEGS, vector=LEGS)
def test_a_weight_of_zero_or_one_is_one_leg_alone(text: Ranking, vector: Ranking) -> None:
    assert fuse(text, vector, 0.0, "ratio") == vector
    assert fuse(text, vector, 1.0, "ratio") == (text or vector)


@given(leg=LEGS, factor=st.floats(0.5, 4), shift=st.floats(-10, 10))
def test_a_legs_own_scale_does_not_decide_its_weight(leg: Ranking, factor: float, shift: float) -> None:
    moved = [(key, factor * score + shift) for key, score in leg]
    one, two = normalised(leg), normalised(moved)
    spread = max((score for _, score in leg), default=0) - min((score for _, score in leg), default=0)
    if spread > 1e-3:
        assert all(math.isclose(one[key], two[key], abs_tol=1e-6) for key in one)


@given(text=LEGS, vector=LEGS, weight=st.sampled_from([0.125, 0.25, 0.5, 0.75]))
def test_fusion_does_not_know_which_leg_is_which(text: Ranking, vector: Ranking, weight: float) -> None:
    assert fuse(text, vector, weight, "minmax") == fuse(vector, text, 1 - weight, "minmax")
    assert reciprocal_ranks(text, vector) == reciprocal_ranks(vector, text)


@given(text=LEGS, vector=LEGS, factor=st.floats(0.5, 4))
def test_reciprocal_ranks_see_places_only_and_keep_every_passage_once(text: Ranking, vector: Ranking, factor: float) -> None:
    found = reciprocal_ranks(text, vector)
    assert sorted(key for key, _ in found) == sorted({key for key, _ in [*text, *vector]})
    assert found == reciprocal_ranks([(key, factor * score) for key, score in text], vector)
    both = {key for key, _ in text} & {key for key, _ in vector}
    assert all((score > 1 / 61) == (key in both) for key, score in found)


def test_reciprocal_ranks_as_in_the_paper() -> None:
    """Cormack et al. 2009, equation 1 with k = 60, worked by hand: a is 1st and 3rd, b 2nd and 1st, c 3rd, d 2nd."""
    found = reciprocal_ranks([("a", 9.0), ("b", 8.0), ("c", 7.0)], [("b", 0.9), ("d", 0.8), ("a", 0.7)])
    assert [key for key, _ in found] == ["b", "a", "d", "c"]
    expected = [1 / 62 + 1 / 61, 1 / 61 + 1 / 63, 1 / 62, 1 / 63]
    assert [score for _, score in found] == pytest.approx(expected)


def test_settings_choose_the_fusion_and_those_of_old_releases_mean_minmax() -> None:
    text, vector = [("a", 9.0), ("b", 0.0)], [("c", 0.0), ("b", -0.1)]
    for fusion in ("ratio", "minmax"):
        assert fused(text, vector, {"fusion": fusion, "text_weight": 0.25}) == fuse(text, vector, 0.25, fusion)
    assert fused(text, vector, {"text_weight": 0.25}) == fuse(text, vector, 0.25, "minmax")
    assert fused(text, vector, {"fusion": "rrf", "text_weight": 0.5})[0][0] == "b"
    assert fused(text, vector, {"fusion": "none", "text_weight": 0.0}) == vector


def test_ratios_are_of_bm25_and_of_the_cosine() -> None:
    """Distances of 0.2 and 0.6 are cosines of 0.8 and 0.4."""
    found = dict(fuse([("a", 8.0), ("b", 2.0)], [("b", -0.2), ("c", -0.6)], 0.5, "ratio"))
    assert found == pytest.approx({"a": 0.5, "b": 0.5 * 0.25 + 0.5 * 1.0, "c": 0.5 * 0.5})


@given(leg=LEGS, more=st.floats(0, 1))
def test_ratios_do_not_depend_on_how_many_candidates_there_are(leg: Ranking, more: float) -> None:
    kept = leg[: 1 + int(more * len(leg))]
    assert ratios(kept) == {key: ratios(leg)[key] for key, _ in kept}


def test_ratios_of_a_leg_that_finds_nothing_alike_are_zero() -> None:
    assert ratios([]) == {} and ratios([("a", 0.0), ("b", -0.5)]) == {"a": 0.0, "b": 0.0}


def test_a_passage_that_one_leg_did_not_find_scores_nothing_there() -> None:
    fused = dict(fuse([("a", 9.0), ("b", 1.0)], [("c", 0.9), ("b", 0.1)], 0.25, "minmax"))
    assert fused == {"a": 0.25, "b": 0.0, "c": 0.75}


def test_ties_go_by_id_so_that_two_builds_rank_alike() -> None:
    rows = [{"id": "b", "_score": 1.0}, {"id": "c", "_score": 2.0}, {"id": "a", "_score": 1.0}]
    assert [key for key, _ in ranked(rows, "_score", 1.0)] == ["c", "a", "b"]
    assert [key for key, _ in ranked(rows, "_score", -1.0)] == ["a", "b", "c"]
    assert fuse([("b", 1.0), ("a", 1.0)], [("a", 1.0), ("b", 1.0)], 0.5, "minmax")[0][0] == "a"


@pytest.mark.parametrize("question", ["", "  \n ", "\x00"])
def test_an_empty_question_says_how_to_ask(question: str) -> None:
    with pytest.raises(InputError, match="tandem ask"):
        checked_question(question)


def test_a_question_is_bounded_and_cleaned() -> None:
    assert checked_question(" Why\x00not? ") == "Why not?"
    assert len(checked_question("x" * MAX_QUESTION_CHARACTERS)) == MAX_QUESTION_CHARACTERS
    with pytest.raises(InputError, match="8001 characters"):
        checked_question("x" * (MAX_QUESTION_CHARACTERS + 1))


OTHERS = {
    "digest": "b" * 64,
    "dimension": 385,
    "pooling": "cls",
    "query_prompt": "q",
    "passage_prompt": "p",
    "fingerprint": [0.3, 0.2],
}


@pytest.mark.parametrize(("key", "value"), OTHERS.items())
def test_another_embedder_than_the_indexs_is_refused_with_the_way_out(key: str, value: object) -> None:
    check_embedder(IDENTITY, IDENTITY)
    with pytest.raises(IntegrityError, match="dvc repro index"):
        check_embedder(IDENTITY, IDENTITY | {key: value})


def test_the_order_of_the_prompt_is_kept_while_ten_passages_are_ranked() -> None:
    assert widened({"k": 2, "text_weight": 0.5}) == {"k": 10, "text_weight": 0.5}
    assert widened({"k": 12}) == {"k": 12}
