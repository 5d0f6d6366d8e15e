"""What a peer's runner tells about its run: texts embedded, when its table was up to date, the texts that it then holds."""

import hashlib
import json
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

PAGES = Path(os.environ.get("PEER_PAGES", "pages"))  # Markdown files
STATE = Path(os.environ.get("PEER_STATE", "state"))  # the peer's own: table, bookkeeping, caches
MODEL = os.environ.get("PEER_MODEL", "model")  # a sentence-transformers folder
TUNED = os.environ.get("PEER_WAY", "default") == "tuned"
STAND_IN = os.environ.get("PEER_STAND_IN", "0") == "1"  # random vectors: for what only counts, and for the first build

embedded = 0


def counted(model: Any) -> Any:
    """A SentenceTransformer that counts the texts that it is given, in the same way for every peer."""
    encode = model.encode

    def counting(texts: Any, *rest: Any, **options: Any) -> Any:
        global embedded
        embedded += 1 if isinstance(texts, str) else len(texts)
        return random_vectors(texts) if STAND_IN else encode(texts, *rest, **options)

    model.encode = counting
    return model


def random_vectors(texts: Any) -> Any:
    """(n, 384), or (384,) for one text."""
    shape = (384,) if isinstance(texts, str) else (len(texts), 384)
    vectors = np.random.default_rng(embedded).normal(size=shape)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.float32)


def report(began: float, texts: Iterable[str]) -> None:
    """Call it when the table is up to date; `began`: time.time() once imports, and models that load with them, were there."""
    ended = time.time()
    held = sorted(texts)
    digest = hashlib.sha256("\0".join(held).encode()).hexdigest()
    found = {"embedded": embedded, "rows": len(held), "texts": digest, "update": ended - began, "ended": ended}
    print(json.dumps(found), flush=True)
