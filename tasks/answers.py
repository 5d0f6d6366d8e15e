"""Answers that were generated before: (weights, decoding, libraries, rendered prompt) -> answer.

Greedy decoding makes them a function of the key on one machine. After a retrain the arms without an adapter cost nothing;
after a small change of the corpus only the prompts that changed do.
"""

import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tasks.generation import Generated, Generator, environment
from tasks.records import folder_digest, value_digest

FORMAT = 2  # of the key; another one where tasks.generation or tasks.decoding may make other answers of the same prompt


def weights_digest(base: Path, adapter: Path | None) -> str:
    """What decides the answer to a prompt, besides the prompt and the decoding."""
    return value_digest([folder_digest(base), folder_digest(adapter) if adapter else None])


class AnswerStore:
    """SQLite: each commit survives kill -9, so an interrupted evaluation goes on where it was."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.connection = sqlite3.connect(path, timeout=60)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute(
            "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, text TEXT NOT NULL, prompt_tokens INTEGER NOT NULL, "
            "completion_tokens INTEGER NOT NULL) WITHOUT ROWID"
        )

    def get(self, key: str) -> Generated | None:
        query = "SELECT text, prompt_tokens, completion_tokens FROM answers WHERE key = ?"
        row = self.connection.execute(query, (key,)).fetchone()
        return Generated(*row) if row else None

    def put(self, answers: dict[str, Generated]) -> None:
        rows = [(key, made.text, made.prompt_tokens, made.completion_tokens) for key, made in answers.items()]
        with self.connection:
            self.connection.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", rows)


def answer_key(weights: str, decoding: Mapping[str, Any], libraries: Mapping[str, str], prompt: str) -> str:
    return value_digest([FORMAT, weights, dict(decoding), dict(libraries), prompt])


def answer_all(
    generator: Generator, store: AnswerStore, weights: str, prompts: list[str], batch_tokens: int, label: str
) -> list[Generated]:
    """One answer per rendered prompt, in their order; only prompts that these weights were never asked are generated."""
    here = environment()
    keys = [answer_key(weights, generator.decoding, here, prompt) for prompt in prompts]
    new = {key: prompt for key, prompt in zip(keys, prompts, strict=True) if store.get(key) is None}
    for done in generator.batches(list(new.values()), batch_tokens, label):
        store.put({key: done[prompt] for key, prompt in new.items() if prompt in done})
    return [found for found in map(store.get, keys) if found is not None]
