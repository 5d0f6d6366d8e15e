"""Which embedder passages go through, and which questions: that of the stage `models`, or what `retriever` made of it."""

from pathlib import Path
from typing import Any

from tasks.embedding import Embedder
from tasks.errors import IntegrityError
from tasks.records import Record, folder_digest, read_json

PINNED, ENCODER = "retriever.json", "encoder"  # in the output of the stage `retriever`


def pin(retriever: Path, sides: str) -> Record:
    """What the stage writes last. An embedder that was not adopted leaves the same bytes as one that was never asked for."""
    encoder = retriever / ENCODER
    return {"sides": sides, "encoder": Embedder(encoder).identity()} if encoder.exists() else {"sides": "none"}


def passage_encoder(embedder: Path, retriever: Path) -> Path:
    """The folder of the embedder that the index is built with."""
    return checked(embedder, retriever) if pinned(retriever)["sides"] == "both" else embedder


def query_encoder(embedder: Path, retriever: Path) -> Path:
    """The folder of the embedder that questions go through."""
    return embedder if pinned(retriever)["sides"] == "none" else checked(embedder, retriever)


def pinned_query_encoder(retriever: Path) -> dict[str, Any] | None:
    """The identity of an embedder that questions alone go through; None where they take that of the passages."""
    found = pinned(retriever)
    return found["encoder"] if found["sides"] == "query" else None


def pinned(retriever: Path) -> Record:
    return dict(read_json(retriever / PINNED))


def checked(embedder: Path, retriever: Path) -> Path:
    """Raises IntegrityError where it was tuned from another embedder than the one that is there."""
    wanted, found = pinned(retriever)["encoder"]["tuned"]["of"], folder_digest(embedder)
    if wanted != found:
        raise IntegrityError(
            f"{retriever / ENCODER} was tuned from an embedder with digest {wanted[:12]}, that of the stage models has "
            f"{found[:12]}; tune it anew: dvc repro retriever"
        )
    return retriever / ENCODER
