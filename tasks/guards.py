"""What makes a training worthless without an error: looked for before it, during it and after it, and refused by name."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from tasks.batches import Example
from tasks.errors import InputError, RefusedError

PARAMS = "params/adapter.yaml"


def check_examples(train: Sequence[Example], validation: Sequence[Example], max_tokens: int) -> None:
    """Something to learn and something to judge by, an answer in each, and none that truncation would cut."""
    for split, examples in (("training", train), ("validation", validation)):
        if not examples:
            raise InputError(
                f"there are no {split} examples; add questions (tandem ingest), or change the shares in params/questions.yaml"
            )
        silent = sum(example.answer == 0 for example in examples)
        if silent:
            raise InputError(
                f"{silent} of {len(examples)} {split} examples have no answer to learn from: every label is masked. See that the "
                "questions have answers, and that the base model's chat template writes what the assistant says"
            )
    every = [*train, *validation]
    long = [len(example) for example in every if len(example) > max_tokens]
    if long:
        raise InputError(
            f"{len(long)} of {len(every)} examples are longer than max_tokens={max_tokens} (the longest {max(long)}); "
            f"their answers would be cut. Raise max_tokens in {PARAMS} or lower max_prompt_tokens in params/prompt.yaml"
        )


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
        raise InputError(f"{PARAMS}: targets: {unknown} name no layer of the base model; it has {there}")


def check_trainable(model: Any) -> int:
    """How many parameters are trained. Raises RefusedError where it is none, or more than the adapter's own."""
    trained = {name: weight.numel() for name, weight in model.named_parameters() if weight.requires_grad}
    if not trained:
        raise RefusedError(f"no parameter would be trained; check targets in {PARAMS}")
    foreign = [name for name in trained if "lora_" not in name]
    if foreign:
        raise RefusedError(
            f"{len(foreign)} parameters of the base model itself would be trained ({foreign[0]}, ...): no adapter holds them"
        )
    return sum(trained.values())


def check_finite(numbers: Mapping[str, float], step: int) -> None:
    bad = [key for key, value in numbers.items() if not math.isfinite(value)]
    if bad:
        raise RefusedError(f"{bad[0]} is {numbers[bad[0]]} at step {step}: training diverged. Lower learning_rate in {PARAMS}")


def check_changed(weights: Mapping[str, Any]) -> float:
    """The norm of all B. LoRA starts with B = 0, which changes nothing: RefusedError where it still is, or is no number."""
    norms = {name: float(weight.detach().norm()) for name, weight in weights.items()}
    if not norms or not all(map(math.isfinite, norms.values())):
        raise RefusedError(f"the adapter has no weights, or weights that are no numbers; lower learning_rate in {PARAMS}")
    found = [norm for name, norm in norms.items() if "lora_B" in name]
    if not any(found):
        raise RefusedError(f"the adapter did not change (every B is 0); check learning_rate and targets in {PARAMS}")
    return math.sqrt(sum(norm**2 for norm in found))
