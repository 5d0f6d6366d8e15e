"""The model card: what Hugging Face's own reader finds in it, and what a person does."""

from typing import Any

import pytest
from huggingface_hub import ModelCard
from judging import HOSTILE, judged

from tasks.card import card

TRAINING = {"validation_loss_first": 2.0, "validation_loss_best": 0.5, "steps": 40, "curve": []}
EXAMPLES = {"train": {"examples": 400, "bare": 42}}


def text(**more: Any) -> str:
    return card(judged(training=TRAINING, examples=EXAMPLES, training_params={"rank": 16}, **more))


def test_hugging_face_reads_its_metadata() -> None:
    data = ModelCard(text()).data
    assert data.model_name == "tandem-111111111111"
    assert (data.library_name, data.pipeline_tag) == ("peft", "question-answering")
    assert data.tags == ["tandem", "lora", "retrieval-augmented-generation"]
    assert {result.metric_type: result.metric_value for result in data.eval_results} == {"primary": 0.5, "fact_answerable": 0.4}
    assert {result.dataset_revision for result in data.eval_results} == {"a" * 12}


def test_a_base_model_of_the_hub_is_named_as_such() -> None:
    case = judged()
    case.release["base"] = {"id": "some/model", "source": "hub", "digest": "d" * 64, "revision": "f" * 40}
    assert ModelCard(card(case)).data.base_model == "some/model"


def test_a_person_finds_data_training_evaluation_limits_and_lineage() -> None:
    found = text()
    assert [line for line in found.splitlines() if line.startswith("## ")] == [
        "## What it is for", "## Data", "## Training", "## Evaluation", "## Limits", "## Lineage",
    ]  # fmt: skip
    for line in (
        "| training examples | 400: 42 bare |", "| params: rank | 16 |",
        "The loss on validation examples went from 2.000 to 0.500.",
        "| **rag+lora** (served) | 0.50 (0.45 to 0.55) | 0.40 (0.35 to 0.45) | 100 |", "| adapter | digest dddddddddddd |",
        "These questions resolve differences of 0.08 or more in the score.", "Release 2 was promoted",
    ):  # fmt: skip
        assert line in found, line
    assert "{{" not in found and "None" not in found


def test_a_reranker_is_part_of_the_lineage_of_a_release_that_has_one() -> None:
    case = judged()
    assert "| reranker |" not in card(case)
    case.release["reranker"] = {"id": "some/reader", "source": "hub", "digest": "e" * 64}
    assert "| reranker | some/reader, digest eeeeeeeeeeee |" in card(case)


def test_an_arm_without_an_adapter_has_no_training() -> None:
    case = judged(training=TRAINING)
    case.verdict["arm"] = "rag"
    assert "No training is known of" in card(case)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_folder_name_of_the_corpus_is_no_markup(name: str) -> None:
    case = judged()
    metric = {"mean": 0.1, "low": 0.0, "high": 0.2, "n": 9}
    case.report["slices"] = {f"{name}|[x](javascript:y) {number}": {"rag+lora": {"primary": metric}} for number in range(5)}
    limits = card(case).split("## Limits")[1].split("## Lineage")[0]
    assert "It is weakest on: " in limits
    assert not {"<", "[", "|"} & set(limits)
