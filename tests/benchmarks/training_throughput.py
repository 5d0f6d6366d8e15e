"""Tokens learnt from a second, and TRL's: `python tests/benchmarks/training_throughput.py EXAMPLES [REPEATS [STEPS [MODEL]]]`.

EXAMPLES: the folder data/examples of the demo (`dvc repro examples`). MODEL: `builtin`, or `smollm2`, a random model of the
shape of SmolLM2-135M (30 layers of 576, a vocabulary of 49,152) with the built-in tokenizer. Each way learns from the same
examples with the same rank, rate, batch size and number of steps, every time in a fresh process; the ways take turns. The clock
runs over the training steps alone. Real tokens: without padding.

Prints, per way, tokens a second by the clock and by processor time (with OMP_NUM_THREADS=1 the one that other work does not
disturb), the paired ratios to TRL's defaults and to TRL tuned by hand with bootstrap intervals, the loss on the validation
examples (measured by one function for all), and peak memory; anew after every repeat, so that it may be stopped.
"""

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from tasks.batches import summed_loss, tensors, tokenised
from tasks.params import AdapterParams
from tasks.params_files import load
from tasks.records import read_jsonl

ROOT = Path(__file__).parents[2]
BUILTIN = ROOT / "infra/base_model/model"
# SFTConfig's own defaults but for what all ways share; and the best that its options give on a CPU
TRL: dict[str, dict[str, Any]] = {
    "TRL, defaults": {},
    "TRL, tuned by hand": {"activation_checkpointing": False, "train_sampling_strategy": "group_by_length", "bf16": True},
}
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "8589934592"}  # the hand tunes this too
WAYS = (*TRL, "tandem")
Measured = dict[str, float]


def main() -> None:
    examples, repeats, steps = Path(sys.argv[1]), *[*map(int, sys.argv[2:4]), *(5, 12)[len(sys.argv[2:4]) :]]
    model = sys.argv[4] if len(sys.argv) > 4 else "builtin"
    print(machine(), f"{model}, {steps} steps of {shared().batch_size} examples", sep="; ", flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        base = BUILTIN if model == "builtin" else write_smollm2(Path(scratch) / "base")
        found: dict[str, list[Measured]] = {way: [] for way in WAYS}
        for repeat in range(repeats):
            for way in WAYS:
                found[way].append(timed(way, base, examples, steps))
            line = ", ".join(f"{way} {found[way][-1]['wall']:.1f} ({found[way][-1]['cpu']:.1f})" for way in WAYS)
            print(f"run {repeat + 1}, load {os.getloadavg()[0]:.1f}: seconds (of processor) {line}", flush=True)
            show(found)


def machine() -> str:
    names = [
        line.split(":")[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")
    ]
    packages = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "trl"))
    return f"{names[0]}, {os.cpu_count()} cores, OMP_NUM_THREADS={os.environ.get('OMP_NUM_THREADS', 'unset')}; {packages}"


def shared() -> AdapterParams:
    return load(AdapterParams, ROOT / "params")


def write_smollm2(folder: Path) -> Path:
    """By its published config.json; random, so that only speed and the start of the loss mean something."""
    import shutil

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=49152, hidden_size=576, intermediate_size=1536, num_hidden_layers=30, num_attention_heads=9,
        num_key_value_heads=3, max_position_embeddings=8192, rope_theta=100000, tie_word_embeddings=True, pad_token_id=0,
        bos_token_id=1, eos_token_id=1, initializer_range=1 / 24,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(BUILTIN / name, folder / name)
    return folder


def timed(way: str, base: Path, examples: Path, steps: int) -> Measured:
    tuned = MALLOC if way != "TRL, defaults" else {}
    command = [sys.executable, "-W", "ignore", __file__, "--one", way, str(base), str(examples), str(steps)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, env={**os.environ, **tuned, "TQDM_DISABLE": "1"})
    return dict(json.loads(done.stdout.splitlines()[-1]))


def one(way: str, base: Path, examples: Path, steps: int) -> None:
    """In a process of its own."""
    records = {split: read_jsonl(examples / f"{split}.jsonl") for split in ("train", "validation")}
    model, tokens, wall, cpu = (ours if way == "tandem" else theirs)(way, base, records, steps)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6
    print(
        json.dumps({"tokens": tokens, "wall": wall, "cpu": cpu, "loss": held_out(model, base, records["validation"]), "mb": peak})
    )


def ours(way: str, base: Path, records: dict[str, Any], steps: int) -> tuple[Any, int, float, float]:
    from tasks.adapter import make_trainer
    from tasks.stage import keep_freed_memory
    from tasks.training import begin, take_step

    class Nothing:
        def newest(self) -> None:
            return None

    keep_freed_memory()
    trainer, _ = make_trainer(base, records, with_steps(len(records["train"]), steps))
    optimizer = begin(trainer, Nothing())[0]  # type: ignore[arg-type]
    wall, cpu = time.monotonic(), time.process_time()
    tokens = sum(take_step(trainer, optimizer, step).tokens for step in range(steps))
    return trainer.model, tokens, time.monotonic() - wall, time.process_time() - cpu


def with_steps(count: int, steps: int) -> AdapterParams:
    """So that the schedule ends with the last step."""
    params = shared()
    return params.model_copy(update={"epochs": steps / -(-count // params.batch_size) + 1e-9})


def theirs(way: str, base: Path, records: dict[str, Any], steps: int) -> tuple[Any, int, float, float]:
    import torch
    from datasets import Dataset
    from peft import LoraConfig
    from transformers import AutoModelForCausalLM, AutoTokenizer, TrainerCallback
    from trl import SFTConfig, SFTTrainer

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, **__: Any) -> None:
            self.wall, self.cpu = time.monotonic(), time.process_time()

        def on_train_end(self, *_: Any, **__: Any) -> None:
            self.wall, self.cpu = time.monotonic() - self.wall, time.process_time() - self.cpu

    params, clock = shared(), Clock()
    data = Dataset.from_list([{key: record[key] for key in ("prompt", "completion")} for record in records["train"]])
    with tempfile.TemporaryDirectory() as scratch:
        trainer = SFTTrainer(
            AutoModelForCausalLM.from_pretrained(base, dtype="float32"),
            args=SFTConfig(
                output_dir=scratch, max_steps=steps, per_device_train_batch_size=params.batch_size, seed=params.seed,
                learning_rate=params.learning_rate, lr_scheduler_type=params.schedule, warmup_steps=params.warmup_steps,
                max_length=params.max_tokens, report_to="none", save_strategy="no",
                use_cpu=not torch.cuda.is_available(), **TRL[way],
            ),
            train_dataset=data,
            processing_class=AutoTokenizer.from_pretrained(base),
            peft_config=LoraConfig(r=params.rank, lora_alpha=params.alpha, lora_dropout=0.0, target_modules=params.targets),
            callbacks=[clock],
        )  # fmt: skip
        trainer.train()
    return trainer.model, int(trainer._total_train_tokens), clock.wall, clock.cpu


def held_out(model: Any, base: Path, records: list[Any]) -> float:
    """Loss per token of the answers, in float32, one example at a time."""
    import torch
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(base)
    found = [tokenised(record, tokenizer) for record in records]
    model = model.float().eval()
    with torch.no_grad():
        return sum(float(summed_loss(model, tensors([each], 0, model.device))) for each in found) / sum(
            each.answer for each in found
        )


def show(found: dict[str, list[Measured]]) -> None:
    print("\n| | tokens/s | per processor second | times TRL's defaults | times TRL tuned | held-out loss | peak MB |")
    print("|---|---|---|---|---|---|---|")
    for way, runs in found.items():
        speed = [np.median([run["tokens"] / run[clock] for run in runs]) for clock in ("wall", "cpu")]
        ratios = " | ".join(ratio(runs, found[peer]) for peer in TRL)
        loss, peak = (np.median([run[name] for run in runs]) for name in ("loss", "mb"))
        print(f"| {way} | {speed[0]:.0f} | {speed[1]:.0f} | {ratios} | {loss:.3f} | {peak:.0f} |", flush=True)


def ratio(runs: list[Measured], peers: list[Measured]) -> str:
    """By processor time: median of the paired ratios, and its 95 % interval over the repeats."""
    rate: Callable[[Measured], float] = lambda run: run["tokens"] / run["cpu"]  # noqa: E731
    ratios = np.array([rate(run) / rate(peer) for run, peer in zip(runs, peers, strict=True)])
    drawn = np.median(np.random.default_rng(0).choice(ratios, (10_000, len(ratios))), axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{np.median(ratios):.2f} ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], Path(sys.argv[3]), Path(sys.argv[4]), int(sys.argv[5]))
    else:
        main()
