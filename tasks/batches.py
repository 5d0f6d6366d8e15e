"""Examples as tokens, and the batches that a processor sees: of like lengths, so that little of them is padding."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tasks.errors import InputError
from tasks.prompts import rendered
from tasks.records import Record

IGNORED = -100  # the label of a position that nothing is learnt at, as torch has it


@dataclass(frozen=True)
class Example:
    """Token ids of prompt and answer; the last `answer` of them are learnt."""

    ids: list[int]
    answer: int

    def __len__(self) -> int:
        return len(self.ids)


def tokenised(record: Record, tokenizer: Any) -> Example:
    """The prompt's ids are those that the assistant is served with (tasks.generation); the answer is what the template adds."""
    asked = rendered(tokenizer, record["prompt"])
    whole = tokenizer.apply_chat_template([*record["prompt"], *record["completion"]], tokenize=False)
    if not whole.startswith(asked):
        raise InputError(
            "the base model's chat template writes a conversation with its answer otherwise than one that waits for it: what is "
            "learnt would not be what is asked. Choose another base model (params/models.yaml: base), or mend its chat_template"
        )
    prompt, answer = (
        tokenizer(text, add_special_tokens=False)["input_ids"] for text in (asked, whole.removeprefix(asked))
    )  # fmt: skip
    return Example([*prompt, *answer], len(answer))


def plain(text: str, tokenizer: Any, most: int) -> Example:
    """Running text, every token of which but the first is scored."""
    ids = tokenizer(text, truncation=True, max_length=most)["input_ids"]
    return Example(ids, len(ids) - 1)


def by_length(examples: Sequence[Example], most_tokens: int) -> list[list[Example]]:
    """Batches of at most `most_tokens` with their padding, or of one example; the longest first, so that memory runs out at once
    or never. Equal input gives equal batches."""
    batches: list[list[Example]] = []
    for example in sorted(examples, key=len, reverse=True):
        if batches and (len(batches[-1]) + 1) * len(batches[-1][0]) <= most_tokens:
            batches[-1].append(example)
        else:
            batches.append([example])
    return batches


def tensors(batch: Sequence[Example], padding: int, device: Any) -> dict[str, Any]:
    """Padded on the left, as in generation: all answers then end at the same place, and logits are needed there alone."""
    import torch

    longest, answer = max(map(len, batch)), max(example.answer for example in batch)
    ids = [[padding] * (longest - len(example)) + example.ids for example in batch]
    mask = [[0] * (longest - len(example)) + [1] * len(example) for example in batch]
    labels = [[IGNORED] * (answer - example.answer) + example.ids[len(example) - example.answer :] for example in batch]
    attention = torch.tensor(mask, device=device)  # (batch, longest)
    return {
        "input_ids": torch.tensor(ids, device=device),
        "attention_mask": attention,
        "position_ids": (attention.cumsum(-1) - 1).clamp(min=0),
        "labels": torch.tensor(labels, device=device),  # (batch, longest answer)
    }


def summed_loss(model: Any, batch: dict[str, Any]) -> Any:
    """Negative log-likelihood of the answers, summed over their tokens."""
    import torch

    logits, labels = scored(model, batch)
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=IGNORED, reduction="sum")


def answer_losses(model: Any, batch: dict[str, Any]) -> Any:
    """(batch,): negative log-likelihood of each answer, summed over its tokens."""
    import torch

    logits, labels = scored(model, batch)
    return torch.nn.functional.cross_entropy(logits.transpose(1, 2), labels, ignore_index=IGNORED, reduction="none").sum(1)


def scored(model: Any, batch: dict[str, Any]) -> tuple[Any, Any]:
    """(batch, longest answer, vocabulary) logits, (batch, longest answer) labels.

    The head over the vocabulary is most of a small model's work, and its output most of the memory: both are spent on the
    positions of the longest answer only.
    """
    inputs = dict(batch)
    labels = inputs.pop("labels")
    count = labels.shape[1]
    logits = model(**inputs, use_cache=False, logits_to_keep=count + 1).logits  # (batch, count + 1, vocabulary)
    return logits[:, -count - 1 : -1].float(), labels  # a model that knows no logits_to_keep gave more
