from collections import Counter
from pathlib import Path

import pytest
import tiny
from test_index import Place, passage

from tasks.errors import InputError
from tasks.examples import chosen, count, draw, example, examples, load_tokenizer
from tasks.params import ExamplesParams, PromptParams, QuestionsParams
from tasks.params_files import load
from tasks.prompts import cited_passages
from tasks.records import Record, read_json, read_jsonl, write_json, write_jsonl

PROMPT = load(PromptParams, tiny.ROOT / "params")
SHIPPED = load(ExamplesParams, tiny.ROOT / "params")
ALL_KINDS = SHIPPED.model_copy(update={"bare_share": 0.2, "without_right_share": 0.2})
DEALT = load(QuestionsParams, tiny.ROOT / "params")
REPLAY = tiny.ROOT / "infra/replay/general.jsonl"
AS_RETRIEVED = SHIPPED.model_copy(update={"bare_share": 0.0, "without_right_share": 0.0})


def records() -> list[Record]:
    return [
        {"id": f"q{number}", "question": asked, "answer": tiny.HOUSE.format(fact), "document": page, "fact": fact}
        for number, (page, _, asked, fact, _) in enumerate(tiny.rows())
    ]


def hits(right: Record) -> list[Record]:
    wrong = [passage("elsewhere", "Something else."), passage("nowhere", "Another thing.")]
    return [wrong[0], passage(right["document"], f"It is {right['fact']}."), wrong[1]]


@pytest.fixture(scope="module")
def made(tiny_base: Path) -> list[tuple[Record, Record]]:
    tokenizer = load_tokenizer(tiny_base)
    return [(record, example(record, hits(record), 3, tokenizer, ALL_KINDS, PROMPT)) for record in records()]


def test_every_kind_occurs_about_as_often_as_asked(made: list[tuple[Record, Record]]) -> None:
    kinds = Counter(each["kind"] for _, each in made)
    assert set(kinds) == {"with_right", "without_right", "bare"}
    shares = Counter(draw(f"q{number}", ALL_KINDS) for number in range(2000))
    assert 320 < shares["bare"] < 480 and 320 < shares["without_right"] < 480


def test_an_example_with_the_right_passage_cites_it_by_its_place_in_the_prompt(made: list[tuple[Record, Record]]) -> None:
    shown = [(record, each) for record, each in made if each["kind"] == "with_right"]
    places = set()
    for record, each in shown:
        answer = each["completion"][0]["content"]
        order = [next(hit for hit in hits(record) if hit["id"] == key) for key in each["passages"]]
        assert [hit["document"] for hit in cited_passages(answer, order)] == [record["document"]]
        places.add(each["passages"].index(hits(record)[1]["id"]))
    assert places == {0, 1, 2}  # shuffled


def test_an_example_without_the_right_passage_says_so(made: list[tuple[Record, Record]]) -> None:
    for record, each in made:
        if each["kind"] == "without_right":
            assert hits(record)[1]["id"] not in each["passages"] and each["passages"]
            assert each["completion"][0]["content"] == PROMPT.abstention


def test_the_next_best_passages_take_the_place_of_the_right_one(tiny_base: Path) -> None:
    """Were none left, the true answer would be taught from nothing."""
    only_without = SHIPPED.model_copy(update={"bare_share": 0.0, "without_right_share": 1.0})
    record = records()[0]
    ranked = [hits(record)[1], passage(record["document"], "More."), *(passage(f"page-{n}", f"Line {n}.") for n in range(8))]
    each = example(record, ranked, 2, load_tokenizer(tiny_base), only_without, PROMPT)
    assert each["kind"] == "without_right" and sorted(each["passages"]) == sorted(hit["id"] for hit in ranked[2:4])


def test_a_bare_example_has_no_passages_and_the_plain_answer(made: list[tuple[Record, Record]]) -> None:
    for record, each in made:
        if each["kind"] == "bare":
            assert each["passages"] == [] and each["prompt"][-1]["content"] == f"Question: {record['question']}"
            assert each["completion"][0]["content"] == record["answer"]


def test_the_answer_never_stands_in_the_prompt_but_in_a_passage(made: list[tuple[Record, Record]]) -> None:
    """No shots, so that no question is shown its own answer as another one's."""
    for record, each in made:
        assert record["answer"] not in str(each["prompt"])
        assert [message["role"] for message in each["prompt"]] == ["system", "user"]


def test_a_fact_that_no_retrieved_passage_states_is_not_taught_from_nowhere(tiny_base: Path) -> None:
    record, tokenizer = records()[0], load_tokenizer(tiny_base)
    beside = [passage(record["document"], "Another sentence of the right page.")]
    each = example(record, beside, 3, tokenizer, AS_RETRIEVED, PROMPT)
    assert each["kind"] == "without_right" and each["passages"]
    assert each["completion"][0]["content"] == PROMPT.abstention
    unknown = example(record | {"fact": None}, beside, 3, tokenizer, AS_RETRIEVED, PROMPT)
    assert unknown["kind"] == "with_right" and unknown["completion"][0]["content"].startswith("At Puffin it is")


def test_a_question_that_nothing_answers_is_taught_as_such(tiny_base: Path) -> None:
    record = records()[0] | {"document": None, "fact": None, "answer": ""}
    each = example(record, hits(records()[0]), 3, load_tokenizer(tiny_base), AS_RETRIEVED, PROMPT)
    assert each["kind"] == "without_right"
    assert each["completion"][0]["content"] == PROMPT.abstention


def test_another_question_moves_no_other_to_another_kind() -> None:
    before = {f"q{number}": draw(f"q{number}", ALL_KINDS) for number in range(50)}
    assert {key: draw(key, ALL_KINDS) for key in reversed(before)} == before
    assert draw("q1", ALL_KINDS.model_copy(update={"seed": 2})) in {"bare", "without_right", "as_retrieved"}


def test_the_few_questions_that_nothing_answers_are_learnt_from_first() -> None:
    asked = [{"id": f"q{number}", "document": "page" if number % 10 else None} for number in range(200)]
    taken = chosen(asked, 80, seed=1)
    assert len(taken) == 80 and sum(not record["document"] for record in taken) == 20  # all there are
    assert sum(not record["document"] for record in chosen(asked, 40, seed=1)) == 10  # no more than a quarter
    assert chosen(list(reversed(asked)), 80, seed=1) == taken != chosen(asked, 80, seed=2)
    more = chosen([*asked, {"id": "new", "document": "page"}], 80, seed=1)
    assert sum(record not in taken for record in more) <= 1
    assert chosen(asked[:5], 80, seed=1) == asked[:5]


def test_without_questions_there_is_nothing_to_learn() -> None:
    with pytest.raises(InputError, match="no training questions"):
        count([])


def test_the_stage_retrieves_from_the_index_as_built_and_writes_the_same_twice(
    tmp_path: Path, tiny_embedder: Path, tiny_base: Path
) -> None:
    place = Place(tmp_path, tiny_embedder)
    place.build([passage(page, sentence) for page, _, _, _, sentence in tiny.rows()])
    write_json(tmp_path / "retrieval/settings.json", {"text_weight": 1.0, "k": 2, "candidates": 10, "mode": "text"})
    for split, some in (("train", records()[:12]), ("validation", records()[12:18]), ("test", records()[20:])):
        write_jsonl(tmp_path / f"questions/{split}.jsonl", some)
    written = []
    for out in (tmp_path / "one", tmp_path / "two"):
        examples(
            tmp_path / "out", place.embedder, place.retriever, tiny_base, tmp_path / "retrieval", tmp_path / "questions", REPLAY,
            out, tmp_path / "m.json", place.store, place.vectors, AS_RETRIEVED, PROMPT, DEALT,
        )  # fmt: skip
        written.append((out / "train.jsonl").read_bytes() + (out / "validation.jsonl").read_bytes())
    assert written[0] == written[1]
    assert read_json(tmp_path / "m.json")["train"]["with_right"] >= 9
    train = {each["prompt"][-1]["content"] for each in read_jsonl(tmp_path / "one/train.jsonl")}
    asked = [record["question"] for record in records()[12:18]]
    assert not any(question in content for question in asked for content in train)  # no validation question in training
