"""Text to vectors, and a store that never embeds the same text twice."""

import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from tasks.backends import BATCH_TOKENS, Vectors, import_libraries, open_backend
from tasks.errors import InputError, IntegrityError
from tasks.records import folder_digest, read_json, text_digest
from tasks.stage import say

PROBES = ("How many days of paid leave do I get?", "ERR_4012 rate limit", "Ölfilter wechseln alle 500 h")
KEYS_PER_QUERY = 500  # of SQLite, which once took no more than 999; one at a time takes twice as long
FINGERPRINT_TOLERANCE = 0.02  # other threads or processors move a coordinate by 1e-6, another model by 0.1


class Embedder:
    """A sentence-transformers model in a folder. Pooling, prompts, normalisation and arithmetic are part of its identity."""

    def __init__(self, folder: Path) -> None:
        source = read_json(folder / "tandem.json")
        self.source: dict[str, Any] = source
        self.folder = folder
        self.backend = backend_of(source)
        with ThreadPoolExecutor(1) as aside:  # reading the files to digest them, and again to open the model
            digest = aside.submit(folder_digest, folder)
            self.encoder = open_backend(self.backend, folder)
            self.digest = digest.result()
        self.query_prompt = source["query_prompt"] or own_prompt(self.encoder.prompts, "query")
        self.passage_prompt = source["passage_prompt"] or own_prompt(self.encoder.prompts, "document", "passage", "corpus")
        self.max_tokens = min(source["max_tokens"], self.encoder.max_tokens or source["max_tokens"])
        self.encoder.cut_at(self.max_tokens)

    def passages(self, texts: Sequence[str], batch_tokens: int = BATCH_TOKENS) -> Vectors:
        """(n,) texts -> (n, dimension) unit vectors."""
        return self.encoder.vectors(texts, self.passage_prompt, batch_tokens)

    def queries(self, texts: Sequence[str], batch_tokens: int = BATCH_TOKENS) -> Vectors:
        return self.encoder.vectors(texts, self.query_prompt, batch_tokens)

    def identity(self) -> dict[str, Any]:
        """What a release pins: two embedders with one identity give the same vectors."""
        vectors = self.queries(PROBES)
        source = {key: self.source[key] for key in ("source", "id", "revision")}
        tuned = {"tuned": self.source["tuned"]} if "tuned" in self.source else {}  # by the stage `retriever`
        return (
            source
            | tuned
            | {
                "query_prompt": self.query_prompt,
                "passage_prompt": self.passage_prompt,
                "backend": self.backend,
                "digest": self.digest,
                "dimension": int(vectors.shape[1]),
                "max_tokens": self.max_tokens,
                "pooling": self.encoder.pooling,
                "normalised": True,
                "fingerprint": [round(float(value), 2) for value in vectors[:, :4].ravel()],
            }
        )


def open_aside(aside: Executor, folder: Path) -> "Future[Embedder]":
    """Opened by a thread of `aside`. Its libraries are imported by the caller's: two threads that import parts of one library at
    the same time can meet it half made."""
    import_libraries(backend_of(read_json(folder / "tandem.json")))
    return aside.submit(Embedder, folder)


def backend_of(source: Mapping[str, Any]) -> str:
    return str(source.get("backend", "torch"))  # in a release from before there was a choice


def own_prompt(prompts: Mapping[str, str | None], *names: str) -> str:
    """What the model's own files say under the first of these names (sentence-transformers adds empty ones of its own)."""
    return next((found for name in names if (found := prompts.get(name))), "")


def same_fingerprint(left: Sequence[float], right: Sequence[float]) -> bool:
    return len(left) == len(right) and bool(np.allclose(left, right, atol=FINGERPRINT_TOLERANCE))


class VectorStore:
    """(embedder digest, text) -> vector, in SQLite: every commit survives kill -9, so an interrupted build continues."""

    def __init__(self, path: Path, embedder: str) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self.embedder = embedder
        self.connection = sqlite3.connect(path, timeout=60)
        try:
            self.connection.execute("PRAGMA journal_mode=WAL")
            # not WITHOUT ROWID: keys alone then lie together, and a look for what is missing reads no vector
            self.connection.execute("CREATE TABLE IF NOT EXISTS vectors (key TEXT PRIMARY KEY, vector BLOB NOT NULL)")
            self.connection.execute("CREATE TABLE IF NOT EXISTS pace (embedder TEXT, passages INTEGER, seconds REAL)")
        except sqlite3.OperationalError as error:
            raise InputError(f"{path}: the vector store cannot be opened ({error}); stop who holds it, or free space") from error
        except sqlite3.DatabaseError as error:
            raise self._damaged(str(error)) from error

    def key(self, text: str) -> str:
        return vector_key(self.embedder, text)

    def missing(self, texts: Sequence[str]) -> list[str]:
        """The distinct texts without a vector, in the order given."""
        distinct = {self.key(text): text for text in texts}
        held = {key for (key,) in self._rows("key", list(distinct))}
        return [text for key, text in distinct.items() if key not in held]

    def put(self, texts: Sequence[str], vectors: Vectors, seconds: float | None = None) -> None:
        """`seconds`: what embedding them took, for the estimate of the next build."""
        check_vectors(texts, vectors)
        rows = [(self.key(text), vector.tobytes()) for text, vector in zip(texts, vectors, strict=True)]
        with self.connection:
            self.connection.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?)", rows)
            if seconds is not None:
                self.connection.execute("INSERT INTO pace VALUES (?, ?, ?)", (self.embedder, len(rows), seconds))

    def pace(self) -> float | None:
        """Passages a second on this machine, over what it embedded last. None where it never did."""
        query = "SELECT passages, seconds FROM pace WHERE embedder = ? ORDER BY rowid DESC LIMIT 20"
        last = self.connection.execute(query, (self.embedder,)).fetchall()
        seconds = sum(each[1] for each in last)
        return sum(each[0] for each in last) / seconds if seconds else None

    def get(self, texts: Sequence[str]) -> Vectors:
        """(n,) texts -> (n, dimension). Raises IntegrityError for a text that was never put, or a vector that was cut."""
        keys = [self.key(text) for text in texts]
        found = dict(self._rows("key, vector", list(dict.fromkeys(keys))))
        width = max(map(len, found.values()), default=0)
        for key, text in zip(keys, texts, strict=True):
            if key not in found or len(found[key]) != width:
                raise self._damaged(f"no whole vector for {text[:80]!r}")
        return np.frombuffer(b"".join(found[key] for key in keys), dtype=np.float32).reshape(len(keys), width // 4)

    def close(self) -> None:
        """The last one to close takes SQLite's log with it."""
        self.connection.close()

    def forget_all_but(self, keys: Iterable[str]) -> int:
        """Drop the vectors, of any embedder, whose key (`vector_key`) is not among these. Returns how many there were."""
        self.connection.execute("CREATE TEMP TABLE kept (key TEXT PRIMARY KEY) WITHOUT ROWID")
        with self.connection:
            self.connection.executemany("INSERT OR IGNORE INTO kept VALUES (?)", ((key,) for key in keys))
            dropped = self.connection.execute("DELETE FROM vectors WHERE key NOT IN (SELECT key FROM kept)").rowcount
        self.connection.execute("DROP TABLE kept")
        if dropped:
            with suppress(sqlite3.OperationalError):  # it needs as much room again; without it, new vectors fill the holes
                self.connection.execute("VACUUM")
                self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        return dropped

    def _rows(self, columns: str, keys: list[str]) -> Iterator[Any]:
        for group in slices(keys, KEYS_PER_QUERY):
            marks = ",".join("?" * len(group))
            try:
                yield from self.connection.execute(f"SELECT {columns} FROM vectors WHERE key IN ({marks})", group)
            except sqlite3.DatabaseError as error:
                raise self._damaged(str(error)) from error

    def _damaged(self, what: str) -> IntegrityError:
        return IntegrityError(f"{self.path}: the vector store is damaged ({what}); it is a cache: delete it and run again")


def vector_key(embedder: str, text: str) -> str:
    """Under what a vector is kept; `tandem plan` looks for these without loading the embedder."""
    return text_digest(f"{embedder}\n{text}")


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
    missing = store.missing(texts)
    done = 0
    for group in commits(missing, passages_per_commit):
        started = time.monotonic()
        vectors = embedder.passages(group, batch_tokens)
        store.put(group, vectors, time.monotonic() - started)
        done += len(group)
        say(f"embedded {done} of {len(missing)} new passages")
    return done


def commits(texts: Sequence[str], passages_per_commit: int) -> Iterator[list[str]]:
    """What is embedded before a commit of the store, the shortest first: texts of one length leave little to pad."""
    yield from slices(sorted(texts, key=len), passages_per_commit)


def slices(items: list[str], size: int) -> Iterator[list[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
