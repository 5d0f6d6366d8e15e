"""What counts as a probe, when an adapter has lost too many of them, and that a likelihood is that of the answer alone."""

import math
from pathlib import Path

import pytest
import tiny

from tasks.batches import Example, answer_losses, summed_loss, tensors
from tasks.errors import InputError, RefusedError
from tasks.probes import check_probes, read_probes
from tasks.records import Record, read_jsonl, write_jsonl

SHIPPED = tiny.ROOT / "infra/probes.jsonl"


def test_each_shipped_probe_has_four_answers_that_stand_in_its_text() -> None:
    for record in read_jsonl(SHIPPED):
        answers = [record["answer"], *record["wrong"]]
        assert len(set(answers)) == 4
        assert all(answer in record["prompt"] for answer in answers)


@pytest.mark.parametrize(
    "record",
    [
        {"prompt": "a", "answer": "b"},
        {"prompt": "a", "answer": "b", "wrong": []},
        {"prompt": "a", "answer": "b", "wrong": "c"},
        {"prompt": "a", "answer": 1, "wrong": ["c"]},
        {"answer": "b", "wrong": ["c"]},
    ],
)
def test_a_probe_of_another_form_is_shown_with_the_form_that_it_should_have(tmp_path: Path, record: Record) -> None:
    write_jsonl(tmp_path / "probes.jsonl", [record])
    with pytest.raises(InputError, match=r'probes\.jsonl: \{.*write \{"prompt": "\.\.\.", "answer": "\.\.\.", "wrong"'):
        read_probes(tmp_path / "probes.jsonl", None)


def test_no_probes_at_all_are_an_error_not_a_pass(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "probes.jsonl", [])
    with pytest.raises(InputError, match="holds no questions to measure forgetting on"):
        read_probes(tmp_path / "probes.jsonl", None)


@pytest.mark.parametrize(("before", "after"), [(0.8, 0.7), (0.5, 0.9)])
def test_an_adapter_may_lose_a_few_probes(before: float, after: float) -> None:
    check_probes({"probe_accuracy_base": before, "probe_accuracy": after}, 0.15)


@pytest.mark.parametrize("after", [0.5, math.nan])
def test_an_adapter_that_loses_more_or_cannot_be_measured_is_refused(after: float) -> None:
    with pytest.raises(RefusedError, match=r"of the probes rightly, the base model 80%; max_probe_loss is 0\.15"):
        check_probes({"probe_accuracy_base": 0.8, "probe_accuracy": after}, 0.15)


def test_losses_by_answer_are_those_of_each_answer_alone(tiny_base: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_base).eval()
    batch = [Example([5, 6, 7, 8], 2), Example([9, 8, 7, 6, 5, 4, 3], 4), Example([3, 4], 1)]
    with torch.no_grad():
        together = answer_losses(model, tensors(batch, 0, "cpu")).tolist()
        alone = [float(summed_loss(model, tensors([each], 0, "cpu"))) for each in batch]
    assert together == pytest.approx(alone, rel=1e-4)
