"""What a training set is made of, in numbers: kinds, types of answers, lengths in tokens, what was left out and why."""

import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from tasks.records import Record

PERCENTILES = (5, 50, 95, 100)
MARK = re.compile(r"\[\d+\]")  # a citation is no number of the answer
YES_NO = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def composition(made: Sequence[Record], dropped: Sequence[str], tokenizer: Any, abstention: str) -> Record:
    """Beside the kinds: pages asked about, passages per example, types of answers, and tokens as the trainer will see them."""
    whole = [rendered(tokenizer, [*each["prompt"], *each["completion"]], False) for each in made]
    prompts = [rendered(tokenizer, each["prompt"], True) for each in made]
    return {
        "answers": dict(sorted(Counter(answer_type(each["completion"][-1]["content"], abstention) for each in made).items())),
        "pages": len({each["document"] for each in made if each["document"]}),
        "passages": percentiles([len(each["passages"]) for each in made]),
        "prompt_tokens": percentiles(prompts),
        "answer_tokens": percentiles([all_ - prompt for all_, prompt in zip(whole, prompts, strict=True)]),
        "tokens": sum(whole),
        "dropped": dict(sorted(Counter(dropped).items())),
    }


def rendered(tokenizer: Any, messages: list[dict[str, str]], answering: bool) -> int:
    return len(tokenizer.apply_chat_template(messages, add_generation_prompt=answering, tokenize=True, return_dict=False))


def answer_type(answer: str, abstention: str) -> str:
    if answer == abstention:
        return "abstention"
    plain = MARK.sub("", answer)
    if YES_NO.search(plain):
        return "yes or no"
    return "number" if any(letter.isdigit() for letter in plain) else "words"


def percentiles(values: Sequence[int]) -> dict[str, float]:
    found = np.percentile(values, PERCENTILES)
    return {("max" if at == 100 else f"p{at}"): round(float(value), 1) for at, value in zip(PERCENTILES, found, strict=True)}
