"""Frequent words and their neighbours in meaning, by all-MiniLM-L6-v2's word vectors."""

from dataclasses import dataclass

import numpy as np

from tokenizer import minilm_vectors


@dataclass(frozen=True)
class Words:
    """Frequent lower-case words, and for each the words near it in meaning."""

    words: list[str]
    near: dict[str, list[str]]
    known: frozenset[str]


def word_store(first: int, last: int, closeness: float) -> Words:
    """The whole words of MiniLM's vocabulary by rank of frequency, with neighbours by cosine of the centred vectors."""
    vocabulary, vectors = minilm_vectors()
    rows = [row for row, word in enumerate(vocabulary) if word.isascii() and word.isalpha() and len(word) > 2][first:last]
    words = [vocabulary[row] for row in rows]
    units = vectors[rows] - vectors[rows].mean(0)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    cosine = units @ units.T
    np.fill_diagonal(cosine, 0.0)
    near = {word: [words[i] for i in np.flatnonzero(cosine[row] > closeness)] for row, word in enumerate(words)}
    return Words(words, near, frozenset(word for word in words if len(word) > 3))
