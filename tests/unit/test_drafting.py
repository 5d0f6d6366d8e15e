"""Drafts are a machine's: what the rules ask, what is kept of it, and that no line comes in that nobody has read."""

import json
from pathlib import Path
from typing import Any

import pytest
import tiny

from flows.cli import run
from tasks.drafting import Draft, by_model, by_rules, draft_pairs
from tasks.errors import InputError
from tasks.generation import Generated
from tasks.pairs import placed_questions
from tasks.params import PromptParams
from tasks.params_files import load
from tasks.records import Record, read_jsonl, write_jsonl

PROMPT = load(PromptParams, tiny.ROOT / "params")


@pytest.mark.parametrize(
    ("sentence", "question", "answer"),
    [
        ("Warranty for noise sensors is 36 months.", "What is the warranty for noise sensors?", "36 months"),
        ("A standard workspace can have up to 180 rules.", "How many rules can a standard workspace have?", "up to 180"),
        ("- The express route takes 11 minutes and skips Lake.", "How long does the express route take?", "11 minutes"),
        ("An invitation by mail is valid for 5 days.", "How long is an invitation by mail valid?", "5 days"),
        ("4. Licences are checked every 6 months by Fleet.", "How often are licences checked?", "every 6 months"),
        ("Corrections are made within five working days.", "Within what time are corrections made?", "five working days"),
        ("A slice of plum cake costs 2.80 pounds, with cream.", "How much does a slice of plum cake cost?", "2.80 pounds"),
        ("The limit for a purchase is EUR 900.", "What is the limit for a purchase?", "EUR 900"),
        ("Each lift holds twelve persons.", "How many persons does each lift hold?", "twelve"),
    ],
)
def test_a_plain_sentence_is_asked_about(sentence: str, question: str, answer: str) -> None:
    assert list(by_rules(sentence)) == [Draft(question, answer)]


@pytest.mark.parametrize(
    "sentence",
    [
        "It takes 11 minutes.",
        "Where for Porto is Second floor.",
        "Kept for for Tickets is 4 years.",
        "We count them with care.",
        "",
    ],
)
def test_a_sentence_that_does_not_say_of_what_it_speaks_is_not(sentence: str) -> None:
    assert list(by_rules(sentence)) == []


def test_a_models_reply_counts_where_it_has_the_form_that_it_was_asked_for() -> None:
    good = "Sure!\nQuestion: When does the van leave?\nAnswer: at 5:45\n"
    assert list(by_model(["I do not know.", good, "Question: When\nAnswer: x"])) == [Draft("When does the van leave?", "at 5:45")]


class Reader:
    """A base model that drafts as it was told to, and reads a passage by copying what follows the word `at`."""

    tokenizer = property(lambda self: self)

    def __init__(self, drafts: dict[str, str], answer: str) -> None:
        self.drafts, self.given = drafts, answer

    def apply_chat_template(self, messages: list[Record], **options: Any) -> list[int]:
        return [0]

    def render(self, messages: list[Record]) -> str:
        return str(messages[-1]["content"])

    def batches(self, prompts: list[str], batch_tokens: int, label: str) -> Any:
        for prompt in prompts:
            drafted = next((reply for text, reply in self.drafts.items() if f"Text: {text}" in prompt), "")
            yield {prompt: Generated(drafted or self.given, 1, 1)}


def passages() -> list[Record]:
    texts = ("The van leaves at 5:45.", "The van holds 40 boxes.", "The van is checked every 6 months.")
    return [{"id": str(n), "document": "delivery/van", "heading": "Van", "text": text} for n, text in enumerate(texts)]


def drafted(reader: Reader, known: list[Record], per_page: int = 5) -> list[Record]:
    return draft_pairs(passages(), known, reader, PROMPT, per_page, "At Puffin it is {value}.", 0.75, 4)


def test_the_models_question_comes_before_the_rules_and_is_kept_where_the_model_finds_the_answer_again() -> None:
    own = {"The van leaves at 5:45.": "Question: At what time does the van set off?\nAnswer: 5:45"}
    reader = Reader(own, "It is 5:45, 40 and every 6 months.")
    made = drafted(reader, [])
    assert [record["question"] for record in made] == [
        "At what time does the van set off?", "How many boxes does the van hold?", "How often is the van checked?",
    ]  # fmt: skip
    assert made[0]["answer"] == "At Puffin it is 5:45." and made[0]["fact"] == "5:45"
    assert {(record["draft"], record["status"], record["document"]) for record in made} == {(True, "proposed", "delivery/van")}
    assert [record["fact"] for record in drafted(Reader({}, "It is 40."), [])] == ["40"]


def test_a_page_gets_what_it_lacks_and_no_question_that_is_known() -> None:
    known = [{"id": "q1", "question": "How many boxes does the van hold, please?", "document": "delivery/van", "fact": None}]
    reader = Reader({}, "at 5:45, 40, every 6 months")
    assert [record["fact"] for record in drafted(reader, known)] == ["at 5:45", "every 6 months"]
    assert len(drafted(reader, known, per_page=2)) == 1 and drafted(reader, known, per_page=1) == []


def line(number: int, **more: Any) -> Record:
    return {"question": f"Question {number}?", "answer": "A.", "document": "a/b", **more}


def test_lines_that_nobody_has_accepted_are_refused_with_how_to_accept_them(tmp_path: Path) -> None:
    path = tmp_path / "drafts.jsonl"
    write_jsonl(
        path, [line(1), line(2, draft=True, status="proposed"), line(3, draft=True), line(4, draft=True, status="accepted")]
    )
    with pytest.raises(InputError) as error:
        placed_questions(path, {})
    message = str(error.value)
    assert "2 faults" in message and "drafts.jsonl:2: is a draft with status 'proposed'" in message
    assert "drafts.jsonl:3: " in message and 'set "status" to "accepted" or "rejected"' in message
    assert "drafts.jsonl:1" not in message and "drafts.jsonl:4" not in message


def test_accepted_lines_come_in_as_any_other_and_rejected_ones_stay_out(tmp_path: Path) -> None:
    path = tmp_path / "drafts.jsonl"
    accepted, rejected = {"draft": True, "status": "accepted"}, {"draft": True, "status": "rejected"}
    write_jsonl(path, [line(1, **accepted), line(2, **rejected), line(3, draft=False), line(4, status="proposed")])
    found = placed_questions(path, {})
    assert [(place, record["question"]) for place, record in found] == [
        (f"drafts.jsonl:{number}", f"Question {number}?") for number in (1, 3, 4)
    ]
    assert "draft" not in found[0][1]


def test_the_command_writes_drafts_that_an_ingest_refuses_until_they_are_accepted(
    tmp_path: Path, tiny_base: Path, tiny_embedder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a random model no draft is confirmed; what is bad usage is said before anything is read."""
    clone = tiny.make_clone(tmp_path / "clone", tiny_base, tiny_embedder)
    tiny.write_corpus(tmp_path / "corpus")
    with tiny.inside(clone):
        documents = ["--documents", str(tmp_path / "corpus/documents")]
        assert run(["draft-questions", "--out", "drafts.jsonl"]) == 2
        assert "nothing was ingested yet" in capsys.readouterr().err
        assert run(["draft-questions", "--out", "drafts.csv", *documents]) == 2
        assert run(["draft-questions", "--out", "drafts.jsonl", "--answer", "It is so.", *documents]) == 2
        assert "needs {value}" in capsys.readouterr().err
        assert run(["draft-questions", "--out", "drafts.jsonl", *documents]) == 2
        assert "no draft came of" in capsys.readouterr().err
        assert not Path("drafts.jsonl").exists()


def test_the_built_in_model_confirms_drafts_of_a_plain_page(tmp_path: Path, tiny_base: Path, tiny_embedder: Path) -> None:
    clone = tiny.make_clone(tmp_path / "clone", tiny.ROOT / "infra/base_model/model", tiny_embedder)
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages/van.md").write_text(
        "# The van\n\nAn invitation by mail is valid for 5 days.\n\nThe express route takes 11 minutes.\n"
    )
    with tiny.inside(clone):
        words = ["draft-questions", "--documents", str(tmp_path / "pages"), "--out", "drafts.jsonl", "--answer", "It is {value}."]
        assert run([*words, "--json"]) == 0
        made = read_jsonl(Path("drafts.jsonl"))
        assert {record["answer"] for record in made} <= {"It is 5 days.", "It is 11 minutes."} and made
        assert run(words) == 2  # what somebody may have accepted is not written over
    assert json.dumps(made)
