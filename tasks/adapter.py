"""Stage `adapter`: a LoRA adapter trained on the examples, its curve, and proof that it changed."""

import math
import re
import tempfile
import time
from pathlib import Path
from typing import Any

from tasks.errors import InputError, RefusedError
from tasks.lineage import LINEAGE, lineage
from tasks.params import AdapterParams
from tasks.plots import training_curve
from tasks.prompts import check_chat_template
from tasks.records import Record, read_jsonl, write_json
from tasks.stage import fresh_folder, measure, run_stage, say

KEPT = ("adapter_model.safetensors", "adapter_config.json")  # the trainer also writes pickles; they stay out


def adapter(base: Path, examples: Path, out: Path, metrics: Path, plots: Path, params: AdapterParams) -> None:
    """Train, refuse what learnt nothing, write out/ (safetensors) and the curve."""
    train, validation = read_jsonl(examples / "train.jsonl"), read_jsonl(examples / "validation.jsonl")
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="tandem-adapter-") as workspace:
        trainer = make_trainer(base, train, validation, Path(workspace), params)
        trainer.train()
        curve = read_curve(trainer.state.log_history)
        proof = prove(trainer.model, curve)
        fresh_folder(out)
        save(trainer.model, out)
        write_json(out / LINEAGE, lineage(train))
    kept = proof["kept_step"], proof["validation_loss_best"]
    training_curve(curve, fresh_folder(plots) / "training.png", f"Training of the adapter: {verdict(proof)}", kept)
    write_json(metrics, proof | {"seconds": round(time.monotonic() - started, 1), "curve": curve})
    say(f"adapter: {verdict(proof)}")


def make_trainer(base: Path, train: list[Record], validation: list[Record], workspace: Path, params: AdapterParams) -> Any:
    import torch
    from datasets import Dataset, DatasetDict
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, EarlyStoppingCallback, PrinterCallback
    from trl import SFTTrainer

    if params.threads:
        torch.set_num_threads(params.threads)
    tokenizer = AutoTokenizer.from_pretrained(base, local_files_only=True)
    check_chat_template(tokenizer)
    check_lengths([*train, *validation], tokenizer, params.max_tokens)
    model = AutoModelForCausalLM.from_pretrained(base, local_files_only=True, dtype=torch.float32, use_safetensors=True)
    check_targets(model, params.targets)
    columns = {split: [{key: record[key] for key in ("prompt", "completion")} for record in records]
               for split, records in (("train", train), ("validation", validation))}  # fmt: skip
    data = DatasetDict({split: Dataset.from_list(records) for split, records in columns.items()})
    steps = math.ceil(len(train) / params.batch_size)
    trainer = SFTTrainer(
        model,
        args=configuration(params, max(1, int(steps * params.epochs) // params.evaluations), workspace),
        train_dataset=data["train"],
        eval_dataset=data["validation"],
        processing_class=tokenizer,
        peft_config=LoraConfig(
            r=params.rank, lora_alpha=params.alpha, lora_dropout=params.dropout, target_modules=params.targets
        ),
        callbacks=[EarlyStoppingCallback(params.patience), progress_callback()],
    )
    trainer.remove_callback(PrinterCallback)  # prints dicts; progress_callback says it in words
    return trainer


def check_targets(model: Any, targets: str | list[str]) -> None:
    """PEFT's own message does not say which names there are. A list holds ends of names, a string `all-linear` or a pattern."""
    layers = [name for name, module in model.named_modules() if not list(module.children())]
    if isinstance(targets, list):
        matched = {target: any(f".{name}".endswith(f".{target}") for name in layers) for target in targets}
    else:
        matched = {targets: targets == "all-linear" or any(re.fullmatch(targets, name) for name in layers)}
    unknown = [target for target, found in matched.items() if not found]
    if unknown or not targets:
        there = ", ".join(sorted({name.rsplit(".", 1)[-1] for name in layers if "norm" not in name}))
        raise InputError(f"params/adapter.yaml: targets: {unknown} name no layer of the base model; it has {there}")


def configuration(params: AdapterParams, evaluate_every: int, workspace: Path) -> Any:
    import torch
    from trl import SFTConfig

    return SFTConfig(
        output_dir=str(workspace),
        max_length=params.max_tokens,
        num_train_epochs=params.epochs,
        per_device_train_batch_size=params.batch_size,
        per_device_eval_batch_size=params.batch_size,
        learning_rate=params.learning_rate,
        lr_scheduler_type=params.schedule,
        warmup_steps=params.warmup_steps,
        eval_strategy="steps",
        eval_steps=evaluate_every,
        eval_on_start=True,
        save_steps=evaluate_every,
        save_total_limit=2,
        save_only_model=True,
        load_best_model_at_end=True,
        metric_for_best_model="eval_loss",
        logging_steps=max(1, evaluate_every // 4),
        activation_checkpointing=False,  # TRL's default recomputes every activation: up to 1.5x the time, to save memory
        seed=params.seed,
        data_seed=params.seed,
        bf16=uses_bfloat16(params.precision),
        use_cpu=not torch.cuda.is_available(),
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def uses_bfloat16(precision: str) -> bool:
    """Probed, not assumed: a processor without native bfloat16 emulates it, slower than float32."""
    import torch

    if precision != "auto":
        return precision == "bfloat16"
    if torch.cuda.is_available():
        return bool(torch.cuda.is_bf16_supported())
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def progress_callback() -> Any:
    from transformers import TrainerCallback

    class Progress(TrainerCallback):  # type: ignore[misc]
        """Every logged point goes to whoever watches, at once; a loss that is no number stops the run."""

        def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **kwargs: Any) -> None:
            numbers = {key: value for key, value in (logs or {}).items() if isinstance(value, int | float)}
            check_finite(numbers, state.global_step)
            kept = {name: numbers[key] for key, name in CURVE.items() if key in numbers}
            if kept:
                measure(state.global_step, **kept)
            if losses := [
                f"{name.replace('_', ' ')} {kept[name]:.3f}" for name in ("train_loss", "validation_loss") if name in kept
            ]:
                say(f"step {state.global_step} of {state.max_steps}: {', '.join(losses)}")

    return Progress()


CURVE = {"loss": "train_loss", "eval_loss": "validation_loss", "learning_rate": "learning_rate", "grad_norm": "gradient_norm"}


def check_finite(numbers: dict[str, float], step: int) -> None:
    bad = [key for key, value in numbers.items() if not math.isfinite(value)]
    if bad:
        raise RefusedError(
            f"{bad[0]} is {numbers[bad[0]]} at step {step}: training diverged. Lower learning_rate in params/adapter.yaml"
        )


def check_lengths(records: list[Record], tokenizer: Any, max_tokens: int) -> None:
    """Truncation would cut the answer, and with it every label. Say so before training, not after."""
    lengths = [
        len(tokenizer.apply_chat_template([*record["prompt"], *record["completion"]], tokenize=True, return_dict=False))
        for record in records
    ]
    long = [length for length in lengths if length > max_tokens]
    if long:
        raise InputError(
            f"{len(long)} of {len(records)} examples are longer than max_tokens={max_tokens} (the longest {max(long)}); "
            "their answers would be cut. Raise max_tokens in params/adapter.yaml or lower max_prompt_tokens in params/prompt.yaml"
        )


def read_curve(history: list[dict[str, Any]]) -> list[dict[str, float]]:
    """The trainer's log as points {"step", "train_loss" and/or "validation_loss", ...}."""
    points = [{"step": entry["step"]} | {name: entry[key] for key, name in CURVE.items() if key in entry} for entry in history]
    return [point for point in points if len(point) > 1]


def prove(model: Any, curve: list[dict[str, float]]) -> dict[str, float]:
    """LoRA starts with B = 0, an adapter that changes nothing. Raises RefusedError where it still does, or is no number."""
    norms = [float(weight.detach().norm()) for name, weight in model.named_parameters() if "lora_B" in name]
    if not norms or not all(map(math.isfinite, norms)):
        raise RefusedError(
            "the adapter has no weights, or weights that are no numbers; lower learning_rate in params/adapter.yaml"
        )
    if max(norms) == 0:
        raise RefusedError("the adapter did not change (every B is 0); check learning_rate and targets in params/adapter.yaml")
    first, *later = [(point["validation_loss"], point["step"]) for point in curve if "validation_loss" in point]
    best, step = min(later)  # the first evaluation is of the untrained adapter, of which there is no checkpoint
    return {
        "lora_b_norm": math.sqrt(sum(norm**2 for norm in norms)),
        "trainable_parameters": sum(weight.numel() for weight in model.parameters() if weight.requires_grad),
        "steps": max(int(point["step"]) for point in curve),
        "kept_step": int(step),
        "validation_loss_first": first[0],
        "validation_loss_best": best,
        "improved": float(best < first[0]),
    }


def verdict(proof: dict[str, float]) -> str:
    """For the log and above the picture. A worse loss is no refusal: answers are what counts, and the gate judges those."""
    losses = f"validation loss {proof['validation_loss_first']:.3f} -> {proof['validation_loss_best']:.3f}"
    return losses if proof["improved"] else f"WARNING: no better than untrained, {losses}"


def save(model: Any, out: Path) -> None:
    model.save_pretrained(out, safe_serialization=True)
    for path in out.iterdir():
        if path.name not in KEPT:
            path.unlink()


if __name__ == "__main__":
    run_stage(adapter)
