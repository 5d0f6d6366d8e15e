import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

from tasks.adapter import adapter, verdict
from tasks.batches import answer_losses, summed_loss, tensors, tokenised
from tasks.errors import InputError, RefusedError
from tasks.lineage import LINEAGE, PIECES, question_key
from tasks.params import AdapterParams
from tasks.params_files import load
from tasks.records import Record, folder_digest, read_json, read_jsonl, write_jsonl

SHRUNK = load(AdapterParams, tiny.ROOT / "params").model_copy(
    update={
        "rank": 2,
        "alpha": 4,
        "epochs": 2.0,
        "batch_size": 4,
        "evaluations": 2,
        "max_tokens": 200,
        "threads": 1,
        "max_perplexity_ratio": 1000.0,
        "max_probe_loss": 1.0,
    }
)


def cuda() -> bool:
    import torch

    return bool(torch.cuda.is_available())


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


GENERAL, PROBES = tiny.ROOT / "infra/general.txt", tiny.ROOT / "infra/probes.jsonl"


def train(base: Path, examples: Path, out: Path, general: Path = GENERAL, probes: Path = PROBES, **changed: Any) -> Path:
    params = AdapterParams.model_validate(SHRUNK.model_dump() | changed)
    places = out.with_suffix(".json"), out.with_suffix(".plots"), out.with_suffix(".checkpoints")
    adapter(base, examples, general, probes, out, *places, params)
    assert not places[2].exists()
    return out


def test_an_adapter_is_weights_without_pickles_its_curve_and_what_it_learnt_from(
    tiny_base: Path, examples: Path, tmp_path: Path
) -> None:
    out = train(tiny_base, examples, tmp_path / "out")
    assert sorted(path.name for path in out.iterdir()) == ["adapter_config.json", "adapter_model.safetensors", LINEAGE]
    metrics = read_json(tmp_path / "out.json")
    assert metrics["lora_b_norm"] > 0 and metrics["steps"] == 4
    assert metrics["probes"] == 50 and 0 < metrics["probe_accuracy_base"] < 1 and 0 < metrics["probe_accuracy"] < 1
    kept = next(point for point in metrics["curve"] if point["step"] == metrics["kept_step"] and "validation_loss" in point)
    assert metrics["kept_step"] > 0 and kept["validation_loss"] == metrics["validation_loss_best"]
    assert metrics["improved"] == (metrics["validation_loss_best"] < metrics["validation_loss_first"])
    assert next(point["step"] for point in metrics["curve"] if "validation_loss" in point) == 0
    assert question_key(tiny.rows()[0][2]) in read_json(out / LINEAGE)["questions"]
    assert read_json(out / LINEAGE)["base"].keys() == PIECES.keys()
    assert question_key(tiny.rows()[11][2]) not in read_json(out / LINEAGE)["questions"]  # a validation question


def proof_of(*losses: float) -> dict[str, float]:
    best = min(losses[1:])
    return {
        "validation_loss_first": losses[0], "validation_loss_best": best, "improved": float(best < losses[0]),
        "kept_step": 2.0 * losses.index(best), "overfitting": losses[-1] - best,
    }  # fmt: skip


def test_a_training_that_did_not_help_says_so_and_one_that_overfitted_says_what_is_kept() -> None:
    assert verdict(proof_of(2.0, 2.5, 2.2)) == "WARNING: no better than untrained, validation loss 2.000 -> 2.200"
    assert verdict(proof_of(2.0, 1.5)) == "validation loss 2.000 -> 1.500"
    assert verdict(proof_of(2.0, 1.5, 1.75)) == "validation loss 2.000 -> 1.500; it rose by 0.250 after step 2, which is kept"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_where_validation_rises_the_best_weights_are_kept_and_training_ends_early(
    tiny_base: Path, examples: Path, tmp_path: Path, precision: str
) -> None:
    """Eight examples learnt by heart at a high rate, judged by others."""
    changed = {"learning_rate": 0.05, "epochs": 40.0, "evaluations": 20, "rank": 8, "max_perplexity_ratio": 1e22}
    out = train(tiny_base, examples, tmp_path / "out", **changed, precision=precision)
    metrics = read_json(tmp_path / "out.json")
    losses = {point["step"]: point["validation_loss"] for point in metrics["curve"] if "validation_loss" in point}
    assert metrics["steps"] < 80 and metrics["overfitting"] > 0
    assert metrics["kept_step"] == min(list(losses)[1:], key=losses.__getitem__) < metrics["steps"]
    assert metrics["overfitting"] == pytest.approx(losses[metrics["steps"]] - metrics["validation_loss_best"])
    half = precision == "bfloat16"  # its mantissa has 8 bits
    kept = pytest.approx(metrics["validation_loss_best"], rel=1e-2 if half else 1e-3)
    assert loss_of(tiny_base, out, examples) == kept != losses[metrics["steps"]]


def loss_of(base: Path, adapter: Path, examples: Path) -> float:
    """Of the adapter as a reader of the folder would load it, on the validation examples, in float32."""
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), str(adapter)).eval()
    found = [tokenised(record, AutoTokenizer.from_pretrained(base)) for record in read_jsonl(examples / "validation.jsonl")]
    with torch.no_grad():
        total = sum(float(summed_loss(model, tensors([each], 0, "cpu"))) for each in found)
    return total / sum(each.answer for each in found)


def test_the_same_seed_on_one_thread_gives_the_same_bytes_and_another_seed_others(
    tiny_base: Path, examples: Path, tmp_path: Path
) -> None:
    one, two = (folder_digest(train(tiny_base, examples, tmp_path / name)) for name in ("one", "two"))
    assert one == two
    assert folder_digest(train(tiny_base, examples, tmp_path / "three", seed=2)) != one


def test_random_numbers_do_not_depend_on_what_ran_before(tiny_base: Path, examples: Path, tmp_path: Path) -> None:
    import torch

    one = folder_digest(train(tiny_base, examples, tmp_path / "one", dropout=0.3))
    torch.manual_seed(99)
    assert folder_digest(train(tiny_base, examples, tmp_path / "two", dropout=0.3)) == one
    assert folder_digest(train(tiny_base, examples, tmp_path / "three")) != one


@pytest.mark.parametrize("variant", ["dora", "rslora"])
def test_a_variant_is_another_adapter_that_learns_too(tiny_base: Path, examples: Path, tmp_path: Path, variant: str) -> None:
    out = train(tiny_base, examples, tmp_path / "out", variant=variant)
    config = read_json(out / "adapter_config.json")
    assert (config["use_dora"], config["use_rslora"]) == (variant == "dora", variant == "rslora")
    assert loss_of(tiny_base, out, examples) < read_json(tmp_path / "out.json")["validation_loss_first"]


@pytest.mark.skipif(cuda(), reason="a GPU has the kernels")
def test_four_bit_weights_without_a_gpu_are_refused(tiny_base: Path, examples: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"variant: qlora needs a CUDA GPU .*use lora, dora or rslora"):
        train(tiny_base, examples, tmp_path / "out", variant="qlora")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_an_adapter_that_forgot_too_much_is_refused_and_not_written(
    tiny_base: Path, examples: Path, tmp_path: Path, precision: str
) -> None:
    """General text of signs that no answer has: what the answers gain in probability, these lose."""
    general = tmp_path / "general.txt"
    general.write_text("Ω≠%§{}~^ " * 8, encoding="utf-8")
    changed = {"learning_rate": 0.05, "epochs": 10.0, "rank": 8, "max_perplexity_ratio": 1.1}
    with pytest.raises(
        RefusedError, match=r"forgot too much: general text is .* times as perplexing .* max_perplexity_ratio is 1\.1\."
    ):
        train(tiny_base, examples, tmp_path / "out", general, **changed, precision=precision)
    assert not (tmp_path / "out").exists()


def test_an_adapter_that_answers_probes_worse_than_the_base_model_is_refused(
    tiny_base: Path, examples: Path, tmp_path: Path
) -> None:
    """The wrong answer to each is the one that it is taught; the right one is what the base model finds likelier than that."""
    probes = []
    for record in read_jsonl(examples / "train.jsonl")[:4]:
        prompt, taught = record["prompt"][0]["content"], record["completion"][0]["content"]
        probes.append({"prompt": prompt, "answer": likelier(tiny_base, prompt, taught), "wrong": [taught]})
    write_jsonl(tmp_path / "probes.jsonl", probes)
    changed = {"learning_rate": 0.05, "epochs": 10.0, "rank": 8, "max_perplexity_ratio": 1e22, "max_probe_loss": 0.5}
    with pytest.raises(RefusedError, match=r"forgot too much: it answers 0% of the probes rightly, the base model 100%"):
        train(tiny_base, examples, tmp_path / "out", probes=tmp_path / "probes.jsonl", **changed)
    assert not (tmp_path / "out").exists()


def likelier(base: Path, prompt: str, taught: str) -> str:
    """The words of the taught answer in the order that the base model finds the likeliest of some."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model, tokenizer = AutoModelForCausalLM.from_pretrained(base).eval(), AutoTokenizer.from_pretrained(base)
    words = taught.split()
    texts = [taught, *(" ".join(random.Random(seed).sample(words, len(words))) for seed in range(20))]
    asked = [{"role": "user", "content": prompt}]
    found = [tokenised({"prompt": asked, "completion": [{"role": "assistant", "content": text}]}, tokenizer) for text in texts]
    with torch.no_grad():
        losses = [float(answer_losses(model, tensors([each], 0, "cpu"))[0]) for each in found]
    best = min(range(len(texts)), key=losses.__getitem__)
    assert losses[best] < losses[0] - 0.05
    return texts[best]


def test_an_adapter_that_learnt_nothing_is_refused_and_not_written(tiny_base: Path, examples: Path, tmp_path: Path) -> None:
    """A rate that float32 rounds to nothing; 0 itself is no valid value (test_guards)."""
    with pytest.raises(RefusedError, match=r"did not change.*learning_rate"):
        train(tiny_base, examples, tmp_path / "out", learning_rate=1e-300)
    assert not (tmp_path / "out").exists()


def test_weights_that_are_no_numbers_stop_the_training(tiny_base: Path, examples: Path, tmp_path: Path) -> None:
    """Planted in the base model, so that the loss is NaN from the first evaluation on."""
    import torch
    from safetensors.torch import load_file, save_file

    base = shutil.copytree(tiny_base, tmp_path / "base")
    weights = load_file(base / "model.safetensors")
    weights["model.norm.weight"][0] = torch.nan
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(RefusedError, match="validation loss is nan at step 0: training diverged"):
        train(base, examples, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_targets_that_match_no_layer_are_told_with_the_layers_that_there_are(
    tiny_base: Path, examples: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=r"params/adapter\.yaml: targets.*q_proj"):
        train(tiny_base, examples, tmp_path / "out", targets=["query", "value"])
