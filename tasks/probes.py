"""What an adapter unlearnt: texts with a question to each and several answers, of which the right one must be the likeliest.

As lm-evaluation-harness scores multiple choice (`acc`): by the log-likelihood of each answer. Nothing is generated.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.batches import Example, answer_losses, tensors, tokenised
from tasks.errors import InputError, RefusedError
from tasks.records import Record, read_jsonl
from tasks.training import Trainer

Probe = Sequence[Example]  # the answers, the right one first


def read_probes(path: Path, tokenizer: Any) -> list[Probe]:
    """Lines of {"prompt", "answer", "wrong": [...]}. Raises InputError for one of another form, and where there is none."""
    probes: list[Probe] = [[tokenised(example, tokenizer) for example in options(record, path)] for record in read_jsonl(path)]
    if not probes:
        raise InputError(f"{path} holds no questions to measure forgetting on; put some there")
    return probes


def options(record: Record, path: Path) -> list[Record]:
    wrong = record.get("wrong")
    texts = [record.get("prompt"), record.get("answer"), *(wrong if isinstance(wrong, list) else [None])]
    if len(texts) < 3 or not all(isinstance(text, str) for text in texts):
        raise InputError(f'{path}: {str(record)[:80]}: write {{"prompt": "...", "answer": "...", "wrong": ["...", ...]}}')
    prompt = [{"role": "user", "content": record["prompt"]}]
    return [{"prompt": prompt, "completion": [{"role": "assistant", "content": text}]} for text in texts[1:]]


def probing(trainer: Trainer, probes: Sequence[Probe]) -> dict[str, float]:
    """Share of right answers without and with the adapter."""
    with trainer.model.disable_adapter():
        before = accuracy(trainer, probes)
    return {"probes": float(len(probes)), "probe_accuracy_base": before, "probe_accuracy": accuracy(trainer, probes)}


def accuracy(trainer: Trainer, probes: Sequence[Probe]) -> float:
    import torch

    trainer.model.eval()
    device, right = trainer.accelerator.device, 0
    with torch.no_grad(), trainer.arithmetic():
        for probe in probes:
            losses = answer_losses(trainer.model, tensors(probe, trainer.padding, device))
            right += int(losses.argmin() == 0)
    return right / len(probes)


def check_probes(proof: Mapping[str, float], most: float) -> None:
    """Raises RefusedError where more is lost than `most`, a share of the questions."""
    before, after = proof["probe_accuracy_base"], proof["probe_accuracy"]
    if not before - after <= most:
        raise RefusedError(
            f"the adapter forgot too much: it answers {after:.0%} of the probes rightly, the base model {before:.0%}; "
            f"max_probe_loss is {most:g}. Lower learning_rate, rank or epochs in params/adapter.yaml, or raise the limit"
        )
