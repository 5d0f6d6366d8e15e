from pathlib import Path

import pytest
import tiny

from tasks.errors import InputError
from tasks.evaluate import (
    Subject,
    answer_record,
    ask_alone,
    choose_shots,
    flat_metrics,
    score_answers,
    summarise,
    unseen_by,
    yardstick,
)
from tasks.generation import Generated
from tasks.lineage import LINEAGE, lineage
from tasks.params import ARMS, Arm, PromptParams
from tasks.params_files import load
from tasks.params_verdict import EvaluateParams, GateParams
from tasks.records import Record, write_json

PARAMS = load(EvaluateParams, tiny.ROOT / "params").model_copy(update={"resamples": 100})
PROMPT = load(PromptParams, tiny.ROOT / "params")
GATE = load(GateParams, tiny.ROOT / "params")


def question(number: int, document: str | None) -> Record:
    return {
        "id": f"q{number}", "question": f"When is {number}?", "answer": f"At Larkfield it is at {number}:45.",
        "document": document, "fact": f"at {number}:45" if document else None,
    }  # fmt: skip


ASKED = [question(number, f"page-{number % 3}") for number in range(1, 7)] + [question(7, None)]
RULES = yardstick(ASKED, PARAMS, PROMPT, GATE)


def passage(document: str) -> Record:
    return {"id": document, "document": document, "heading": "H", "text": "T", "score": 1.0}


def answered(arm: Arm, text: str) -> list[Record]:
    ranked = [passage("page-1"), passage("page-2"), passage("page-0")]
    given = ranked[:2] if "rag" in arm else []
    made = [Generated(text.format(number=record["id"][1:]), 10, 5) for record in ASKED]
    return [
        answer_record(record, arm, given, ranked, each) | {"latency_seconds": None}
        for record, each in zip(ASKED, made, strict=True)
    ]


def report() -> Record:
    records = [record for arm in ARMS for record in answered(arm, "At Larkfield it is at {number}:45 [1].")]
    return summarise(score_answers(records, PROMPT, PARAMS, GATE), RULES, PARAMS, GATE)


def test_the_report_separates_facts_from_saying_that_the_corpus_does_not_say() -> None:
    found = report()
    assert set(found["arms"]) == set(ARMS)
    metrics = found["arms"]["rag"]["metrics"]
    assert metrics["fact_answerable"]["mean"] == 1.0 and metrics["fact_answerable"]["n"] == 6
    assert metrics["abstention"]["mean"] == 0.0 and metrics["abstention"]["n"] == 1  # it invented an answer
    assert metrics["false_abstention"]["mean"] == 0.0
    assert found["questions"]["count"] == 7 and found["questions"]["unanswerable"] == 1


def test_arms_without_passages_get_nothing_for_a_citation_that_resolves_to_nothing() -> None:
    found = report()["arms"]
    assert found["rag"]["metrics"]["citation"]["mean"] > found["prompt"]["metrics"]["citation"]["mean"]
    assert found["rag"]["cost"] > found["prompt"]["cost"]


def test_retrieval_is_judged_on_questions_that_a_page_answers() -> None:
    found = report()["retrieval"]
    assert found and all(0 <= value <= 1 for value in found.values())
    assert summarise(score_answers(answered("prompt", "x"), PROMPT, PARAMS, GATE), RULES, PARAMS, GATE)["retrieval"] == {}


def test_what_was_not_timed_has_no_latency() -> None:
    assert report()["arms"]["rag"]["latency_p50"] is None


def test_an_answer_that_is_timed_embeds_its_question_and_searches_as_for_a_person() -> None:
    done: list[str] = []

    class Searcher:
        def forget(self, question: str) -> None:
            done.append("forget")

        def search(self, question: str, settings: object) -> list[Record]:
            done.append("search")
            return []

    class Speaker:
        def answer(self, messages: object) -> Generated:
            done.append("answer")
            return Generated("At noon.", 3, 2)

    subject = Subject(Searcher(), {"k": 1}, Path(), None, PROMPT, {}, {}, None)  # type: ignore[arg-type]
    arms: tuple[Arm, ...] = ("rag", "prompt")
    for arm in arms:
        found, timed = ask_alone(subject, arm, Speaker(), ASKED[0], [])  # type: ignore[arg-type]
        assert found.text == "At noon." and (timed["latency_seconds"] or 0) > 0
    assert done == ["forget", "search", "answer", "forget", "answer"]


def test_the_summary_for_dvc_and_mlflow_holds_means_only() -> None:
    flat = flat_metrics(report())
    assert flat["arms"]["rag"]["fact_answerable"] == 1.0
    assert all(isinstance(value, float) for values in flat["arms"].values() for value in values.values())


def test_the_yardstick_is_that_of_the_questions_and_the_rules_and_of_nothing_else() -> None:
    assert yardstick(ASKED[::-1], PARAMS, PROMPT, GATE) == RULES
    assert yardstick(ASKED, PARAMS.model_copy(update={"batch_tokens": 1}), PROMPT, GATE) == RULES
    weights = GATE.primary.model_copy(update={"fact": 0.5, "style": 0.3})
    changed = [
        yardstick(ASKED[1:], PARAMS, PROMPT, GATE),
        yardstick([ASKED[0] | {"fact": "at noon"}, *ASKED[1:]], PARAMS, PROMPT, GATE),
        yardstick([ASKED[0] | {"answer": "At Larkfield it is at noon."}, *ASKED[1:]], PARAMS, PROMPT, GATE),
        yardstick(ASKED, PARAMS.model_copy(update={"style": {}}), PROMPT, GATE),
        yardstick(ASKED, PARAMS.model_copy(update={"engine": "vllm"}), PROMPT, GATE),
        yardstick(ASKED, PARAMS, PROMPT.model_copy(update={"abstention_patterns": ["no idea"]}), GATE),
        yardstick(ASKED, PARAMS, PROMPT, GATE.model_copy(update={"primary": weights})),
    ]  # fmt: skip
    assert all(other["yardstick"] != RULES["yardstick"] for other in changed)
    assert all(other["questions"] != RULES["questions"] for other in changed[:3])


def test_the_report_tells_every_slice_apart() -> None:
    records = answered("rag", "At Larkfield it is at {number}:45 [1].")
    for number, record in enumerate(records):
        record["slices"] = ["tag even" if number % 2 else "tag odd"]
        record["answer"] = record["answer"] if number % 2 else "No."
    found = summarise(score_answers(records, PROMPT, PARAMS, GATE), RULES, PARAMS, GATE)["slices"]
    assert set(found) == {"tag even", "tag odd"} and set(found["tag even"]) == {"rag"}
    assert found["tag even"]["rag"]["fact"]["mean"] == 1.0 and found["tag even"]["rag"]["fact"]["n"] == 3
    assert found["tag odd"]["rag"]["fact"]["mean"] == 0.0 and found["tag odd"]["rag"]["primary"]["n"] == 4


def test_an_adapter_is_not_judged_by_questions_or_pages_that_it_was_trained_on(tmp_path: Path) -> None:
    trained = [{"question": "when is 2", "document": "page-old", "passages": []}, {**ASKED[2], "passages": []}]
    write_json(tmp_path / LINEAGE, lineage(trained))
    assert [record["id"] for record in unseen_by((tmp_path, None), ASKED)] == ["q1", "q4", "q5", "q7"]  # q3 and q6 are of page-0
    assert unseen_by((None, tmp_path / "plain"), ASKED) == ASKED
    with pytest.raises(InputError, match=r"none of the 2 test questions can judge the adapter.*tandem retrain"):
        unseen_by((None, tmp_path), [ASKED[1], ASKED[5]])


def test_arms_with_an_adapter_are_asked_without_shots_as_it_was_trained() -> None:
    shots = choose_shots(ASKED, None, {}, PROMPT.model_copy(update={"shots": {"prompt": 2, "rag": 0}}))  # type: ignore[arg-type]
    assert {arm: len(turns) for arm, turns in shots.items()} == {"prompt": 4, "rag": 0, "lora": 0, "rag+lora": 0}
