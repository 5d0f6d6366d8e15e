from pathlib import Path

import pytest
import tiny
from test_index import Place, passage

from tasks.contamination import refuse_contaminated
from tasks.errors import InputError
from tasks.examples import examples, load_tokenizer
from tasks.params import ExamplesParams, PromptParams, QuestionsParams
from tasks.params_files import load
from tasks.records import Record, read_json, read_jsonl, write_json, write_jsonl
from tasks.replay import general
from tasks.screening import Screen

PARAMS = tiny.ROOT / "params"
SHIPPED = tiny.ROOT / "infra/replay/general.jsonl"
OPEN = Screen("keep", "keep", [])


def line(number: int, answer: str = "blue") -> Record:
    asked = f"Which colour has flag {number}?"
    return {
        "id": f"r{number}", "question": asked, "prompt": [{"role": "user", "content": asked}],
        "completion": [{"role": "assistant", "content": answer}],
    }  # fmt: skip


def test_as_many_are_taken_as_make_the_share_and_a_new_line_displaces_few(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "replay.jsonl", [line(number) for number in range(60)])
    made, dropped = general(tmp_path / "replay.jsonl", 0.2, 100, 1, OPEN)
    assert len(made) == 25 and dropped == [] and {each["kind"] for each in made} == {"replay"}
    write_jsonl(tmp_path / "replay.jsonl", [line(number) for number in range(61)])
    again, _ = general(tmp_path / "replay.jsonl", 0.2, 100, 1, OPEN)
    assert sum(each not in made for each in again) <= 1
    assert general(tmp_path / "nowhere.jsonl", 0.0, 100, 1, OPEN) == ([], [])


def test_too_few_lines_are_told_with_how_many_are_needed(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "replay.jsonl", [line(number) for number in range(9)])
    with pytest.raises(InputError, match=r"asks for 10 general examples, .*replay\.jsonl has 9; lower it, or add"):
        general(tmp_path / "replay.jsonl", 0.1, 90, 1, OPEN)


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"question": ""}, "question is missing"),
        ({"completion": []}, "completion is missing"),
        ({"prompt": ["What?"]}, "prompt holds something else than messages"),
        ({"completion": [{"role": "user", "content": "blue"}]}, "completion holds something else than messages of assistant"),
    ],
)
def test_a_line_of_another_form_is_named(tmp_path: Path, changed: Record, fault: str) -> None:
    write_jsonl(tmp_path / "replay.jsonl", [line(1), line(2) | changed])
    with pytest.raises(InputError, match=rf"replay\.jsonl:2: {fault}"):
        general(tmp_path / "replay.jsonl", 0.5, 1, 1, OPEN)


def test_secrets_in_it_are_refused_and_addresses_redacted_as_elsewhere(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "replay.jsonl", [line(1, "AKIAIOSFODNN7EXAMPLQ"), line(2, "jane.doe@miller-family.net")])
    made, dropped = general(tmp_path / "replay.jsonl", 0.5, 2, 1, Screen("refuse", "redact", []))
    assert [each["completion"][0]["content"] for each in made] == ["[email]"]
    assert dropped == ["replay that holds a secret"]


def test_the_stage_mixes_it_into_training_alone_and_refuses_a_test_question_in_it(
    tmp_path: Path, tiny_embedder: Path, tiny_base: Path
) -> None:
    rows = tiny.rows()
    place = Place(tmp_path, tiny_embedder)
    place.build([passage(row[0], row[4]) for row in rows])
    asked = [
        {"id": f"q{number}", "question": row[2], "answer": tiny.HOUSE.format(row[3]), "document": row[0], "fact": row[3]}
        for number, row in enumerate(rows)
    ]
    for split, some in (("train", asked[:20]), ("validation", asked[20:32]), ("test", asked[32:])):
        write_jsonl(tmp_path / f"questions/{split}.jsonl", some)
    write_json(tmp_path / "retrieval/settings.json", {"text_weight": 0.5, "k": 2, "candidates": 20, "mode": "hybrid"})
    params = load(ExamplesParams, PARAMS).model_copy(update={"replay_share": 0.2})

    def make(replay: Path) -> None:
        examples(
            tmp_path / "out", place.embedder, place.retriever, tiny_base, tmp_path / "retrieval", tmp_path / "questions", replay,
            tmp_path / "examples", tmp_path / "m.json", place.store, place.vectors, params, load(PromptParams, PARAMS),
            load(QuestionsParams, PARAMS),
        )  # fmt: skip

    make(SHIPPED)
    counted = read_json(tmp_path / "m.json")
    assert counted["train"]["replay"] == 5 and counted["validation"]["replay"] == 0
    learnt = read_jsonl(tmp_path / "examples/train.jsonl")
    assert len(learnt) == 25 and all(set(each) == set(learnt[0]) for each in learnt)
    write_jsonl(tmp_path / "replay.jsonl", [line(number) | {"question": str(rows[39][2]).upper()} for number in range(9)])
    with pytest.raises(InputError, match="q39: the same question"):
        make(tmp_path / "replay.jsonl")


def test_what_is_shipped_is_readable_whole_and_none_of_the_demos_questions(tiny_base: Path) -> None:
    records = read_jsonl(SHIPPED)
    made, dropped = general(SHIPPED, 0.5, len(records), 1, OPEN)
    assert len(made) == len(records) >= 100 and dropped == []
    tokenizer = load_tokenizer(tiny.ROOT / "infra/base_model/model")
    lengths = [
        len(tokenizer.apply_chat_template([*each["prompt"], *each["completion"]], tokenize=True, return_dict=False))
        for each in made
    ]
    assert max(lengths) < 400
    demo = read_jsonl(tiny.ROOT / "data/demo/questions.jsonl")
    refuse_contaminated({"replay": made, "demo": demo}, 0.75)
