"""A test question in a training set, in every disguise in which one was thought of."""

from pathlib import Path
from typing import Any

import pytest
import tiny

from tasks.contamination import contaminations, refuse_contaminated, words_of
from tasks.errors import InputError
from tasks.examples import examples
from tasks.params import ExamplesParams, PromptParams, QuestionsParams
from tasks.params_files import load
from tasks.questions import judge, questions
from tasks.records import Record, read_json, read_jsonl, write_jsonl

HELD_OUT = "How many days of leave do I get per year?"
DEALT = load(QuestionsParams, tiny.ROOT / "params")
REPLAY = tiny.ROOT / "infra/replay/general.jsonl"

DISGUISES = {
    "exact": HELD_OUT,
    "case": "HOW many DAYS of leave do i get per year?",
    "space": "  How many  days of\tleave do I\u00a0get per\nyear ?",
    "punctuation": "How many days of leave do I get, per year",
    "compatibility form": "\uff28\uff4f\uff57 many \U0001d41d\U0001d41a\U0001d432\U0001d42c of leave do I get per year?",
    "unseen characters": "How many da\u00adys of le\u200bave do I get per year?",
    "look-alike letters": "\u041d\u043ew m\u0430ny d\u0430ys \u043ef l\u0435ave d\u043e \u0406 get \u0440er y\u0435ar?",
    "near-duplicate": "How many days of annual leave do I get per year?",
}


def pair(name: str, question: str, page: str | None, **more: Any) -> Record:
    return {"id": name, "question": question, "answer": "27 days.", "document": page, "fact": None, **more}


@pytest.mark.parametrize("disguise", DISGUISES)
def test_a_test_question_in_training_is_refused_in_this_disguise(disguise: str) -> None:
    train = [pair("planted", DISGUISES[disguise], "a/other"), pair("fine", "Who has the key of the archive?", "a/keys")]
    with pytest.raises(InputError, match=r"planted and held-out: the same question") as error:
        refuse_contaminated({"train": train, "validation": [], "test": [pair("held-out", HELD_OUT, "hr/leave")]}, 0.75)
    assert "fine" not in str(error.value)


@pytest.mark.parametrize("disguise", DISGUISES)
def test_the_later_of_two_such_questions_never_comes_to_be_dealt(disguise: str) -> None:
    placed = [("q.csv:2", pair("q1", HELD_OUT, "hr/leave")), ("q.csv:3", pair("q2", DISGUISES[disguise], "a/other"))]
    accepted, rejected = judge(placed, ["hr/leave", "a/other"], 0.75)
    assert [record["id"] for record in accepted] == ["q1"]
    assert rejected[0]["reason"].startswith("near-duplicate" if disguise == "near-duplicate" else "duplicate")


def test_another_question_about_a_page_of_the_test_is_refused_too() -> None:
    assert contaminations([pair("q1", "Who grants it?", "hr/leave")], [pair("q2", HELD_OUT, "hr/leave")], 0.75) == [
        "q1 and q2: the same page, hr/leave"
    ]
    assert contaminations([pair("q1", "Who grants it?", None)], [pair("q2", HELD_OUT, None)], 0.75) == []


@pytest.mark.parametrize(
    ("other", "fact"),
    [
        ("How many days of leave do I get per year in grade 7?", None),  # a number more
        ("How many days of leave do I get per week?", "two"),  # both say what the answer is, and it differs
        ("How many weeks of sabbatical can I take?", None),
    ],
)
def test_what_asks_for_something_else_is_kept(other: str, fact: str | None) -> None:
    held_out = pair("q2", HELD_OUT, "hr/leave", fact=fact and "27 days")
    assert contaminations([pair("q1", other, "a/other", fact=fact)], [held_out], 0.75) == []


def test_nearly_equal_questions_are_one_where_no_facts_tell_them_apart_and_the_threshold_is_the_persons() -> None:
    one, other = pair("q1", DISGUISES["near-duplicate"], "a/b", fact="27 days"), pair("q2", HELD_OUT, "c/d", fact="27 Days")
    assert contaminations([one], [other], 0.75) == ["q1 and q2: the same question (0.77 alike)"]
    assert contaminations([one | {"fact": None}], [other], 0.75)
    assert contaminations([one], [other], 0.9) == contaminations([one], [other], 1.0) == []


def test_letters_of_other_scripts_stay_words() -> None:
    assert words_of("Сколько дней отпуска?") != words_of("Сколько часов отпуска?")
    assert words_of("Wie heiß ist der Ofen?") == words_of("WIE HEISS IST DER OFEN")


def test_of_a_thousand_questions_every_planted_near_duplicate_is_found_and_nothing_else() -> None:
    nouns, verbs = (
        [f"noun{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(100)],
        ["buy", "lend", "sell", "store", "throw away"],
    )
    asked = [f"In which building of the site may visitors {verb} a {noun} today?" for noun in nouns for verb in verbs]
    placed = [(f"q:{n}", pair(f"q{n}", text, f"p{n}", fact=f"fact {n}")) for n, text in enumerate(asked)]
    again = [
        (f"r:{n}", pair(f"r{n}", text.replace("today", "these days"), f"p{n}", fact=f"Fact {n}.")) for n, text in enumerate(asked)
    ]
    accepted, rejected = judge([*placed, *again], [f"p{n}" for n in range(len(asked))], 0.7)
    assert [record["id"] for record in accepted] == [record["id"] for _, record in placed]
    assert [record["reason"].split(" (")[0] for record in rejected] == [
        f"near-duplicate of the question at q:{n}" for n in range(len(asked))
    ]


def test_the_counts_say_how_many_were_rejected_for_what(tmp_path: Path) -> None:
    pages = [f"topic/page-{number}" for number in range(60)]
    topics = [
        f"{a}{b}" for a in ("ovens", "vans", "aprons", "keys", "wages", "loaves") for b in ("abc", "def", "ghi", "jkl", "mno")
    ]
    asked = [f"What has to be known about the {topic}?" for topic in topics]
    rows = [pair(f"q{number}", question, pages[number], fact=topics[number]) for number, question in enumerate(asked)]
    rows += [
        pair("r1", "WHAT has to be known about the ovensabc", pages[40]),
        pair("r2", "What has to be known about all the vansdef?", pages[41], fact=None),
    ]
    rows += [pair("r3", "Who?", "nowhere")]
    write_jsonl(tmp_path / "documents/documents.jsonl", [{"id": page} for page in pages])
    write_jsonl(tmp_path / "questions.jsonl", rows)
    questions(tmp_path / "questions.jsonl", tmp_path / "documents", tmp_path / "out", DEALT)
    found = read_json(tmp_path / "out/counts.json")
    assert found["reasons"] == {"duplicate": 1, "near-duplicate": 1, "page": 1}
    assert found["ingested"] == 33 == found["accepted"] + found["rejected"]
    assert [record["id"] for record in read_jsonl(tmp_path / "out/rejected.jsonl")] == ["r1", "r2", "r3"]


def test_a_file_of_questions_from_one_template_says_how_they_are_told_apart(tmp_path: Path) -> None:
    rows = [pair(f"q{n}", f"What is the price of the product {chr(97 + n) * 3}?", "a/b") for n in range(20)]
    write_jsonl(tmp_path / "documents/documents.jsonl", [{"id": "a/b"}])
    write_jsonl(tmp_path / "questions.jsonl", rows)
    with pytest.raises(InputError, match=r"19 of 20 questions are rejected.*told apart by a `fact` for each"):
        questions(tmp_path / "questions.jsonl", tmp_path / "documents", tmp_path / "out", DEALT)


def test_a_training_file_from_elsewhere_that_holds_a_test_question_stops_the_stage(tmp_path: Path, tiny_base: Path) -> None:
    """Before anything is opened: there is no index here."""
    files = {
        "train": [pair("planted", DISGUISES["look-alike letters"], "a/other")],
        "validation": [],
        "test": [pair("t", HELD_OUT, "hr/leave")],
    }
    for split, records in files.items():
        write_jsonl(tmp_path / f"questions/{split}.jsonl", records)
    params, prompt = load(ExamplesParams, tiny.ROOT / "params"), load(PromptParams, tiny.ROOT / "params")
    nowhere = tmp_path / "nowhere"
    with pytest.raises(InputError, match="planted and t: the same question"):
        examples(
            nowhere, nowhere, nowhere, tiny_base, nowhere, tmp_path / "questions", REPLAY,
            tmp_path / "out", tmp_path / "m.json", "", nowhere, params,
            prompt, DEALT,
        )  # fmt: skip
    assert not (tmp_path / "out").exists()
