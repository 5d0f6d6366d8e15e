"""The log of answers: kept for `tandem why`, bounded, private, and forgotten for good."""

import sqlite3
from pathlib import Path

import pytest

from flows import asked
from flows.showing import why
from tasks.errors import InputError
from tasks.records import Record


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "home/asked.sqlite"


def told(number: int, text: str = "a passage") -> Record:
    passage = {
        "number": 1, "page": "page-1", "heading": "A", "passage": text, "score": 0.5, "cited": True,
        "text": {"place": 2, "score": 3.25}, "vector": None,
    }  # fmt: skip
    return {
        "question": f"question {number}", "answer": "so it is [1].", "arm": "rag", "release": "a" * 64, "number": 3,
        "passages": [passage], "retrieval": {"k": 1}, "decoding": {"do_sample": False}, "prompt": f"<user>{text}", "at": "now",
    }  # fmt: skip


def test_an_answer_is_found_again_by_its_id(path: Path) -> None:
    first, second = asked.remember(path, told(1)), asked.remember(path, told(2))
    assert asked.recall(path, first) == told(1) | {"id": first}
    assert asked.recall(path, second)["question"] == "question 2"
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_oldest_go_where_there_are_too_many(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asked, "KEPT", 3)
    made = [asked.remember(path, told(number)) for number in range(5)]
    assert [asked.recall(path, identity)["question"] for identity in made[2:]] == ["question 2", "question 3", "question 4"]
    with pytest.raises(InputError, match=f"there is no answer '{made[1]}' among the last 3.*the newest: {made[4]}, {made[3]}"):
        asked.recall(path, made[1])


@pytest.mark.parametrize("identity", ["", "nothing", "' OR '1'='1", "x" * 10_000])
def test_an_answer_that_nobody_knows_is_bad_usage(path: Path, identity: str) -> None:
    with pytest.raises(InputError, match=r"there is no answer .* there is none yet; ask something: tandem ask"):
        asked.recall(path, identity)


def test_what_is_forgotten_is_not_in_the_file_any_more(path: Path) -> None:
    secret = "the word that has to be erased " * 300
    gone, stays = asked.remember(path, told(1, secret)), asked.remember(path, told(2))
    assert b"has to be erased" in path.read_bytes()
    assert asked.forget(path, lambda record: any("erased" in passage["passage"] for passage in record["passages"])) == 1
    assert b"has to be erased" not in path.read_bytes()
    assert asked.recall(path, stays)["number"] == 3
    with pytest.raises(InputError):
        asked.recall(path, gone)
    assert asked.forget(path.with_name("none.sqlite"), lambda record: True) == 0
    assert not path.with_name("none.sqlite").exists()


def test_a_file_that_is_no_database_is_named_with_what_to_do(path: Path) -> None:
    path.parent.mkdir()
    path.write_text("not a database, and long enough to be read as one " * 100)
    with pytest.raises(InputError, match=r"asked.sqlite cannot be read .*; delete it: only `tandem why` needs it"):
        asked.recall(path, "beefbeef")
    with pytest.raises(sqlite3.DatabaseError):
        asked.remember(path, told(1))


def test_a_person_sees_passages_with_both_legs_prompt_and_decoding() -> None:
    text = why(told(1, "it \x1b[2J is") | {"id": "beefbeef"})
    assert "[1] page-1 (A), score 0.500: text 3.250 (place 2), vector not found, cited" in text
    assert "retrieval: k 1\ndecoding: do_sample False\nprompt:\n    <user>it ⟨U+001B⟩[2J is" in text
    assert "release 3 (aaaaaaaaaaaa), arm rag, answer beefbeef" in text
