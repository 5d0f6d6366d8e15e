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
from tasks.reranking import Reranker
from tasks.search import Index, checked_question
from tasks.tombstones import Tombstones


@dataclass(frozen=True)
class Pieces:
    """Where the files of a release lie here, already verified against their digests."""

    base: Path
    embedder: Path
    adapter: Path | None
    store: str
    query_encoder: Path | None = None  # where questions go through another one than passages
    reranker: Path | None = None  # where one orders the passages


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
    """Loads only what the asked arm needs: `prompt` opens no index, `rag` no adapter.

    `erased` is asked before every question, so that a page is gone from the answers of a process that runs for days as soon as
    its tombstone stands.
    """

    def __init__(self, release: Release, release_id: str, pieces: Pieces, erased: Callable[[], Tombstones] = Tombstones) -> None:
        self.release, self.release_id, self.pieces, self.erased = release, release_id, pieces, erased
        self.prompt, self.pinned_shots = unpinned(release.prompt)
        self.hidden = Tombstones()
        self.respect(erased())

    def respect(self, tombstones: Tombstones) -> None:
        """Neither passages, nor few-shot turns, nor weights of what these cover."""
        self.shots = tombstones.without(self.pinned_shots)
        if tombstones != self.hidden and "index" in self.__dict__:
            self.index.hide(tombstones.covers)
        self.hidden = tombstones

    @property
    def arm(self) -> Arm:
        """What answers: `rag` in the place of an arm whose adapter learnt what was erased since."""
        return "rag" if uses_adapter(self.release.arm) and self.withheld else self.release.arm

    @property
    def withheld(self) -> bool:
        adapter = self.release.adapter
        return adapter is not None and self.hidden.withheld(adapter.digest) is not None

    @cached_property
    def index(self) -> Index:
        manifest = self.release.index.model_dump() | {"embedder": self.release.embedder.model_dump()}
        if self.release.query_encoder is not None:
            manifest["query_encoder"] = self.release.query_encoder.model_dump()
        if self.release.reranker is not None:
            manifest["reranker"] = self.release.reranker.model_dump()
        reranker = None if self.pieces.reranker is None else Reranker(self.pieces.reranker)
        index = Index(self.pieces.store, manifest, Embedder(self.pieces.query_encoder or self.pieces.embedder), reranker)
        if self.hidden.erased:
            index.hide(self.hidden.covers)
        return index

    @cached_property
    def base(self) -> Generator:
        return Generator(self.pieces.base, None, self.release.decoding)

    @cached_property
    def adapted(self) -> Generator:
        if self.pieces.adapter is None:
            raise InputError("this release has no adapter; ask with --arm prompt or --arm rag")
        return Generator(self.pieces.base, self.pieces.adapter, self.release.decoding)

    def generator(self, arm: Arm) -> Generator:
        if uses_adapter(arm) and self.withheld:
            raise InputError("its adapter learnt from a page that was erased since; ask with --arm prompt or --arm rag")
        return self.adapted if uses_adapter(arm) else self.base

    def ask(self, question: str, arm: Arm | None = None) -> Answer:
        self.respect(self.erased())
        arm = self.arm if arm is None else arm
        if arm not in ARMS:
            raise InputError(f"there is no arm {arm!r}; choose one of {', '.join(ARMS)}")
        question = checked_question(question)
        hits = self.index.search(question, self.release.retrieval) if uses_passages(arm) else []
        generator = self.generator(arm)
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
