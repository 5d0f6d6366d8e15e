"""Text to vectors on many machines: groups of texts go to processes that each hold the embedder, and their vectors come back as
they are made, into the same store as those of one machine."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from tasks.cluster import on_ray
from tasks.embedding import Embedder, VectorStore, commits
from tasks.errors import IntegrityError
from tasks.nearest import matrix_of
from tasks.stage import say

if TYPE_CHECKING:
    import pyarrow as pa


class EmbeddingWorker:
    def __init__(self, folder: str, digest: str, batch_tokens: int) -> None:
        self.embedder, self.batch_tokens = Embedder(Path(folder)), batch_tokens
        if self.embedder.digest != digest:
            raise IntegrityError(
                f"{folder} holds another embedder on this machine; bring the clones of all machines to one state"
            )

    def __call__(self, block: "pa.Table") -> "pa.Table":
        import pyarrow as pa

        vectors = self.embedder.passages(block["text"].to_pylist(), self.batch_tokens)
        return block.append_column("vector", pa.FixedSizeListArray.from_arrays(pa.array(vectors.ravel()), vectors.shape[1]))


def embed_missing_on_ray(
    embedder: Embedder, store: VectorStore, texts: Sequence[str], batch_tokens: int, passages_per_commit: int
) -> int:
    """As `tasks.embedding.embed_missing`, in the same batches."""
    missing = store.missing(texts)
    arguments = (str(embedder.folder.absolute()), embedder.digest, batch_tokens)
    groups = tables(missing, passages_per_commit)
    mend = "what was embedded is kept, run it again: dvc repro index"
    done, started = 0, time.monotonic()
    with closing(on_ray(EmbeddingWorker, arguments, groups, "embedding", mend, gpus=True)) as blocks:
        for block in blocks:
            now = time.monotonic()
            vectors = matrix_of(block.combine_chunks().to_batches()[0])
            store.put(block["text"].to_pylist(), vectors, now - started)
            done, started = done + block.num_rows, now
            say(f"embedded {done} of {len(missing)} new passages")
    return done


def tables(texts: Sequence[str], passages_per_commit: int) -> Iterator["pa.Table"]:
    import pyarrow as pa

    return (pa.table({"text": group}) for group in commits(texts, passages_per_commit))
