"""What is to be judged: the pieces in the workspace, or an adapter made elsewhere, as one candidate release."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flows.settings import Settings
from tasks import reranking
from tasks.encoders import passage_encoder, pinned_query_encoder, query_encoder
from tasks.generation import decoding
from tasks.manifest import Release
from tasks.params import Arm, uses_adapter
from tasks.prompts import unpinned
from tasks.records import file_digest, folder_digest, folder_digests, read_json, read_jsonl, text_digest, value_digest

TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja", "vocab.json",
                   "merges.txt", "tokenizer.model", "added_tokens.json")  # fmt: skip


@dataclass(frozen=True)
class Candidate:
    """Paths to pieces, and the small values among them. `recall` is the index's, measured at its build; `query_encoder` the
    folder and the identity of an embedder that questions alone go through."""

    documents: Path
    base: Path
    embedder: Path
    adapter: Path
    index: Mapping[str, Any]
    recall: float
    retrieval: Mapping[str, Any]
    prompt: Mapping[str, Any]
    questions: Path
    evaluation: Path
    plots: Path
    curves: Mapping[str, Path]  # what was measured while its pieces were made: "training", "examples", "retrieval"
    lock: Path
    query_encoder: tuple[Path, Mapping[str, Any]] | None = None
    reranker: tuple[Path, Mapping[str, Any]] | None = None  # likewise, where one orders the passages

    def with_adapter(self, adapter: Path, evaluation: Path) -> "Candidate":
        """How that one was trained, nobody here knows."""
        curves = {name: path for name, path in self.curves.items() if name not in ("training", "examples")}
        return replace(self, adapter=adapter, evaluation=evaluation, plots=evaluation, curves=curves)


def workspace_candidate(settings: Settings) -> Candidate:
    """The candidate that the pipeline left in data/."""
    data = settings.root / "data"
    embedder, retriever = data / "models/embedder", data / "retriever"
    queries, ordering = pinned_query_encoder(retriever), reranking.pinned(data / "retrieval")
    return Candidate(
        documents=data / "documents/documents.jsonl",
        base=data / "models/base",
        embedder=passage_encoder(embedder, retriever),
        adapter=data / "adapter",
        index=read_json(data / "index/manifest.json"),
        recall=float(read_json(data / "metrics/index.json")["recall@10"]),
        retrieval=read_json(data / "retrieval/settings.json"),
        prompt=read_json(data / "evaluation/prompt.json"),  # what was measured, whatever params/ say by now
        questions=data / "questions",
        evaluation=data / "evaluation",
        plots=data / "plots",
        curves={
            name: data / "metrics" / file
            for name, file in {"training": "adapter.json", "examples": "examples.json", "retrieval": "retrieval.json"}.items()
        },
        lock=settings.root / "dvc.lock",
        query_encoder=None if queries is None else (query_encoder(embedder, retriever), queries),
        reranker=None if ordering is None else (data / "retrieval" / reranking.RERANKER, ordering),
    )


def as_release(candidate: Candidate, arm: Arm) -> Release:
    """The manifest of this candidate with this arm served. An arm without an adapter pins none."""
    embedder = dict(candidate.index["embedder"])
    base_files = folder_digests(candidate.base)
    base = read_json(candidate.base / "tandem.json")
    documents = document_digests(candidate)
    content = {
        "format": 1,
        "corpus": {"digest": value_digest(documents), "documents": len(documents)},
        "index": {key: candidate.index[key] for key in ("table", "tag", "rows", "digest")},
        "embedder": embedder,
        "query_encoder": dict(candidate.query_encoder[1]) if candidate.query_encoder else None,
        "reranker": dict(candidate.reranker[1]) if candidate.reranker else None,
        "base": base | {"digest": folder_digest(candidate.base)},
        "adapter": {"digest": folder_digest(candidate.adapter)} if uses_adapter(arm) else None,
        "tokenizer": {name: base_files[name] for name in TOKENIZER_FILES if name in base_files},
        "chat_template": chat_template_digest(candidate.base),
        "prompt": dict(candidate.prompt),
        "retrieval": dict(candidate.retrieval),
        "decoding": decoding(unpinned(candidate.prompt)[0]),
        "arm": arm,
    }
    return Release.model_validate(content)


def chat_template_digest(base: Path) -> str:
    """transformers keeps the template in a file of its own, or (older) inside tokenizer_config.json."""
    own = base / "chat_template.jinja"
    if own.exists():
        return file_digest(own)
    return text_digest(str(read_json(base / "tokenizer_config.json").get("chat_template")))


def document_digests(candidate: Candidate) -> dict[str, str]:
    """Page id -> digest of its text: what `tandem diff` compares, and what the corpus is. Where a file lay does not count."""
    return {record["id"]: record["digest"] for record in read_jsonl(candidate.documents)}
