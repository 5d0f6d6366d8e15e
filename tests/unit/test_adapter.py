import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

from tasks.adapter import adapter, check_finite, check_targets, prove, read_curve, verdict
from tasks.errors import InputError, RefusedError
from tasks.lineage import LINEAGE, question_key
from tasks.params import AdapterParams
from tasks.params_files import load
from tasks.records import Record, folder_digest, read_json, write_jsonl

SHRUNK = load(AdapterParams, tiny.ROOT / "params").model_copy(
    update={"rank": 2, "alpha": 4, "epochs": 2.0, "batch_size": 4, "evaluations": 2, "max_tokens": 200, "threads": 1}
)

# PEFT asks transformers for a property by its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@pytest.fixture(autouse=True)
def _threads() -> Iterator[None]:
    import torch

    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def example(number: int, question: str, answer: str) -> Record:
    return {
        "id": f"q{number}", "question": question, "document": f"page-{number}", "kind": "bare", "passages": [],
        "prompt": [{"role": "user", "content": f"Question: {question}"}],
        "completion": [{"role": "assistant", "content": answer}],
    }  # fmt: skip


@pytest.fixture
def examples(tmp_path: Path) -> Path:
    made = [example(number, row[2], tiny.HOUSE.format(row[3])) for number, row in enumerate(tiny.rows()[:12])]
    write_jsonl(tmp_path / "examples/train.jsonl", made[:8])
    write_jsonl(tmp_path / "examples/validation.jsonl", made[8:])
    return tmp_path / "examples"


def train(base: Path, examples: Path, out: Path, **changed: Any) -> Path:
    params = AdapterParams.model_validate(SHRUNK.model_dump() | changed)
    adapter(base, examples, out, out.with_suffix(".json"), out.with_suffix(".plots"), params)
    return out


def test_an_adapter_is_weights_without_pickles_its_curve_and_what_it_learnt_from(
    tiny_base: Path, examples: Path, tmp_path: Path
) -> None:
    out = train(tiny_base, examples, tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == ["adapter_config.json", "adapter_model.safetensors", LINEAGE]
    metrics = read_json(tmp_path / "out.json")
    assert metrics["lora_b_norm"] > 0 and metrics["steps"] == 4
    kept = next(point for point in metrics["curve"] if point["step"] == metrics["kept_step"] and "validation_loss" in point)
    assert metrics["kept_step"] > 0 and kept["validation_loss"] == metrics["validation_loss_best"]
    assert metrics["improved"] == (metrics["validation_loss_best"] < metrics["validation_loss_first"])
    assert next(point["step"] for point in metrics["curve"] if "validation_loss" in point) == 0
    assert question_key(tiny.rows()[0][2]) in read_json(out / LINEAGE)["questions"]
    assert question_key(tiny.rows()[11][2]) not in read_json(out / LINEAGE)["questions"]  # a validation question


def curve_of(*losses: float) -> list[dict[str, float]]:
    return [{"step": 2.0 * number, "validation_loss": loss} for number, loss in enumerate(losses)]


class Layer:
    """A model as `prove` sees it: one weight."""

    def named_parameters(self) -> list[tuple[str, Any]]:
        import torch

        return [("lora_B", torch.nn.Parameter(torch.ones(2)))]

    def parameters(self) -> list[Any]:
        return [weight for _, weight in self.named_parameters()]


def test_the_untrained_adapter_is_no_checkpoint_and_is_not_what_was_kept() -> None:
    worse = prove(Layer(), curve_of(2.0, 2.5, 2.2, 2.4))
    assert (worse["kept_step"], worse["validation_loss_best"], worse["improved"]) == (4, 2.2, 0.0)
    assert verdict(worse) == "WARNING: no better than untrained, validation loss 2.000 -> 2.200"
    better = prove(Layer(), curve_of(2.0, 1.5, 1.7))
    assert (better["kept_step"], better["validation_loss_best"], better["improved"]) == (2, 1.5, 1.0)
    assert verdict(better) == "validation loss 2.000 -> 1.500"


def test_the_same_seed_on_one_thread_gives_the_same_bytes_and_another_seed_others(
    tiny_base: Path, examples: Path, tmp_path: Path
) -> None:
    one, two = (folder_digest(train(tiny_base, examples, tmp_path / name)) for name in ("one", "two"))
    assert one == two
    assert folder_digest(train(tiny_base, examples, tmp_path / "three", seed=2)) != one


def test_an_adapter_that_learnt_nothing_is_refused_and_not_written(tiny_base: Path, examples: Path, tmp_path: Path) -> None:
    with pytest.raises(RefusedError, match=r"did not change.*learning_rate"):
        train(tiny_base, examples, tmp_path / "out", learning_rate=0.0)
    assert not (tmp_path / "out").exists()


def test_targets_that_match_no_layer_are_told_with_the_layers_that_there_are(
    tiny_base: Path, examples: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"params/adapter\.yaml: targets.*q_proj"):
        train(tiny_base, examples, tmp_path / "out", targets=["query", "value"])


@pytest.mark.parametrize("targets", [["q_proj"], ["self_attn.v_proj", "o_proj"], r".*layers\.0\..*_proj", "all-linear"])
def test_targets_are_ends_of_names_or_a_pattern(tiny_base: Path, targets: str | list[str]) -> None:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny_base)
    check_targets(model, targets)
    for wrong in (["proj"], "q_proj", []):
        with pytest.raises(InputError, match=r"params/adapter\.yaml: targets: .*q_proj"):
            check_targets(model, wrong)


def test_an_example_that_would_be_cut_is_refused_before_training(tiny_base: Path, examples: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"of 12 examples are longer than max_tokens=20 .*their answers would be cut"):
        train(tiny_base, examples, tmp_path / "out", max_tokens=20)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_loss_that_is_no_number_stops_the_training(value: float) -> None:
    with pytest.raises(RefusedError, match=r"loss is .* at step 3: training diverged"):
        check_finite({"learning_rate": 0.1, "loss": value}, 3)
    check_finite({"loss": 1e9}, 3)


def test_the_curve_holds_only_points_that_were_measured() -> None:
    history = [{"step": 1, "loss": 2.0, "epoch": 0.5}, {"step": 1, "eval_loss": 1.5}, {"step": 2, "train_runtime": 9.0}]
    assert read_curve(history) == [{"step": 1, "train_loss": 2.0}, {"step": 1, "validation_loss": 1.5}]
