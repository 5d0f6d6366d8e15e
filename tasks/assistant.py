"""A release, loaded: it answers from exactly the documents, weights and prompt that its manifest pins."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tasks.embedding import Embedder
from tasks.errors import InputError
from tasks.generation import Generator
from tasks.manifest import Release
from tasks.params import ARMS, Arm, uses_adapter, uses_passages
from tasks.prompts import cited_passages, fitting, unpinned
from tasks.records import Record
from tasks.search import Index, checked_question


@dataclass(frozen=True)
class Pieces:
    """Where the files of a release lie here, already verified against their digests."""

    base: Path
    embedder: Path
    adapter: Path | None
    store: str
    query_encoder: Path | None = None  # where questions go through another one than passages


@dataclass(frozen=True)
class Answer:
    answer: str
    sources: list[Record]
    arm: Arm
    release: str
    prompt: list[dict[str, str]]
    passages: list[Record]  # as the prompt numbers them

    def to_json(self) -> Record:
        return {"answer": self.answer, "sources": self.sources, "arm": self.arm, "release": self.release}


class Assistant:
    """Loads only what the asked arm needs: `prompt` opens no index, `rag` no adapter."""

    def __init__(self, release: Release, release_id: str, pieces: Pieces) -> None:
        self.release, self.release_id, self.pieces = release, release_id, pieces
        self.prompt, self.shots = unpinned(release.prompt)

    @cached_property
    def index(self) -> Index:
        manifest = self.release.index.model_dump() | {"embedder": self.release.embedder.model_dump()}
        if self.release.query_encoder is not None:
            manifest["query_encoder"] = self.release.query_encoder.model_dump()
        return Index(self.pieces.store, manifest, Embedder(self.pieces.query_encoder or self.pieces.embedder))

    @cached_property
    def base(self) -> Generator:
        return Generator(self.pieces.base, None, self.release.decoding)

    @cached_property
    def adapted(self) -> Generator:
        if self.pieces.adapter is None:
            raise InputError("this release has no adapter; ask with --arm prompt or --arm rag")
        return Generator(self.pieces.base, self.pieces.adapter, self.release.decoding)

    def ask(self, question: str, arm: Arm | None = None) -> Answer:
        arm = self.release.arm if arm is None else arm
        if arm not in ARMS:
            raise InputError(f"there is no arm {arm!r}; choose one of {', '.join(ARMS)}")
        question = checked_question(question)
        hits = self.index.search(question, self.release.retrieval) if uses_passages(arm) else []
        generator = self.adapted if uses_adapter(arm) else self.base
        messages, passages = fitting(generator.tokenizer, question, hits, self.prompt, self.shots[arm])
        text = generator.answer(messages).text
        return Answer(text, sources(text, passages), arm, self.release_id, messages, passages)


def sources(answer: str, passages: list[Record]) -> list[Record]:
    """Every passage that the model was given, cited ones first; a page is named by its id."""
    cited = {passage["id"] for passage in cited_passages(answer, passages)}
    order: Callable[[Record], Any] = lambda source: (not source["cited"], -source["score"])  # noqa: E731
    return sorted(
        (
            {
                "page": passage["document"],
                "heading": passage["heading"],
                "passage": passage["text"],
                "score": passage["score"],
                "cited": passage["id"] in cited,
            }
            for passage in passages
        ),
        key=order,
    )
