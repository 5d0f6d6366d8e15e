"""Pages that are never trained on: asked, cited, and in no training file; searched for by a word that stands nowhere else."""

from pathlib import Path

import pytest
import tiny
from test_index import Place, passage

from tasks.errors import InputError
from tasks.examples import examples
from tasks.exclusion import may_train, refuse_idle
from tasks.params import ExamplesParams, PromptParams, QuestionsParams
from tasks.params_files import load
from tasks.questions import questions
from tasks.records import Record, read_json, read_jsonl, write_json, write_jsonl

PARAMS = tiny.ROOT / "params"
REPLAY = tiny.ROOT / "infra/replay/general.jsonl"
CANARY = "quokkazebra"
SECRET = "staff/pay.md"


@pytest.mark.parametrize(
    ("pattern", "kept_out", "learnt"),
    [
        ("staff/pay", "staff/pay", "staff/payments"),
        ("staff/", "staff/deep/pay", "staffing/pay"),
        ("**/pay", "a/b/pay", "a/b/pays"),
        ("staff/*-draft", "staff/pay-draft", "staff/deep/pay-draft"),
        ("/legal", "legal/terms", "shop/legal/terms"),
        ("cafe\u0301/", "caf\u00e9/menu", "cafe/menu"),
    ],
)
def test_patterns_are_those_of_gitignore_on_page_ids(pattern: str, kept_out: str, learnt: str) -> None:
    assert not may_train(kept_out, [pattern])
    assert may_train(learnt, [pattern])


def test_a_later_pattern_may_let_a_page_in_again_and_what_is_of_no_page_is_learnt() -> None:
    assert may_train("staff/leave", ["staff/*", "!staff/leave"]) and not may_train("staff/pay", ["staff/*", "!staff/leave"])
    assert may_train(None, ["*"]) and may_train("staff/pay", [])


def test_a_pattern_that_keeps_nothing_out_is_refused() -> None:
    refuse_idle(["staff/", "!staff/leave"], ["staff/pay", "staff/leave"])
    with pytest.raises(InputError, match=r"'staff/\*\.md' matches none of the 2 pages.*'staff/pay'"):
        refuse_idle(["staff/", "staff/*.md"], ["staff/pay", "staff/leave"])


def test_no_training_file_holds_a_word_of_such_a_page(tmp_path: Path, tiny_embedder: Path, tiny_base: Path) -> None:
    """Every sentence and question of the page has the canary, and the questions about other pages have words that find it."""
    rows = [(*row[:4], f"{row[4]} {CANARY}" if row[0] == SECRET else row[4]) for row in tiny.rows()]
    place = Place(tmp_path, tiny_embedder)
    place.build([passage(row[0], row[4]) for row in rows])
    write_jsonl(tmp_path / "documents/documents.jsonl", [{"id": page} for page in {row[0]: 0 for row in rows}])
    asked: list[Record] = []
    for number, (page, _, question, fact, _) in enumerate(rows):
        word = CANARY if page == SECRET else "night bonus wages shoes take home bread"
        asked.append({"id": f"q{number}", "question": f"{question} {word}", "answer": f"It is {fact}.", "document": page,
                      "fact": fact})  # fmt: skip
    write_jsonl(tmp_path / "questions.jsonl", asked)
    write_json(tmp_path / "retrieval/settings.json", {"text_weight": 0.5, "k": 3, "candidates": 20, "mode": "hybrid"})

    def learnt_from(never: list[str]) -> str:
        dealt = QuestionsParams(
            train=0.5, validation=0.3, test=0.2, seed=4, max_rejected=0.1, near_duplicate=1.0, train_never=never
        )
        shares = {"bare_share": 0.1, "without_right_share": 0.3}
        kinds = load(ExamplesParams, PARAMS).model_copy(update=shares)
        questions(tmp_path / "questions.jsonl", tmp_path / "documents", tmp_path / "questions", dealt)
        examples(
            tmp_path / "out", place.embedder, place.retriever, tiny_base, tmp_path / "retrieval", tmp_path / "questions", REPLAY,
            tmp_path / "examples",
            tmp_path / "metrics.json", place.store, place.vectors, kinds, load(PromptParams, PARAMS), dealt,
        )  # fmt: skip
        splits = [
            tmp_path / f"{folder}/{split}.jsonl" for folder in ("questions", "examples") for split in ("train", "validation")
        ]
        assert all(path.stat().st_size for path in splits)
        return "".join(path.read_text(encoding="utf-8") for path in splits)

    assert learnt_from([]).count(CANARY) > 10  # it is found, and learnt from where nothing forbids it
    assert CANARY not in learnt_from(["staff/pay*"])
    held_out = {record["document"] for record in read_jsonl(tmp_path / "questions/test.jsonl")}
    assert SECRET in held_out
    assert place.open(read_json(tmp_path / "out/manifest.json")).table.count_rows(f"text LIKE '%{CANARY}%'") == 4


def test_an_example_left_without_passages_is_dropped_and_counted(tmp_path: Path, tiny_embedder: Path, tiny_base: Path) -> None:
    place = Place(tmp_path, tiny_embedder)
    place.build([passage(row[0], row[4]) for row in tiny.rows() if row[0] == SECRET])
    write_json(tmp_path / "retrieval/settings.json", {"text_weight": 0.5, "k": 1, "candidates": 10, "mode": "hybrid"})
    bare = load(ExamplesParams, PARAMS).model_copy(update={"bare_share": 0.5})
    dealt = load(QuestionsParams, PARAMS).model_copy(update={"train_never": [SECRET]})
    asked = [{"id": f"q{n}", "question": f"Who is {n}?", "answer": "Me.", "document": "other", "fact": None} for n in range(20)]
    beside = [record | {"document": "a", "question": record["id"]} for record in asked]
    for split, some in (("train", asked), ("validation", beside), ("test", [])):
        write_jsonl(tmp_path / f"questions/{split}.jsonl", some)
    examples(
        tmp_path / "out", place.embedder, place.retriever, tiny_base, tmp_path / "retrieval", tmp_path / "questions", REPLAY,
        tmp_path / "examples",
        tmp_path / "metrics.json", place.store, place.vectors, bare, load(PromptParams, PARAMS), dealt,
    )  # fmt: skip
    found = read_json(tmp_path / "metrics.json")["train"]
    assert found["bare"] == found["examples"] > 3
    assert found["dropped"] == {"no passage that may be trained on": 20 - found["examples"]}
