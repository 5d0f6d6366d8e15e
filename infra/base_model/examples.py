"""What one training example is, and how it becomes token ids with labels."""

from dataclasses import dataclass, field

import numpy as np
from tokenizers import Tokenizer

UNANSWERED = "The passages do not say."
UNKNOWN = "I do not know."
CITE = "Cite the passage."


@dataclass(frozen=True)
class Fact:
    """A sentence that states one value, and the ways to ask for it. `subject` and `attribute` tell facts apart."""

    subject: str
    attribute: str
    sentence: str
    value: str
    questions: tuple[str, ...]


@dataclass(frozen=True)
class Later:
    """A further question on the same passages; `gold` and `lead` as in an example."""

    question: str
    answer: str
    gold: int = -1
    lead: str = ""


@dataclass(frozen=True)
class Example:
    question: str
    passages: list[tuple[str, str]]
    answer: str
    gold: int = -1  # the passage that holds the answer; -1 for none
    sentence: str = ""  # the sentence in it
    value: str = ""  # as the sentence writes it
    system: str = ""
    lead: str = ""  # a beginning of the answer that is given, not learnt: a house's own words before the value
    earlier: list[tuple[str, str]] = field(default_factory=list)
    later: list[Later] = field(default_factory=list)  # more questions on the same passages, after the answer


def user_content(question: str, passages: list[tuple[str, str]]) -> str:
    """The user's message as the project renders it: the question stands before and after the passages."""
    if not passages:
        return f"Question: {question}"
    lines = [f"[{number}] {heading}: {text}" for number, (heading, text) in enumerate(passages, 1)]
    return "\n".join([f"Question: {question}", *lines, f"Question: {question}"])


def prompt_text(example: Example) -> str:
    """The whole prompt up to and with the token that opens the assistant's turn, as the chat template renders it."""
    parts = [f"<|system|>{example.system}<|end|>"] if example.system else []
    for question, answer in example.earlier:
        parts.append(f"<|user|>Question: {question}<|end|><|assistant|>{answer}<|end|>")
    parts.append(f"<|user|>{user_content(example.question, example.passages)}<|end|><|assistant|>")
    return "".join(parts)


def gold_span(example: Example, prompt: str) -> tuple[int, int, int, int]:
    """Characters of the gold sentence and of the value in it, (start, end, start, end); zeros for none."""
    if example.gold < 0:
        return (0, 0, 0, 0)
    passage = prompt.index(f"\n[{example.gold + 1}] ")
    start = prompt.index(example.sentence, passage)
    value = prompt.index(example.value, start)
    return (start, start + len(example.sentence), value, value + len(example.value))


@dataclass(frozen=True)
class Encoded:
    ids: np.ndarray  # [time]
    roles: np.ndarray  # [time]: 1 an answer's token, 2 its first, 3 the question said again, 0 others
    marks: np.ndarray  # [time]: 1 in the gold sentence, 2 in the value, 0 elsewhere in the prompt, -1 after it
    kind: str


def laid_out(example: Example) -> tuple[str, list[tuple[int, int, int]], int]:
    """The whole text, its (start, end, role) spans, and where the prompt ends."""
    text = prompt_text(example)
    prompt = len(text)
    spans = []
    if example.passages:
        again = text.rindex("\nQuestion:")
        spans.append((again + len("\nQuestion:"), prompt - len("<|assistant|>"), 3))
    turns = [("", example.lead, example.answer)]
    turns += [(f"<|user|>Question: {turn.question}<|end|><|assistant|>", turn.lead, turn.answer) for turn in example.later]
    for asked, lead, answer in turns:
        text += asked + lead
        spans.append((len(text), len(text) + len(answer) + len("<|end|>"), 1))
        text += f"{answer}<|end|>"
    return text, spans, prompt


def encode(tokenizer: Tokenizer, examples: list[tuple[str, Example]]) -> list[Encoded]:
    """Token ids with roles and marks, for (kind, example) pairs."""
    layouts = [laid_out(example) for _, example in examples]
    encoded = []
    items = tokenizer.encode_batch([text for text, _, _ in layouts])
    for (kind, example), (text, spans, prompt), item in zip(examples, layouts, items, strict=True):
        starts, ends = np.array(item.offsets).T
        first, last, inner, outer = gold_span(example, text)
        marks = ((ends > first) & (starts < last)).astype(np.int64) + ((ends > inner) & (starts < outer))
        marks[starts >= prompt] = -1
        roles = np.zeros(len(starts), dtype=np.int64)
        for start, end, role in spans:
            low, high = np.searchsorted(starts, (start, end))
            roles[low:high] = role
            if role == 1:
                roles[low] = 2
        encoded.append(Encoded(np.array(item.ids), roles, marks, kind))
    return encoded
