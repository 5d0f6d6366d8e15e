"""Stage `adapter`: a LoRA adapter trained on the examples, its curve, and proof that it changed and what it forgot."""

import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from tasks.batches import tokenised
from tasks.checkpoints import Checkpoints, Progress, stop_asked, training_key
from tasks.energy import metered
from tasks.errors import InputError
from tasks.forgetting import check_forgetting, forgetting, read_passages
from tasks.guards import check_changed, check_examples, check_targets, check_trainable
from tasks.lineage import LINEAGE, lineage, made_for
from tasks.params import AdapterParams
from tasks.plots import training_curve
from tasks.probes import check_probes, probing, read_probes
from tasks.prompts import check_chat_template
from tasks.records import read_json, read_jsonl, write_json
from tasks.stage import fresh_folder, run_stage, say
from tasks.training import Trainer, peak_memory_mb, run

CONFIG = "adapter_config.json"
KEPT = ("adapter_model.safetensors", CONFIG)  # PEFT also writes a page about the model


def adapter(
    base: Path, examples: Path, general: Path, probes: Path, out: Path, metrics: Path, plots: Path, checkpoints: Path,
    params: AdapterParams,
) -> None:  # fmt: skip
    """Train, or go on where SIGTERM or a kill interrupted it; refuse what learnt nothing; write out/ (safetensors) and the curve.

    `checkpoints`: a folder of the stage's own, outside of DVC, empty again when it is done.
    """
    started, train = time.monotonic(), read_jsonl(examples / "train.jsonl")
    learnt = {"train": train, "validation": read_jsonl(examples / "validation.jsonl")}
    with stop_asked() as stopping, metered() as energy:
        trainer, tokenizer = make_trainer(base, learnt, params)
        own = trainer.accelerator
        passages = read_passages(general, tokenizer, params.max_tokens)
        questions = read_probes(probes, tokenizer)
        kept = Checkpoints(checkpoints, training_key(base, examples, params, own.num_processes))
        progress = run(trainer, kept, stopping)
        proof = prove(trainer, progress) | forgetting(trainer, passages) | probing(trainer, questions)
    own.wait_for_everyone()
    check_forgetting(proof, params.max_perplexity_ratio)
    check_probes(proof, params.max_probe_loss)
    if own.is_main_process:  # one adapter, written once
        fresh_folder(out)
        save(trainer.model, out)
        write_json(out / LINEAGE, lineage(train) | {"base": made_for(base)})
        report(progress, proof | energy() | {"seconds": round(time.monotonic() - started, 1)}, metrics, plots)
        kept.clear()
    own.end_training()


def make_trainer(base: Path, records: Mapping[str, Any], params: AdapterParams) -> tuple[Trainer, Any]:
    """Everything that can be known to be wrong is, before the first step. Also the tokenizer."""
    import torch
    from accelerate import Accelerator
    from transformers import AutoTokenizer

    if params.threads:
        torch.set_num_threads(params.threads)
    accelerator = Accelerator(cpu=not torch.cuda.is_available())
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    check_chat_template(tokenizer)
    data = {split: [tokenised(record, tokenizer) for record in found] for split, found in records.items()}
    check_examples(data["train"], data["validation"], params.max_tokens)
    half = uses_bfloat16(params.precision)
    model = adapted(load_base(base, params, half), params).to(accelerator.device)
    say(f"adapter: {check_trainable(model)} parameters to train on {accelerator.device}, {'bfloat16' if half else 'float32'}")
    arithmetic = partial(torch.autocast, accelerator.device.type, torch.bfloat16, enabled=half)
    padding = tokenizer.eos_token_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
    return Trainer(model, padding, data["train"], data["validation"], params, accelerator, arithmetic), tokenizer


def load_base(base: Path, params: AdapterParams, half: bool) -> Any:
    """Raises InputError for 4-bit weights without a GPU: there is no kernel for them."""
    import torch
    from transformers import AutoModelForCausalLM

    on_gpu = torch.cuda.is_available()
    options: dict[str, Any] = {"dtype": torch.bfloat16 if half and on_gpu else torch.float32}
    if params.variant == "qlora":
        if not on_gpu:
            raise InputError(
                "params/adapter.yaml: variant: qlora needs a CUDA GPU (its 4-bit kernels); use lora, dora or rslora here"
            )
        options["quantization_config"] = four_bits()
    return AutoModelForCausalLM.from_pretrained(base, local_files_only=True, use_safetensors=True, **options)


def four_bits() -> Any:
    """As the QLoRA paper has it (Dettmers et al. 2023): NormalFloat4, its constants quantised again."""
    import torch
    from transformers import BitsAndBytesConfig

    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.bfloat16,
    )


def adapted(model: Any, params: AdapterParams) -> Any:
    """The base model, frozen, with an untrained adapter of the variant that params name."""
    import torch
    from peft import LoraConfig, get_peft_model, prepare_model_for_kbit_training

    check_targets(model, params.targets)
    if params.variant == "qlora":
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    torch.manual_seed(params.seed)  # of A
    config = LoraConfig(
        r=params.rank,
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        target_modules=params.targets,
        use_dora=params.variant == "dora",
        use_rslora=params.variant == "rslora",
        task_type="CAUSAL_LM",
    )
    return get_peft_model(model, config)


def uses_bfloat16(precision: str) -> bool:
    """Probed, not assumed: a processor without native bfloat16 emulates it, slower than float32."""
    import torch

    if precision != "auto":
        return precision == "bfloat16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def prove(trainer: Trainer, progress: Progress) -> dict[str, float]:
    """That it learnt, by numbers. `overfitting`: how far validation rose again after the step that is kept."""
    losses = [point["validation_loss"] for point in progress.curve if "validation_loss" in point]
    best, train = min(losses[1:]), [point["train_loss"] for point in progress.curve if "train_loss" in point]
    return {
        "lora_b_norm": check_changed(trainer.weights),
        "trainable_parameters": check_trainable(trainer.model),
        "steps": progress.step,
        "kept_step": progress.best_step,
        "validation_loss_first": losses[0],
        "validation_loss_best": best,
        "improved": float(best < losses[0]),
        "overfitting": losses[-1] - best,
        "generalisation_gap": best - train[-1],
        "tokens_per_second": progress.tokens / progress.seconds,
        "padding": 1 - progress.tokens / progress.padded,
        "memory_mb": peak_memory_mb(),
    }


def verdict(proof: Mapping[str, float]) -> str:
    """For the log and above the picture. A worse loss is no refusal: answers are what counts, and the gate judges those."""
    losses = f"validation loss {proof['validation_loss_first']:.3f} -> {proof['validation_loss_best']:.3f}"
    if not proof["improved"]:
        return f"WARNING: no better than untrained, {losses}"
    rose = f"; it rose by {proof['overfitting']:.3f} after step {proof['kept_step']:g}, which is kept"
    return losses + (rose if proof["overfitting"] > 0 else "")


def report(progress: Progress, proof: dict[str, float], metrics: Path, plots: Path) -> None:
    kept = proof["kept_step"], proof["validation_loss_best"]
    training_curve(progress.curve, fresh_folder(plots) / "training.png", f"Training of the adapter: {verdict(proof)}", kept)
    write_json(metrics, proof | {"curve": progress.curve})
    forgot = f"general text {proof['perplexity_ratio']:.2f} times as perplexing"
    probed = f"probes {proof['probe_accuracy_base']:.0%} -> {proof['probe_accuracy']:.0%} right"
    say(f"adapter: {verdict(proof)}; {proof['tokens_per_second']:.0f} tokens/s; {forgot}, {probed}")


def save(model: Any, out: Path) -> None:
    """Weights and configuration; PEFT writes the names of layers in the order of a set, which is another one in every process."""
    model.save_pretrained(out, safe_serialization=True)
    for path in out.iterdir():
        if path.name not in KEPT:
            path.unlink()
    config = read_json(out / CONFIG)
    targets = config["target_modules"]
    write_json(out / CONFIG, config | {"target_modules": sorted(targets) if isinstance(targets, list) else targets})


if __name__ == "__main__":
    run_stage(adapter)
