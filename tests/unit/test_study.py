"""What would help: advice by measured differences with their bounds, and "cannot tell" where these show nothing."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import tiny
from judging import judged
from test_page import said

from flows.study import Base, check_names, write_share
from tasks.errors import InputError
from tasks.page import page
from tasks.params import ARMS, StudyParams, uses_adapter
from tasks.params_files import load
from tasks.params_verdict import GateParams
from tasks.records import Record, read_jsonl, write_jsonl
from tasks.study import Advice, Point, advice, drawn, summary

GATE = load(GateParams, tiny.ROOT / "params").model_copy(update={"resamples": 400})
QUESTIONS = 160  # on 80 pages
COSTS = {"prompt": 100.0, "rag": 140.0, "lora": 120.0, "rag+lora": 190.0}


def record(number: int, arm: str, score: float, at_hand: bool) -> Record:
    passages = [{"document": "p", "heading": "H", "text": f"It is at {number}:45." if at_hand else "Nothing."}]
    return {
        "question": f"q{number}", "text": "When?", "document": f"page-{number // 2}", "arm": arm, "answer": "x",
        "fact": f"at {number}:45", "scores": {"primary": score, "fact": score}, "prompt_tokens": 1, "completion_tokens": 1,
        "passages": passages if "rag" in arm else [],
    }  # fmt: skip


def point(
    means: Mapping[str, float], pairs: int = 400, base: str = "own", parameters: int = 10, at_hand: float = 0.5, pages: int = 80
) -> Point:
    """Answers that are right or wrong, one draw for all arms: an arm with a higher mean has right what a lower one has."""
    luck, given = np.random.default_rng(3).permutation(QUESTIONS) / QUESTIONS, np.random.default_rng(4).random(QUESTIONS)
    answers = [
        record(number, arm, float(luck[number] < means[arm]), bool(given[number] < at_hand))
        for arm in ARMS for number in range(2 * pages)
    ]  # fmt: skip
    return Point(base, parameters, pairs / 400, pairs, answers, COSTS)


WEAK = {"prompt": 0.1, "rag": 0.3, "lora": 0.1, "rag+lora": 0.35}
GOOD = {"prompt": 0.1, "rag": 0.4, "lora": 0.15, "rag+lora": 0.7}


def found(*points: Point) -> dict[str, Advice]:
    return {each.about: each for each in advice(points, GATE)}


@pytest.mark.parametrize(
    ("means", "begins"),
    [
        (GOOD, "Retrieval and an adapter: rag+lora scores 0.70, the cheapest"),
        (GOOD | {"rag": 0.69}, "Retrieval without an adapter: rag scores 0.69"),
        (GOOD | {"lora": 0.69}, "An adapter without retrieval: lora scores"),
        (dict.fromkeys(ARMS, 0.3), "Neither retrieval nor an adapter: prompt scores 0.30, which is below the floor"),
    ],
)  # fmt: skip
def test_the_way_to_answer_is_the_cheapest_that_is_proven_to_be_near_the_best(means: dict[str, float], begins: str) -> None:
    told = found(point(WEAK, 40), point(means))["retrieval or an adapter"]
    assert told.tells and told.says.startswith(begins), told.says
    assert "the adapter on top of retrieval: " in told.says


def test_few_pages_prove_no_way() -> None:
    told = found(point(WEAK, 40, pages=4), point(GOOD | {"rag": 0.6}, pages=4))["retrieval or an adapter"]
    assert not told.tells and told.says.startswith("Cannot tell: ")


def test_more_pairs_are_advised_where_the_curve_is_proven_to_rise() -> None:
    rising = found(point(WEAK, 40), point(GOOD))["question/answer pairs"]
    assert rising.tells and rising.says.startswith("More pairs: with 400 instead of 40 examples rag+lora is 0.3")
    flat = found(point(GOOD, 120), point(GOOD))["question/answer pairs"]
    assert flat.tells and flat.says.startswith("Not more pairs of this kind: ")
    unsure = found(point(GOOD | {"rag+lora": 0.68}, 120, pages=15), point(GOOD, pages=15))["question/answer pairs"]
    assert not unsure.tells and unsure.says.startswith("Cannot tell whether more pairs would help: ")
    assert not found(point(GOOD))["question/answer pairs"].tells


def test_whether_pages_or_the_reader_are_short_is_told_by_what_the_wrong_answers_were_given() -> None:
    about = "pages, or a better reader"
    assert found(point(WEAK, at_hand=0.95))[about].says.startswith(
        "A better reader (a larger model, more pairs) before more pages: "
    )
    assert found(point(WEAK, at_hand=0.05))[about].says.startswith("More pages, or better search, before a better reader: only ")
    unsure = found(point(WEAK, at_hand=0.5))[about]
    assert not unsure.tells and unsure.says.startswith("Cannot tell whether pages or the reader are short: ")
    assert not found(point(dict.fromkeys(ARMS, 1.0)))[about].tells  # nothing is wrong


def test_a_larger_model_is_advised_where_it_is_proven_better_and_a_smaller_one_where_it_is_no_worse() -> None:
    own = point(WEAK)
    larger, smaller = point(GOOD, base="big", parameters=90), point(WEAK, base="little", parameters=2)
    assert found(own, larger)["base model"].says.startswith("A larger model, big, is proven to be better: the larger big is 0.3")
    assert found(own, smaller)["base model"].says.startswith("A smaller model, little, is enough (less than 0.10 worse): ")
    worse = found(point(GOOD), point(WEAK, base="big", parameters=90))["base model"]
    assert worse.tells and worse.says.startswith("The model in use: none of the others is proven better")
    few = found(point(WEAK, pages=8), point(WEAK | {"rag+lora": 0.45}, base="big", parameters=90, pages=8))["base model"]
    assert not few.tells and few.says.startswith("Cannot tell: the larger big is ")
    assert "one base model was tried" in found(own)["base model"].says


def test_points_are_compared_on_the_questions_that_all_were_asked() -> None:
    short = point(WEAK, 40)
    short = short._replace(answers=[each for each in short.answers if each["question"] != "q3"])
    assert summary([short, point(GOOD)], GATE)["questions"] == QUESTIONS - 1


def test_the_report_shows_the_curve_and_the_advice() -> None:
    found = summary([point(WEAK, 40), point(GOOD), point(GOOD, base="big", parameters=90_000_000)], GATE)
    text = page(judged(study=found | {"at": "2026-11-21T10:37:47+00:00", "base": "d"}))
    for words in ("What would help", "21 November 2026, 10:37 UTC, on 160 validation questions", "More pairs: with 400",
                  "big 90.0 M 400", "own 0.0 M 40 0.10"):  # fmt: skip
        assert words in said(text), words
    assert 'alt="Score by the number of training examples"' in text
    assert "What would help" not in page(judged())


def test_a_smaller_share_of_the_examples_is_part_of_a_larger_one(tmp_path: Path) -> None:
    records = [{"id": f"e{number}"} for number in range(30)]
    write_jsonl(tmp_path / "all/train.jsonl", records)
    write_jsonl(tmp_path / "all/validation.jsonl", records[:2])
    chosen = {}
    for share in (0.01, 0.1, 0.5, 1.0):
        write_share(tmp_path / "all", tmp_path / f"{share}", share, seed=1)
        chosen[share] = {each["id"] for each in read_jsonl(tmp_path / f"{share}/train.jsonl")}
        assert read_jsonl(tmp_path / f"{share}/validation.jsonl") == records[:2]
    assert [len(each) for each in chosen.values()] == [1, 3, 15, 30]
    assert chosen[0.01] < chosen[0.1] < chosen[0.5] < chosen[1.0]
    assert drawn(records, 15, seed=1) != drawn(records, 15, seed=2)


@pytest.mark.parametrize("shares", ["[]", "[0.3, 0.1, 1.0]", "[0.1, 0.5]", "[0.0, 1.0]", "[1.0, 1.0]"])
def test_shares_that_draw_no_curve_are_refused(tmp_path: Path, shares: str) -> None:
    (tmp_path / "study.yaml").write_text(f"shares: {shares}\nbases: []\nquestions: 9\nseed: 1\n")
    with pytest.raises(InputError, match=r"study\.yaml(.|\n)*shares"):
        load(StudyParams, tmp_path)


def test_a_base_model_that_is_named_twice_is_refused(tmp_path: Path) -> None:
    own, other = Base("tiny", tmp_path, 1, tmp_path), Base("other", tmp_path, 1, tmp_path)
    check_names([own, other])
    with pytest.raises(InputError, match="two base models are called tiny"):
        check_names([own, other, own])
    assert {arm for arm in ARMS if uses_adapter(arm)} == {"lora", "rag+lora"}
