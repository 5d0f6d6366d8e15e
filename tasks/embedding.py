"""Text to vectors, and a store that never embeds the same text twice."""

import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from tasks.errors import InputError
from tasks.records import folder_digest, read_json, text_digest
from tasks.stage import say

Vectors = npt.NDArray[np.float32]

PROBES = ("How many days of paid leave do I get?", "ERR_4012 rate limit", "Ölfilter wechseln alle 500 h")
FINGERPRINT_TOLERANCE = 0.02  # other threads or processors move a coordinate by 1e-6, another model by 0.1


class Embedder:
    """A sentence-transformers model in a folder. Pooling, prompts and normalisation are part of its identity."""

    def __init__(self, folder: Path) -> None:
        from sentence_transformers import SentenceTransformer

        source = read_json(folder / "tandem.json")
        self.source: dict[str, Any] = source
        self.digest = folder_digest(folder)
        prompts = {"query": source["query_prompt"], "document": source["passage_prompt"]}
        self.model = SentenceTransformer(str(folder), prompts=prompts, local_files_only=True)
        self.model.max_seq_length = min(source["max_tokens"], self.model.max_seq_length or source["max_tokens"])

    def passages(self, texts: Sequence[str], batch_size: int = 32) -> Vectors:
        """(n,) texts -> (n, dimension) unit vectors."""
        return self._encode(texts, "document", batch_size)

    def queries(self, texts: Sequence[str], batch_size: int = 32) -> Vectors:
        return self._encode(texts, "query", batch_size)

    def _encode(self, texts: Sequence[str], prompt: str, batch_size: int) -> Vectors:
        vectors = self.model.encode(
            list(texts), prompt_name=prompt, batch_size=batch_size, normalize_embeddings=True, show_progress_bar=False
        )
        return np.asarray(vectors, dtype=np.float32).reshape(len(texts), self.model.get_embedding_dimension())

    def identity(self) -> dict[str, Any]:
        """What a release pins: two embedders with one identity give the same vectors."""
        vectors = self.queries(PROBES)
        source = {key: self.source[key] for key in ("source", "id", "revision", "query_prompt", "passage_prompt")}
        return source | {
            "digest": self.digest,
            "dimension": int(vectors.shape[1]),
            "max_tokens": int(self.model.max_seq_length),
            "pooling": pooling(self.model),
            "normalised": True,
            "fingerprint": [round(float(value), 2) for value in vectors[:, :4].ravel()],
        }


def pooling(model: Any) -> str:
    """The pooling mode's name as the model's own files give it ("mean", "cls", ...)."""
    modes = [module.get_config_dict() for module in model if type(module).__name__ == "Pooling"]
    return str(modes[0].get("pooling_mode", modes[0])) if modes else "none"


def same_fingerprint(left: Sequence[float], right: Sequence[float]) -> bool:
    return len(left) == len(right) and bool(np.allclose(left, right, atol=FINGERPRINT_TOLERANCE))


class VectorStore:
    """(embedder digest, text) -> vector, in SQLite: every commit survives kill -9, so an interrupted build continues."""

    def __init__(self, path: Path, embedder: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.embedder = embedder
        self.connection = sqlite3.connect(path, timeout=60)
        self.connection.execute("PRAGMA journal_mode=WAL")
        self.connection.execute("CREATE TABLE IF NOT EXISTS vectors (key TEXT PRIMARY KEY, vector BLOB NOT NULL) WITHOUT ROWID")

    def key(self, text: str) -> str:
        return text_digest(f"{self.embedder}\n{text}")

    def missing(self, texts: Sequence[str]) -> list[str]:
        """The distinct texts without a vector, in the order given."""
        distinct = list(dict.fromkeys(texts))
        return [text for text in distinct if self._read(text) is None]

    def put(self, texts: Sequence[str], vectors: Vectors) -> None:
        check_vectors(texts, vectors)
        rows = [(self.key(text), vector.tobytes()) for text, vector in zip(texts, vectors, strict=True)]
        with self.connection:
            self.connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)

    def get(self, texts: Sequence[str]) -> Vectors:
        """(n,) texts -> (n, dimension). Every text must have been put before."""
        blobs = [self._read(text) for text in texts]
        return np.stack([np.frombuffer(blob, dtype=np.float32) for blob in blobs if blob is not None])

    def _read(self, text: str) -> bytes | None:
        row = self.connection.execute("SELECT vector FROM vectors WHERE key = ?", (self.key(text),)).fetchone()
        return row[0] if row else None


def check_vectors(texts: Sequence[str], vectors: Vectors) -> None:
    """LanceDB accepts null and all-zero vectors, and a NaN query answers nothing: such a vector stops the build here."""
    norms = np.linalg.norm(vectors, axis=1)
    bad = np.flatnonzero(~np.isfinite(norms) | (norms < 1e-6))
    if bad.size:
        raise InputError(f"the embedder gave a zero or NaN vector for: {texts[int(bad[0])][:80]!r}; use another embedder")


def embed_missing(
    embedder: Embedder, store: VectorStore, texts: Sequence[str], batch_tokens: int, passages_per_commit: int
) -> int:
    """Embed what the store lacks, shortest first, committing as it goes. Returns the number of passages embedded."""
    missing = sorted(store.missing(texts), key=len)
    done = 0
    for group in slices(missing, passages_per_commit):
        # a token is about four characters; the budget keeps a batch of long passages inside the processor's cache
        batch_size = max(1, min(256, batch_tokens // max(1, len(group[-1]) // 4)))
        store.put(group, embedder.passages(group, batch_size))
        done += len(group)
        say(f"embedded {done} of {len(missing)} new passages")
    return done


def slices(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
