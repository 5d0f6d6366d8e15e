"""What goes to Ray's workers and what comes back, with the workers in this process; Ray itself: tests/stack/test_ray.py."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import tiny

from tasks import embedding_on_ray, reading_on_ray
from tasks.cluster import on_ray
from tasks.documents import documents
from tasks.embedding import Embedder, VectorStore
from tasks.embedding_on_ray import EmbeddingWorker, embed_missing_on_ray
from tasks.errors import IntegrityError, TandemError
from tasks.params import DocumentsParams
from tasks.params_files import load
from tasks.reading import reading_rule
from tasks.reading_on_ray import BLOCK_BYTES, ReadingWorker, read_files_on_ray, tables

PARAMS = load(DocumentsParams, tiny.ROOT / "params")


@pytest.fixture(autouse=True)
def _last_first(monkeypatch: pytest.MonkeyPatch) -> None:
    def here(worker: type, arguments: tuple[Any, ...], blocks: Iterable[Any], *_: str, gpus: bool = False) -> Iterator[Any]:
        yield from map(worker(*arguments), list(blocks)[::-1])

    for module in (reading_on_ray, embedding_on_ray):
        monkeypatch.setattr(module, "on_ray", here)


def test_files_go_out_in_blocks_and_come_back_as_documents_in_their_own_order(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_on_ray, "BLOCK_BYTES", 40)
    raw = tmp_path / "raw"
    raw.mkdir()
    for number in range(9):
        (raw / f"{number}.md").write_bytes(b"# Page\n\nText\n" * (number % 5))
    made = {}
    for engine in ("local", "ray"):
        documents(raw, tmp_path / engine, tmp_path / f"{engine}.kept", PARAMS.model_copy(update={"engine": engine}))
        made[engine] = {path.name: path.read_bytes() for path in (tmp_path / engine).iterdir()}
    assert made["ray"] == made["local"] and b'"path": "0.md"' in made["ray"]["rejected.jsonl"]


def test_a_block_holds_so_many_bytes_or_one_file() -> None:
    files = [("a", b"1"), ("b", b"22"), ("c", b"x" * BLOCK_BYTES), ("d", b"1"), ("e", b"x" * (BLOCK_BYTES + 1)), ("f", b"")]
    assert [table["path"].to_pylist() for table in tables(iter(files))] == [["a", "b"], ["c"], ["d"], ["e"], ["f"]]
    assert not list(tables(iter([])))


def test_no_file_no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_on_ray, "on_ray", on_ray)
    monkeypatch.setattr("tasks.cluster.cluster", None)
    assert not list(read_files_on_ray(iter([]), PARAMS))


def test_the_cluster_is_left_where_the_caller_stops_and_where_it_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    left: list[str] = []

    @contextmanager
    def cluster() -> Iterator[Any]:
        try:
            yield SimpleNamespace(put=lambda table: table, exceptions=SimpleNamespace(RayError=ZeroDivisionError))
        finally:
            left.append("left")

    def answers(blocks: list[Any], worker: type, arguments: tuple[Any, ...]) -> Iterator[Any]:
        yield from map(worker(*arguments), blocks)
        raise ZeroDivisionError("told at length\nwhy")

    def mapped(_: Any, blocks: list[Any], worker: type, arguments: tuple[Any, ...], __: bool) -> Any:
        return SimpleNamespace(iter_batches=lambda **_: answers(blocks, worker, arguments))

    monkeypatch.setattr(reading_on_ray, "on_ray", on_ray)
    monkeypatch.setattr("tasks.cluster.cluster", cluster)
    monkeypatch.setattr("tasks.cluster.mapped", mapped)
    pages = read_files_on_ray(iter([("a.md", b"bread"), ("b.md", b"salt")]), PARAMS)
    assert next(pages)[0] == "a.md" and not left
    pages.close()
    assert left == ["left"]
    with pytest.raises(TandemError, match=r"reading files on Ray failed \(why\); nothing was written; run the same command"):
        list(read_files_on_ray(iter([("a.md", b"bread")]), PARAMS))
    assert left == ["left", "left"]


def test_a_worker_that_would_read_otherwise_does_not_start() -> None:
    ReadingWorker(PARAMS, reading_rule(PARAMS))
    with pytest.raises(IntegrityError, match="another version of Tandem or of a parser"):
        ReadingWorker(PARAMS, reading_rule(PARAMS.model_copy(update={"max_pdf_pages": 1})))


def test_texts_go_out_as_they_are_committed_and_a_worker_with_another_embedder_does_not_start(
    tiny_embedder: Path, tmp_path: Path
) -> None:
    folder = tiny.identified(tiny_embedder, tmp_path / "embedder")
    model, texts = Embedder(folder), [f"{'bread ' * number}{number}" for number in range(7)]
    store = VectorStore(tmp_path / "v.sqlite", model.digest)
    store.put(texts[:2], model.passages(texts[:2]))
    assert embed_missing_on_ray(model, store, texts, 64, 2) == 5
    assert np.allclose(store.get(texts), model.passages(texts), atol=1e-6)
    with pytest.raises(IntegrityError, match="another embedder on this machine"):
        EmbeddingWorker(str(folder), "0" * 64, 64)
