"""`engine: ray` in params/index.yaml and params/documents.yaml, on a Ray of this machine with two processors."""

import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import tiny

from tasks import cluster, reading_on_ray
from tasks.documents import documents
from tasks.embedding import Embedder, Vectors, VectorStore
from tasks.embedding_on_ray import embed_missing_on_ray
from tasks.encoders import PINNED
from tasks.errors import InputError, TandemError
from tasks.index import index
from tasks.params import DocumentsParams, IndexParams
from tasks.params_files import load
from tasks.records import Record, read_json, value_digest, write_json, write_jsonl
from tasks.search import open_version

ray = pytest.importorskip("ray", reason="`make test-stack` installs Ray")
pytestmark = pytest.mark.filterwarnings("ignore:lancedb fork support", "ignore::FutureWarning")
PARAMS = load(IndexParams, tiny.ROOT / "params").model_copy(update={"recall_sample": 5, "passages_per_commit": 4})


@pytest.fixture(scope="module", autouse=True)
def _local_ray() -> Iterator[None]:
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def embedder(tiny_embedder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.identified(tiny_embedder, tmp_path_factory.mktemp("models") / "embedder")


def corpus(day: int = 1) -> list[Record]:
    found = []
    for page, section, _, _, text in tiny.rows(day)[:20]:
        row = {"document": page, "heading": section, "text": text, "embedded": f"{section}\n{text}"}
        found.append(row | {"id": value_digest([page, section, text, 0])})
    return found


def build(folder: Path, embedder: Path, engine: str, passages: list[Record]) -> tuple[Record, Record, Any]:
    """(manifest, metrics, rows by id)"""
    write_jsonl(folder / "chunks/passages.jsonl", passages)
    write_json(folder / "retriever" / PINNED, {"sides": "none"})
    out, metrics, store = folder / "out", folder / "metrics.json", str(folder / "lance")
    params = PARAMS.model_copy(update={"engine": engine})
    index(folder / "chunks", embedder, folder / "retriever", out, metrics, store, folder / "v.sqlite", params)
    manifest = read_json(out / "manifest.json")
    rows = open_version(store, manifest).search().limit(1000).to_arrow().sort_by("id")
    return manifest, read_json(metrics), rows


def test_the_rows_the_vectors_and_the_manifest_are_those_of_the_local_engine(tmp_path: Path, embedder: Path) -> None:
    for day, new in ((1, 20), (2, 4)):
        local_manifest, local, here = build(tmp_path / "local", embedder, "local", corpus(day))
        ray_manifest, metrics, there = build(tmp_path / "ray", embedder, "ray", corpus(day))
        assert ray_manifest == local_manifest
        assert metrics["embedded"] == local["embedded"] == new
        assert there.drop(["vector"]).equals(here.drop(["vector"]))
        assert np.allclose(matrix(there), matrix(here), atol=1e-6)


def test_it_runs_as_a_stage_whose_arrow_does_without_pandas(tmp_path: Path, embedder: Path) -> None:
    """Ray Data knows pandas; a process of the stage `index` does not tell pyarrow of it (tasks.lean_imports)."""
    write_jsonl(tmp_path / "chunks/passages.jsonl", corpus())
    write_json(tmp_path / "retriever" / PINNED, {"sides": "none"})
    shutil.copytree(tiny.ROOT / "params", tmp_path / "params")
    tiny.change_params(tmp_path, "index.yaml", {"engine": "ray", "recall_sample": 5})
    places = ("chunks", "retriever", "out", "metrics", "store", "vectors")
    flags = [word for place in places for word in (f"--{place}", place)]
    done = subprocess.run(
        [sys.executable, "-m", "tasks.index", *flags, "--embedder", str(embedder)],
        env=tiny.outside_environment(), cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert read_json(tmp_path / "metrics")["embedded"] == 20
    manifest, _, _ = build(tmp_path / "local", embedder, "local", corpus())
    assert read_json(tmp_path / "out/manifest.json") == manifest


def matrix(rows: Any) -> Vectors:
    return np.asarray(rows["vector"].to_pylist(), np.float32)


def test_an_interrupted_run_goes_on_with_what_was_committed(tmp_path: Path, embedder: Path) -> None:
    class Interrupted(VectorStore):
        def put(self, texts: Any, vectors: Vectors, seconds: float | None = None) -> None:
            if len(self.missing(TEXTS)) < len(TEXTS):
                raise KeyboardInterrupt
            super().put(texts, vectors, seconds)

    model = Embedder(embedder)
    with pytest.raises(KeyboardInterrupt):
        embed_missing_on_ray(model, Interrupted(tmp_path / "v.sqlite", model.digest), TEXTS, 8192, 4)
    store = VectorStore(tmp_path / "v.sqlite", model.digest)
    assert len(store.missing(TEXTS)) == len(TEXTS) - 4
    assert embed_missing_on_ray(model, store, TEXTS, 8192, 4) == len(TEXTS) - 4
    assert np.allclose(store.get(TEXTS), model.passages(TEXTS), atol=1e-6)


TEXTS = [row["embedded"] for row in corpus()[:10]]


def test_a_machine_with_another_embedder_is_refused(tmp_path: Path, embedder: Path) -> None:
    model = Embedder(embedder)
    model.digest = "0" * 64
    store = VectorStore(tmp_path / "v.sqlite", model.digest)
    with pytest.raises(TandemError, match=r"embedding on Ray failed \(.* holds another embedder on this machine"):
        embed_missing_on_ray(model, store, TEXTS, 8192, 4)
    assert len(store.missing(TEXTS)) == len(TEXTS)


READING = load(DocumentsParams, tiny.ROOT / "params")
FILES: dict[str, bytes] = {
    "a.md": b"# Ovens\n\nThe oven is hot.\n",
    "b/c.html": "<title>Öfen</title><p>Zwölf Öfen</p>".encode(),
    "nul.txt": b"before\0after\0\0",
    "torn.pdf": b"%PDF-1.4 torn",
    "b/torn.docx": b"PK no archive",
    "picture.png": b"\x89PNG",
    "empty.md": b"",
    **{f"many/{number}.md": f"# Page {number}\n\nText {number}.\n".encode() for number in range(20)},
}


def read(folder: Path, engine: str) -> dict[str, bytes]:
    """name -> bytes of all that the stage `documents` writes, without what it keeps for itself."""
    documents(folder / "raw", folder / engine, folder / f"{engine}.kept", READING.model_copy(update={"engine": engine}))
    return {path.name: path.read_bytes() for path in (folder / engine).iterdir()}


def add(folder: Path, files: dict[str, bytes]) -> None:
    for name, data in files.items():
        (folder / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "raw" / name).write_bytes(data)


def test_files_are_read_on_ray_as_they_are_here_and_unchanged_ones_not_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading_on_ray, "BLOCK_BYTES", 200)
    sent: list[str] = []
    table = reading_on_ray.table

    def noted(group: list[tuple[str, bytes]]) -> Any:
        sent.extend(path for path, _ in group)
        return table(group)

    monkeypatch.setattr(reading_on_ray, "table", noted)
    add(tmp_path, FILES)
    there = read(tmp_path, "ray")
    assert there == read(tmp_path, "local")
    assert b"b/torn.docx" in there["rejected.jsonl"] and "Zwölf" in there["documents.jsonl"].decode()
    assert set(sent) == set(FILES) - {"picture.png"}
    sent.clear()
    add(tmp_path, {"a.md": b"# Ovens\n\nThe oven is cold.\n"})
    assert read(tmp_path, "ray") == read(tmp_path, "local") != there
    assert sent == ["a.md"]
    monkeypatch.setattr(cluster, "cluster", None)  # nothing to read: Ray is not asked
    read(tmp_path, "ray")


def test_a_machine_that_would_read_otherwise_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading_on_ray, "reading_rule", lambda params: "another one")
    add(tmp_path, FILES)
    with pytest.raises(
        TandemError, match=r"reading files on Ray failed \(.*another version of Tandem or of a parser .*engine: local"
    ):
        read(tmp_path, "ray")
    assert not (tmp_path / "ray").exists()


def test_a_worker_that_dies_again_and_again_ends_the_stage() -> None:
    class Dying:
        def __call__(self, block: Any) -> Any:
            import os

            os._exit(1)

    with pytest.raises(TandemError, match=r"dying on Ray failed \(.*\); think again"):
        list(cluster.on_ray(Dying, (), [pa.table({"number": [1]})], "dying", "think again"))


def test_reading_needs_ray_only_where_the_params_say_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    add(tmp_path, FILES)
    with pytest.raises(InputError, match=r"engine: ray, and Ray is not installed: pip install 'tandem\[ray\]'"):
        read(tmp_path, "ray")
    assert read(tmp_path, "local")
