"""What a question counts towards, by examples."""

import pytest
import tiny

from tasks.facts import fact_tokens, states
from tasks.records import Record
from tasks.reports import Answer, Report
from tasks.slices import answer_type, fresh_pages, length, pages_with_facts, slices, topics, with_freshness


@pytest.mark.parametrize(
    ("fields", "names"),
    [
        ({"document": "it/vpn/setup"}, ["folder it"]),
        ({"document": "welcome"}, ["folder (top)"]),
        ({"document": None}, ["no page"]),
        ({"document": "it/vpn", "kind": "how to", "tags": ["vpn", "remote"]}, ["kind how to", "tag vpn", "tag remote"]),
        ({"document": None, "kind": None, "tags": ["vpn"]}, ["tag vpn"]),
    ],
)
def test_a_question_counts_towards_its_kind_and_tags_or_else_towards_the_folder_of_its_page(
    fields: Record, names: list[str]
) -> None:
    assert topics(fields) == names


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        ("Yes, after three days.", "yes or no"),
        ("north wing", "text"),
        ("1 September", "date"),
        ("every Thursday", "date"),
        ("15:30", "date"),
        ("2026-05-01", "date"),
        ("EUR 4,000", "number"),
        ("three identity providers", "number"),
        ("Latch 5", "number"),
        ("People Desk", "name"),
        ("the gas fitter Osei", "name"),
        ("Ms Adeyemi", "name"),
        ("golden spanner", "text"),
        ("Ask the lead, and tell Osei about it later.", "text"),
        ("", "text"),
    ],
)
def test_an_answer_is_a_date_a_number_a_name_a_yes_or_no_or_text(answer: str, kind: str) -> None:
    assert answer_type(answer) == kind


@pytest.mark.parametrize(("words", "name"), [(1, "short"), (7, "short"), (8, "medium"), (12, "medium"), (13, "long")])
def test_a_question_is_short_medium_or_long_by_its_words(words: int, name: str) -> None:
    assert length(" ".join(["word"] * words)) == name


@pytest.mark.parametrize(("holding", "name"), [(0, "fact on no page"), (1, "fact on one page"), (3, "fact on several pages")])
def test_a_question_counts_towards_how_rare_its_fact_is(holding: int, name: str) -> None:
    record = {"question": "How long?", "document": "it/vpn", "fact": "30 seconds", "holding": holding}
    assert slices(record) == ["folder it", "question short", "answer number", name]
    assert slices({"question": "Why?", "document": None, "fact": None, "holding": None}) == ["no page", "question short"]


def test_pages_are_counted_that_state_a_fact_whatever_else_they_hold_of_its_words() -> None:
    passages = [
        {"document": "a", "heading": "Limits", "text": "After 30 seconds it stops. Again: 30 seconds."},
        {"document": "a", "heading": "Limits", "text": "It waits for 30 seconds."},
        {"document": "b", "heading": "After 30 seconds", "text": "It starts. The start is late."},
        {"document": "c", "heading": "Limits", "text": "30 of them, each for some seconds."},
        {"document": "d", "heading": "H", "text": "\u4eca\u65e5\u306f\u6674\u308c\u3067\u3059"},
    ]
    questions = [
        {"id": "several", "document": "a", "fact": "30 seconds"},
        {"id": "one", "document": "c", "fact": "30 of them"},
        {"id": "none", "document": "c", "fact": "31"},
        {"id": "article", "document": "c", "fact": "a start"},
        {"id": "unspaced", "document": "d", "fact": "\u6674\u308c"},
        {"id": "without a fact", "document": "d", "fact": None},
        {"id": "unanswerable", "document": None, "fact": None},
    ]
    assert len(fact_tokens(questions[4]["fact"])) == 1  # a whole sentence without spaces is one token: no word finds it
    assert pages_with_facts(passages, questions) == {"several": 2, "one": 1, "none": 0, "article": 1, "unspaced": 1}


def test_pages_are_counted_as_the_scores_would_find_the_fact() -> None:
    facts = [fact for *_, fact, _ in tiny.rows()]
    passages = [{"document": page, "heading": section, "text": text} for page, section, _, _, text in tiny.rows()]
    counted = pages_with_facts(passages, [{"id": fact, "document": "x", "fact": fact} for fact in facts])
    for fact in facts:
        assert counted[fact] == len({passage["document"] for passage in passages if states(passage, fact)}) > 0


def test_a_page_is_fresh_if_no_page_of_the_live_release_had_its_text() -> None:
    assert fresh_pages({"a": "1", "b": "2", "c": "3"}, {"a": "1", "b": "9", "new": "5", "c renamed": "3"}) == {"b", "new"}


def test_freshness_is_known_only_where_a_page_changed_and_only_of_questions_about_one() -> None:
    answers = tuple(Answer(f"q{n}", page, "rag", {}, 1, 1, slices=("x",)) for n, page in enumerate(["a", "b", None]))
    report = Report("d", 3, answers)
    assert with_freshness(report, set()) == report
    found = with_freshness(report, {"b"})
    assert [answer.slices for answer in found.answers] == [("x", "page unchanged"), ("x", "page changed"), ("x",)]
