"""Releases that answer without a model: the store, the index, the ledger and all that opens, verifies and swaps a release are the
real ones. What the generator says names the weights and the prompt that it was made of, so that a mixed answer shows."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hashing import HashEmbedder
from workspace import candidate_of, change, write_adapter, write_workspace

import flows.verify
import tasks.assistant
from flows import ledger
from flows.candidate import as_release
from flows.ledger import Draft, Entry
from flows.settings import Settings
from flows.store import seal_file, seal_folder
from tasks.generation import Generated
from tasks.golden import golden_record
from tasks.index import bring_up_to_date, describe
from tasks.index import settings as table_settings
from tasks.manifest import Release, release_id, render, short
from tasks.params import IndexParams
from tasks.params_files import load
from tasks.records import Record, canonical_json, folder_digest, value_digest, write_json
from tasks.tables import only_writer

QUESTION = "what is the word of the day?"
PAGES = 3


class Words:
    """A tokenizer to `tasks.prompts`: a word is a token."""

    chat_template = "words"

    def apply_chat_template(self, messages: list[dict[str, str]], tokenize: bool, **options: Any) -> Any:
        text = "\n".join(f"<{message['role']}>{message['content']}" for message in messages)
        return text.split() if tokenize else text


class Says:
    """A generator that says what it was loaded from."""

    def __init__(self, base: Path, adapter: Path | None, decoding: Mapping[str, Any]) -> None:
        self.weights = folder_digest(adapter) if adapter else "none"
        self.tokenizer = Words()

    def answer(self, messages: list[dict[str, str]]) -> Generated:
        return Generated(f"weights {short(self.weights)} prompt {mark(messages[0]['content'])} [1].", 1, 1)

    def render(self, messages: list[dict[str, str]]) -> str:
        return str(self.tokenizer.apply_chat_template(messages, tokenize=False))


class Hashes(HashEmbedder):
    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.digest = folder_digest(folder)


def mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def stand_in(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(tasks.assistant, "Generator", Says)
    patch.setattr(tasks.assistant, "Embedder", Hashes)
    patch.setattr(flows.verify, "environment", dict)


@dataclass(frozen=True)
class Made:
    """A release, sealed and not live yet, and what an answer of it has to look like."""

    release: Release
    golden: str
    answer: str
    passages: frozenset[str]

    @property
    def identity(self) -> str:
        return release_id(self.release)


class Maker:
    """Seals releases 1, 2, ... of a workspace: each with other documents, weights and prompt."""

    def __init__(self, root: Path) -> None:
        root.mkdir()
        self.settings = write_workspace(root)
        change(root / "data/retrieval/settings.json", k=PAGES, text_weight=0.5)

    def make(self, number: int) -> Made:
        root = self.settings.root
        texts = self.index(number)
        write_adapter(root, float(number))
        change(root / "data/evaluation/prompt.json", system=f"You speak of day {number}.")
        release = as_release(candidate_of(root), "rag+lora")
        for folder in ("models/base", "models/embedder", "adapter"):
            seal_folder(self.settings.store, root / "data" / folder)
        seal_file(self.settings.store, render(release).encode())
        assert release.adapter
        answer = f"weights {short(release.adapter.digest)} prompt {mark(f'You speak of day {number}.')} [1]."
        golden = golden_record({}, [{"question": QUESTION, "answer": answer}])
        sealed = seal_file(self.settings.store, canonical_json(golden).encode())
        return Made(release, sealed, answer, frozenset(texts))

    def index(self, number: int) -> list[str]:
        params = load(IndexParams, self.settings.root / "params").model_copy(update={"recall_sample": 1})
        passages = [passage(number, page) for page in range(PAGES)]
        embedder: Any = Hashes(self.settings.root / "data/models/embedder")
        manifest = describe(passages, embedder.identity(), table_settings(params))
        with only_writer(self.settings.index_uri):
            bring_up_to_date(self.settings.index_uri, manifest, passages, embedder, self.settings.vectors, params)
        write_json(self.settings.root / "data/index/manifest.json", manifest)
        return [passage["text"] for passage in passages]


def passage(number: int, page: int) -> Record:
    text = f"On page {page} the word of day {number} is word-{number}-{page}."
    key = value_digest([page, text])
    return {"id": key, "document": f"page-{page}", "heading": "Words", "text": text, "occurrence": 0, "embedded": text}


def promote(settings: Settings, made: Made, action: str = "promote", at: str = "") -> Entry:
    """The ledger entry alone: that is what makes a release live."""
    entries = ledger.read(settings.ledger)
    number = ledger.number_for(entries, made.identity)
    draft = Draft.model_validate({
        "action": action, "release": made.identity, "number": number, "version": number, "candidate": None, "who": "ada",
        "why": "a test", "at": at or datetime.now(UTC).isoformat(timespec="seconds"),
        "evidence": {"golden": made.golden} if action == "promote" else {}, "runs": {},
    })  # fmt: skip
    return ledger.append(settings.ledger, draft, len(entries))
