"""Every fault that makes a training worthless, planted."""

import math
from pathlib import Path
from typing import Any

import pytest
import tiny

from tasks.batches import Example
from tasks.errors import InputError, RefusedError
from tasks.guards import check_changed, check_examples, check_finite, check_targets, check_trainable
from tasks.params import AdapterParams
from tasks.params_files import load

WHOLE = [Example([5, 6, 7, 8], 2)]


def test_examples_whose_labels_are_all_masked_are_named() -> None:
    check_examples(WHOLE, WHOLE, 4)
    with pytest.raises(InputError, match="1 of 2 training examples have no answer to learn from: every label is masked"):
        check_examples([*WHOLE, Example([5, 6], 0)], WHOLE, 4)
    with pytest.raises(InputError, match="there are no validation examples"):
        check_examples(WHOLE, [], 4)


def test_an_example_whose_answer_would_be_cut_is_refused() -> None:
    with pytest.raises(
        InputError, match=r"2 of 2 examples are longer than max_tokens=3 \(the longest 4\); their answers would be cut"
    ):
        check_examples(WHOLE, WHOLE, 3)


def test_a_learning_rate_of_nothing_is_no_valid_value(tmp_path: Path) -> None:
    text = (tiny.ROOT / "params/adapter.yaml").read_text().replace("learning_rate: 0.002", "learning_rate: 0")
    (tmp_path / "adapter.yaml").write_text(text)
    with pytest.raises(InputError, match=r"adapter\.yaml.*learning_rate.*greater than 0"):
        load(AdapterParams, tmp_path)


@pytest.fixture
def model(tiny_base: Path) -> Any:
    from transformers import AutoModelForCausalLM

    return AutoModelForCausalLM.from_pretrained(tiny_base)


def test_a_model_with_nothing_to_train_and_one_whose_own_weights_would_be_are_refused(model: Any) -> None:
    with pytest.raises(RefusedError, match="parameters of the base model itself would be trained"):
        check_trainable(model)
    for weight in model.parameters():
        weight.requires_grad = False
    with pytest.raises(RefusedError, match="no parameter would be trained; check targets"):
        check_trainable(model)


@pytest.mark.parametrize("targets", [["q_proj"], ["self_attn.v_proj", "o_proj"], r".*layers\.0\..*_proj", "all-linear"])
def test_targets_are_ends_of_names_or_a_pattern(model: Any, targets: str | list[str]) -> None:
    check_targets(model, targets)
    for wrong in (["proj"], "q_proj", []):
        with pytest.raises(InputError, match=r"params/adapter\.yaml: targets: .*q_proj"):
            check_targets(model, wrong)


def test_an_adapter_that_is_unchanged_or_no_number_is_refused() -> None:
    import torch

    assert check_changed({"lora_A": torch.ones(2), "lora_B": torch.tensor([3.0, 4.0])}) == 5.0
    with pytest.raises(RefusedError, match=r"did not change \(every B is 0\)"):
        check_changed({"lora_A": torch.ones(2), "lora_B": torch.zeros(2)})
    for weights in ({}, {"lora_A": torch.tensor([math.inf]), "lora_B": torch.ones(2)}):
        with pytest.raises(RefusedError, match="no weights, or weights that are no numbers"):
            check_changed(weights)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_none_stops_the_training(value: float) -> None:
    with pytest.raises(RefusedError, match=r"loss is .* at step 3: training diverged"):
        check_finite({"learning_rate": 0.1, "loss": value}, 3)
    check_finite({"loss": 1e9}, 3)
