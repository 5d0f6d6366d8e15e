"""A share of general matters among the examples, so that learning the house's voice forgets less of everything else."""

from collections.abc import Sequence
from pathlib import Path

from tasks.errors import InputError
from tasks.records import Record, read_jsonl, value_digest
from tasks.screening import Screen

ROLES = {"prompt": ("system", "user", "assistant"), "completion": ("assistant",)}


def general(path: Path, share: float, examples: int, seed: int, screen: Screen) -> tuple[list[Record], list[str]]:
    """(examples of kind `replay`, why others were left out): as many as make `share` of all; for 0 the file is not read."""
    wanted = round(share * examples / (1 - share))
    if not wanted:
        return [], []
    records = read_jsonl(path)
    for number, record in enumerate(records, start=1):
        check(record, f"{path}:{number}")
    if wanted > len(records):
        raise InputError(
            f"replay_share in params/examples.yaml asks for {wanted} general examples, {path} has {len(records)}; lower it, or "
            'add lines {"id", "question", "prompt": messages, "completion": messages}'
        )
    taken = sorted(records, key=lambda record: value_digest([seed, record["id"]]))[:wanted]
    screen.read(text for record in taken for text in contents(record))
    reasons = [screen.refused(contents(record)) for record in taken]
    made = [example(record, screen) for record, reason in zip(taken, reasons, strict=True) if not reason]
    return made, [f"replay that holds a {reason}" for reason in reasons if reason]


def check(record: Record, place: str) -> None:
    """Raises InputError where a line is not what the trainer takes."""
    faults = [f"{field} is missing" for field in ("id", "question", *ROLES) if not record.get(field)]
    for field, roles in ROLES.items():
        for message in record.get(field, []) if not faults else []:
            if not isinstance(message, dict) or message.get("role") not in roles or not isinstance(message.get("content"), str):
                faults.append(f"{field} holds something else than messages of {' or '.join(roles)} with a text as content")
    if faults:
        raise InputError(f"{place}: {'; '.join(faults)}")


def contents(record: Record) -> list[str]:
    return [message["content"] for field in ROLES for message in record[field]]


def example(record: Record, screen: Screen) -> Record:
    def clean(messages: Sequence[Record]) -> list[Record]:
        return [{"role": each["role"], "content": screen.redacted(each["content"])} for each in messages]

    return {
        "id": record["id"],
        "question": screen.redacted(record["question"]),
        "document": None,
        "kind": "replay",
        "passages": [],
        "prompt": clean(record["prompt"]),
        "completion": clean(record["completion"]),
    }
