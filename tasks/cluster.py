"""Text to vectors on many machines: Ray Data hands texts to actors that each hold the embedder, and their vectors come back as
they are made, into the same store as those of one machine."""

import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from tasks.embedding import Embedder, VectorStore, commits
from tasks.errors import InputError, IntegrityError, TandemError
from tasks.stage import say


class EmbeddingActor:
    """One process of the cluster, with the embedder in memory for as long as the build lasts."""

    def __init__(self, folder: str, digest: str) -> None:
        self.embedder = Embedder(Path(folder))
        if self.embedder.digest != digest:
            raise IntegrityError(
                f"{folder} holds another embedder on this machine; bring the clones of all machines to one state"
            )

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        texts = [str(text) for text in batch["text"]]
        return {"text": batch["text"], "vector": self.embedder.passages(texts, int(batch["batch_tokens"][0]))}


def embed_missing_on_ray(
    embedder: Embedder, store: VectorStore, texts: Sequence[str], batch_tokens: int, passages_per_commit: int
) -> int:
    """As `tasks.embedding.embed_missing`, in the same batches, on the cluster that RAY_ADDRESS names or on this machine."""
    missing = store.missing(texts)
    if not missing:
        return 0
    done, started = 0, time.monotonic()
    with cluster() as ray:
        for texts_done, vectors in embedded(ray, embedder, commits(missing, passages_per_commit), batch_tokens):
            now = time.monotonic()
            store.put(texts_done, vectors, now - started)
            done, started = done + len(texts_done), now
            say(f"embedded {done} of {len(missing)} new passages")
    return done


def embedded(ray: Any, embedder: Embedder, groups: Iterator[list[str]], batch_tokens: int) -> Iterator[tuple[list[str], Any]]:
    """(texts, (n, dimension) vectors) of each group, in the order in which they are ready."""
    import pyarrow as pa

    tables = [pa.table({"text": group, "batch_tokens": np.full(len(group), batch_tokens)}) for group in groups]
    resources = ray.cluster_resources()
    gpus = int(resources.get("GPU", 0))
    actors = min(len(tables), gpus or int(resources["CPU"]))
    dataset = ray.data.from_arrow(tables).map_batches(  # a table is a block, a block without a batch size one call
        EmbeddingActor,
        fn_constructor_args=(str(embedder.folder.absolute()), embedder.digest),
        batch_size=None,
        batch_format="numpy",
        num_cpus=1,
        num_gpus=1 if gpus else 0,
        compute=ray.data.ActorPoolStrategy(size=actors),
    )
    try:
        for block in dataset.iter_batches(batch_size=None, batch_format="numpy"):
            yield [str(text) for text in block["text"]], np.asarray(block["vector"], np.float32)
    except ray.exceptions.RayError as error:
        said = str(error).strip().splitlines()[-1]  # after pages of Ray's own
        raise TandemError(
            f"embedding on Ray failed ({said}); what was embedded is kept, run it again: dvc repro index"
        ) from error


@contextmanager
def cluster() -> Iterator[Any]:
    """Ray, connected; a local one is started for as long as the build lasts where there is none."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(
            "params/index.yaml says engine: ray, and Ray is not installed: pip install 'tandem[ray]', or set engine: local"
        ) from error

    ours = not ray.is_initialized()
    if ours:
        ray.init(log_to_driver=False, logging_level="ERROR")
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()
