"""An embedder without a model: a vector is a function of the text alone, and every text that it is asked for is noted."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tasks.embedding import Vectors

DIMENSION = 16


class HashEmbedder:
    """Equal words in two texts bring their vectors nearer: a bag of words, hashed."""

    def __init__(self, name: str = "hash", stop_after: int = 10**9) -> None:
        self.digest = hashlib.sha256(name.encode()).hexdigest()
        self.embedded: list[str] = []
        self.stop_after = stop_after

    def passages(self, texts: Sequence[str], batch_tokens: int = 1024) -> Vectors:
        if len(self.embedded) + len(texts) > self.stop_after:
            raise KeyboardInterrupt
        self.embedded += texts
        return vectors_of(texts)

    def queries(self, texts: Sequence[str], batch_tokens: int = 1024) -> Vectors:
        return vectors_of(texts)

    def identity(self) -> Mapping[str, Any]:
        return {
            "source": "builtin", "id": "", "revision": "", "query_prompt": "", "passage_prompt": "", "digest": self.digest,
            "dimension": DIMENSION, "max_tokens": 64, "pooling": "mean", "normalised": True, "fingerprint": [0.1, 0.2],
        }  # fmt: skip


def vectors_of(texts: Sequence[str]) -> Vectors:
    """(n,) texts -> (n, DIMENSION) unit vectors."""
    return np.stack([vector_of(text) for text in texts]) if texts else np.empty((0, DIMENSION), np.float32)


def vector_of(text: str) -> Vectors:
    seeds = [int.from_bytes(hashlib.sha256(word.encode()).digest()[:8]) for word in text.casefold().split() or [""]]
    total = np.sum([np.random.default_rng(seed).normal(size=DIMENSION) for seed in seeds], axis=0)
    return np.asarray(total / np.linalg.norm(total), np.float32)
