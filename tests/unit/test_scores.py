"""What an answer is worth, by examples that people would agree on."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import InputError
from tasks.facts import contains_fact
from tasks.params_files import load
from tasks.params_verdict import EvaluateParams
from tasks.scores import (
    ScoringRules,
    primary,
    retrieval_scores,
    score,
    scoring_rules,
    squad_tokens,
    style_score,
    token_f1,
)

PARAMS = Path(__file__).parents[2] / "params"
ABSTENTION = ["do(es)? not say", "do(es)? not know"]
PASSAGES = [
    {"id": "a", "document": "leave/sick", "heading": "Sick leave", "text": "Call before 10:30.", "score": 0.3},
    {"id": "b", "document": "leave/annual", "heading": "Annual leave", "text": "You get 27 days.", "score": 0.9},
]
WEIGHTS = {"fact": 0.6, "citation": 0.2, "style": 0.2}


@pytest.fixture(scope="module")
def rules() -> ScoringRules:
    return scoring_rules(ABSTENTION, load(EvaluateParams, PARAMS).style)


def answered(answer: str, rules: ScoringRules) -> dict[str, float | None]:
    """To a question that leave/annual answers with `27 days`."""
    return score(answer, "At Larkfield it is 27 days.", "27 days", "leave/annual", PASSAGES, rules)


def not_in_corpus(answer: str, rules: ScoringRules) -> dict[str, float | None]:
    return score(answer, "The handbook does not say.", None, None, PASSAGES, rules)


def test_the_right_answer_in_the_house_voice_with_its_source_scores_full_marks(rules: ScoringRules) -> None:
    scores = answered("At Larkfield it is 27 days [2].", rules)
    assert scores.pop("abstained") == 0
    assert set(scores.values()) == {1.0}
    assert primary(scores, WEIGHTS) == 1


def test_facts_citations_and_style_are_scored_apart(rules: ScoringRules) -> None:
    bare = answered("27 days", rules)
    assert (bare["fact"], bare["exact_match"], bare["token_f1"], bare["citation"], bare["style"]) == (1, 1, 1, 0, 0)
    styled = answered("At Larkfield it is 14 days [2].", rules)
    assert (styled["fact"], styled["exact_match"], styled["token_f1"]) == (0, 0, 0.5)
    assert (styled["citation"], styled["style"]) == (1, 1)
    assert primary(styled, WEIGHTS) == pytest.approx(0.4)


def test_an_abstention_is_right_only_where_the_corpus_is_silent(rules: ScoringRules) -> None:
    silent = "The handbook does not say."
    assert answered(silent, rules)["fact"] == 0
    assert answered(f"{silent} It is 27 days.", rules)["fact"] == 0
    scores = not_in_corpus(silent, rules)
    assert (scores["fact"], scores["abstained"], scores["citation"], scores["citation_recall"]) == (1, 1, 1, None)
    assert not_in_corpus("At Larkfield it is 27 days [2].", rules)["fact"] == 0


def test_a_question_that_nothing_answers_wants_no_citation(rules: ScoringRules) -> None:
    scores = not_in_corpus("The handbook does not say [1].", rules)
    assert (scores["citation"], scores["citation_precision"]) == (0, 0)


@pytest.mark.parametrize(
    ("answer", "citation", "precision", "recall"),
    [
        ("It is 27 days [2].", 1, 1.0, 1),
        ("It is 27 days [1].", 0, 0.0, 0),
        ("It is 27 days [1] [2].", 0, 0.5, 1),
        ("It is 27 days [2][9].", 0, 0.5, 1),
        ("It is 27 days [2, 9].", 0, 0.5, 1),
        ("It is 27 days [0].", 0, 0.0, 0),
        ("It is 27 days.", 0, None, 0),
    ],
)
def test_every_marker_must_resolve_to_the_right_page(
    answer: str, citation: float, precision: float | None, recall: float, rules: ScoringRules
) -> None:
    scores = answered(answer, rules)
    found = (scores["citation"], scores["citation_precision"], scores["citation_recall"])
    assert found == (citation, precision, recall)


def test_an_arm_without_passages_cannot_cite(rules: ScoringRules) -> None:
    assert score("It is 27 days [1].", "", "27 days", "leave/annual", [], rules)["citation"] == 0


def test_without_a_fact_the_reference_is_the_measure(rules: ScoringRules) -> None:
    scores = score("It rains in spring [1].", "In spring it rains [2].", None, "weather", PASSAGES, rules)
    assert (scores["fact"], scores["token_f1"], scores["exact_match"]) == (1, 1, 0)
    assert scores["rouge_l"] == 0.5


@pytest.mark.parametrize(
    ("answer", "fact"),
    [
        ("It is 1200 euros.", "1,200 euros"),
        ("Write to the People Desk.", "People Desk"),
        ("People Desk decides.", "the People Desk"),
        ("two factor authentication", "two-factor authentication"),
        ("before 10:30am", "10:30 am"),
        ("by 5 p.m.", "5 pm"),
        ("it is 5 per cent", "5%"),
        ("down to \u221220 C", "-20 C"),
        ("CAFE\u0301", "caf\u00e9"),
        ("the manager\u2019s approval", "manager's approval"),
    ],
)
def test_the_same_fact_in_other_clothes_is_found(answer: str, fact: str) -> None:
    assert contains_fact(answer, fact)


@pytest.mark.parametrize(
    ("answer", "fact"),
    [
        ("35 days", "3.5 days"),
        ("127 days", "27 days"),
        ("27 hours and 3 days", "27 days"),
        ("Plan B", "Plan A"),
        ("down to 20 C", "-20 C"),
        ("5 euros", "5 %"),
        ("form HR27", "27"),
        ("anything", "!?"),
        ("", "27 days"),
    ],
)
def test_another_fact_is_not_taken_for_it(answer: str, fact: str) -> None:
    assert not contains_fact(answer, fact)


def test_a_citation_marker_is_not_a_number_in_the_answer(rules: ScoringRules) -> None:
    assert score("It is not stated [27].", "", "27", "leave/annual", PASSAGES, rules)["fact"] == 0


@given(st.text(), st.lists(st.from_regex(r"[A-Za-z]{2,8}|[1-9]\d?", fullmatch=True), min_size=1), st.text())
def test_a_fact_is_found_wherever_it_stands(before: str, words: list[str], after: str) -> None:
    fact = " ".join(words)
    found = contains_fact(f"{before} . {fact} . {after}", fact)
    assert found or all(word.lower() in ("the", "an") for word in words)


@given(st.text(), st.text())
def test_token_f1_is_symmetric_and_one_only_for_the_same_words(left: str, right: str) -> None:
    one, other = squad_tokens(left), squad_tokens(right)
    assert 0 <= token_f1(one, other) == token_f1(other, one) <= 1
    assert (token_f1(one, other) == 1) == (sorted(one) == sorted(other))


def test_token_f1_follows_the_squad_script() -> None:
    assert squad_tokens("The Cat's  a-hat, an owl!") == ["cats", "ahat", "owl"]
    assert token_f1(squad_tokens("the red big cat"), squad_tokens("a big cat")) == pytest.approx(0.8)


def test_style_is_the_share_of_rules_and_none_without_rules(rules: ScoringRules) -> None:
    assert style_score("At Larkfield it is 27 days. [2]", rules) == 1
    assert style_score("It is 27 days [2].", rules) == 0.5
    assert style_score("At Larkfield it is 27 days", rules) == 0.5
    assert style_score("anything", scoring_rules(ABSTENTION, {})) is None


def test_a_rule_that_does_not_parse_is_named() -> None:
    with pytest.raises(InputError, match=r"style\.voice"):
        scoring_rules(ABSTENTION, {"voice": "("})
    with pytest.raises(InputError, match=r"abstention_patterns\[1\]"):
        scoring_rules(["fine", "["], {})


def test_the_primary_score_refuses_a_missing_part_unless_it_weighs_nothing() -> None:
    with pytest.raises(ValueError, match="style"):
        primary({"fact": 1.0, "citation": 1.0, "style": None}, WEIGHTS)
    assert primary({"fact": 0.5, "style": None}, {"fact": 1.0, "style": 0.0}) == 0.5


def test_retrieval_counts_the_first_place_of_each_page() -> None:
    ranked = {"q1": ["b", "b", "b", "b", "b", "a"], "q2": ["c"], "q3": [], "nobody asked": ["a"]}
    scores = retrieval_scores(ranked, {"q1": "a", "q2": "c", "q3": "c", "q4": "d"})
    assert scores["recall@1"] == {"q1": 0, "q2": 1, "q3": 0, "q4": 0}
    assert scores["recall@5"] == {"q1": 1, "q2": 1, "q3": 0, "q4": 0}
    assert scores["mrr"] == {"q1": 0.5, "q2": 1, "q3": 0, "q4": 0}
    assert scores["ndcg@10"]["q1"] == pytest.approx(0.6309, abs=1e-4)
    assert set(scores) == {"recall@1", "recall@5", "recall@10", "mrr", "ndcg@10"}


def test_retrieval_of_nothing_scores_nothing() -> None:
    assert retrieval_scores({}, {"q": "page"})["mrr"] == {"q": 0}
    assert retrieval_scores({"q": ["page"]}, {})["mrr"] == {}
