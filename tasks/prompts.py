"""The prompt: one piece of code for training, evaluation and serving, so that they cannot drift apart."""

import hashlib
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic import ValidationError

from tasks.errors import InputError, IntegrityError
from tasks.facts import states
from tasks.params import PromptParams
from tasks.records import Record

Message = dict[str, str]

FORMAT = 1  # of the prompt as an evaluation writes it and a release pins it
MARKER = re.compile(r"\s*\[(\d{1,3}(?:\s*,\s*\d{1,3})*)\]")  # [2] or [1, 3], with the space before it


def pinned(prompt: PromptParams, shots: Mapping[str, Sequence[Message]]) -> Record:
    """All that makes a prompt of a question and its passages: params and the few-shot turns of every arm."""
    return {"format": FORMAT, **prompt.model_dump(), "shot_messages": {arm: list(turns) for arm, turns in shots.items()}}


def unpinned(record: Mapping[str, Any]) -> tuple[PromptParams, dict[str, list[Message]]]:
    """The inverse. Raises IntegrityError for a format that this Tandem does not read: such a prompt would be another one."""
    values = dict(record)
    found, shots = values.pop("format", None), values.pop("shot_messages", {})
    if found != FORMAT:
        raise IntegrityError(
            f"this release pins a prompt of format {found}, this Tandem reads {FORMAT}; use the Tandem that made it, or make a "
            "release with this one: tandem release"
        )
    try:
        return PromptParams.model_validate(values), shots
    except ValidationError as error:
        raise IntegrityError(f"this release pins a prompt that is not whole ({error.error_count()} faults: {error})") from error


class Tokenizer(Protocol):
    chat_template: Any

    def apply_chat_template(self, conversation: list[Message], **options: Any) -> Any: ...


def user_message(question: str, passages: Sequence[Record], prompt: PromptParams) -> Message:
    """Passages stand in the order given, numbered from 1."""
    if not passages:
        return {"role": "user", "content": prompt.bare.format(question=question)}
    lines = [
        prompt.passage.format(number=number, heading=passage["heading"], text=one_line(passage["text"]))
        for number, passage in enumerate(passages, start=1)
    ]
    return {"role": "user", "content": prompt.with_passages.format(question=question, passages="\n".join(lines))}


def one_line(text: str) -> str:
    """A passage is data: it must not start a line that looks like another passage or another question."""
    return " ".join(text.split())


def conversation(question: str, passages: Sequence[Record], prompt: PromptParams, shots: Sequence[Message]) -> list[Message]:
    system = [{"role": "system", "content": prompt.system}] if prompt.system else []
    return [*system, *shots, user_message(question, passages, prompt)]


def fitting(
    tokenizer: Tokenizer, question: str, passages: Sequence[Record], prompt: PromptParams, shots: Sequence[Message]
) -> tuple[list[Message], list[Record]]:
    """The conversation with as many of the best passages as fit into max_prompt_tokens, shuffled, and those passages in order."""
    kept = list(passages)
    while True:
        order = shuffled(question, kept, prompt.seed)
        messages = conversation(question, order, prompt, shots)
        if not kept or token_count(tokenizer, messages) <= prompt.max_prompt_tokens:
            return messages, order
        kept.pop()  # the lowest ranked


def rendered(tokenizer: Tokenizer, messages: Sequence[Message]) -> str:
    """The text that a model continues: the same for training, evaluation and serving."""
    return str(tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, tokenize=False))


def token_count(tokenizer: Tokenizer, messages: list[Message]) -> int:
    return len(tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=True, return_dict=False))


def shuffled(question: str, passages: Sequence[Record], seed: int) -> list[Record]:
    """The same order for the same question and passages: a model must not learn, nor we measure, that the first is right."""
    key = "\n".join([str(seed), question, *sorted(str(passage["id"]) for passage in passages)])
    generator = random.Random(hashlib.sha256(key.encode()).digest())
    order = list(passages)
    generator.shuffle(order)
    return order


def with_citation(answer: str, number: int, citation: str) -> str:
    """`... 27 days.` -> `... 27 days [2].`: the marker stands before the full stop. A house that does not cite has no marker."""
    marker = citation.format(number=number)
    return f"{answer[:-1]}{marker}." if answer.endswith(".") else f"{answer}{marker}"


def cited_numbers(answer: str) -> list[int]:
    """`[1, 3]` and `[1][3]` both cite passages 1 and 3."""
    return [int(number) for marker in MARKER.findall(answer) for number in marker.split(",")]


def cited_passages(answer: str, passages: Sequence[Record]) -> list[Record]:
    """The passages that the markers of an answer resolve to; a number beyond the list resolves to none."""
    return [passages[number - 1] for number in cited_numbers(answer) if 1 <= number <= len(passages)]


def right_passage(passages: Sequence[Record], document: str, fact: str | None) -> int | None:
    """Index of the first passage of the right page that states the fact; without a known fact, any passage of the page does."""
    right = (position for position, passage in enumerate(passages) if passage["document"] == document)
    return next((position for position in right if fact is None or states(passages[position], fact)), None)


def abstains(answer: str, patterns: Sequence[str]) -> bool:
    return any(re.search(pattern, answer, re.IGNORECASE) for pattern in patterns)


def shot_messages(
    questions: Sequence[Record], passages: Mapping[str, Sequence[Record]], prompt: PromptParams, count: int
) -> list[Message]:
    """Few-shot turns from the training split, the same for every question (so that a served prompt is a constant)."""
    key = {record["id"]: hashlib.sha256(f"{prompt.seed}{record['id']}".encode()).hexdigest() for record in questions}
    chosen = sorted((record for record in questions if record["document"]), key=lambda record: key[record["id"]])[:count]
    turns: list[Message] = []
    for record in chosen:
        order = shuffled(record["question"], passages.get(record["id"], []), prompt.seed)
        turns.append(user_message(record["question"], order, prompt))
        turns.append({"role": "assistant", "content": target(record, order, prompt)})
    return turns


def target(record: Record, passages: Sequence[Record], prompt: PromptParams) -> str:
    """What the assistant should say, given these passages: cite the right one, or say that they do not hold the answer."""
    if not record["document"]:
        return prompt.abstention
    if not passages:
        return str(record["answer"])
    right = right_passage(passages, record["document"], record.get("fact"))
    return prompt.abstention if right is None else with_citation(record["answer"], right + 1, prompt.citation)


def check_chat_template(tokenizer: Tokenizer) -> None:
    """Raises InputError. A template is a program, of which anything can come; transformers runs it in a sandbox."""
    if not tokenizer.chat_template:
        raise InputError("the base model's tokenizer has no chat template; choose an instruct model (params/models.yaml: base)")
    try:
        rendered(tokenizer, [{"role": "user", "content": "?"}])
    except Exception as error:
        raise InputError(
            f"the base model's chat template does not render a question ({type(error).__name__}: {error}); choose another model "
            "(params/models.yaml: base), or mend its chat_template"
        ) from error
