"""What an adapter forgot: how much more perplexing general text, which it was not trained on, is with it than without."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.batches import Example, plain
from tasks.errors import InputError, RefusedError
from tasks.training import Trainer, mean_loss


def read_passages(path: Path, tokenizer: Any, max_tokens: int) -> list[Example]:
    """Passages that an empty line separates."""
    passages = [passage.strip() for passage in path.read_text(encoding="utf-8").split("\n\n")]
    found = [plain(passage, tokenizer, max_tokens) for passage in passages if passage]
    scored = [example for example in found if example.answer > 0]
    if not scored:
        raise InputError(f"{path} holds no text to measure forgetting on; put some general passages there, an empty line between")
    return scored


def forgetting(trainer: Trainer, passages: list[Example]) -> dict[str, float]:
    """Perplexity (the exponential of the loss per token) without and with the adapter, and their ratio: 1 is nothing lost."""
    with trainer.model.disable_adapter():
        before = mean_loss(trainer, passages)
    after = mean_loss(trainer, passages)
    return {
        "perplexity_base": exponential(before),
        "perplexity": exponential(after),
        "perplexity_ratio": exponential(after - before),
    }


def exponential(loss: float) -> float:
    return math.exp(min(loss, 50.0))  # beyond, it says nothing more and would not fit JSON


def check_forgetting(proof: Mapping[str, float], most: float) -> None:
    """Raises RefusedError; a ratio that is no number is beyond every limit."""
    ratio = proof["perplexity_ratio"]
    if not ratio <= most:
        raise RefusedError(
            f"the adapter forgot too much: general text is {ratio:.2f} times as perplexing with it as without, and "
            f"max_perplexity_ratio is {most:g}. Lower learning_rate, rank or epochs in params/adapter.yaml, or raise the limit"
        )
