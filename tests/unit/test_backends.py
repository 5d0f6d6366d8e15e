"""The three arithmetics of an embedder, on a random one of a single layer."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from threading import Barrier

import numpy as np
import pytest
import tiny
from test_index import corpus
from test_models import NO_RERANKER

from tasks.artifacts import check_model_folder
from tasks.backends import OPENVINO, QUANTISED, Vectors, batches, in_batches
from tasks.calibrate import make_graph
from tasks.embedding import Embedder
from tasks.encoders import PINNED
from tasks.errors import InputError, IntegrityError
from tasks.models import models
from tasks.params import ModelsParams
from tasks.quantise import quantise_embedder
from tasks.records import file_digest, read_json, write_json, write_jsonl
from tasks.search import Index, check_embedder

TEXTS = ["x", "How warm is the proofer?", "The van leaves at 5:45.", "bread " * 40, "Aprons are washed after every shift."]


BACKENDS = ("torch", "torch-bf16", "onnx-int8")  # openvino-int8: tests/stack/test_openvino.py


@pytest.fixture(scope="module")
def folders(tiny_base: Path, tiny_embedder: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Backend -> the embedder's folder as the stage `models` leaves it."""
    made = {}
    for backend in BACKENDS:
        made[backend] = tmp_path_factory.mktemp("models") / "out"
        models(tiny_base, made[backend], params(tiny_embedder, backend))
    return {backend: folder / "embedder" for backend, folder in made.items()}


def params(embedder: Path, backend: str) -> ModelsParams:
    source = {"source": "folder", "id": str(embedder), "revision": "", "query_prompt": "", "passage_prompt": "passage: "}
    return ModelsParams.model_validate(
        {
            "base": {"source": "builtin", "id": "", "revision": ""},
            "embedder": source | {"max_tokens": 32, "backend": backend},
            "reranker": NO_RERANKER,
        }
    )


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_vector_does_not_depend_on_its_batch_and_returns_in_its_place(folders: dict[str, Path], backend: str) -> None:
    embedder = Embedder(folders[backend])
    alone = np.concatenate([embedder.passages([text]) for text in TEXTS])
    near = 5e-3 if backend == "torch-bf16" else 1e-5
    for budget in (1, 40, 10_000):
        found = embedder.passages(TEXTS, budget)
        assert found.shape == (len(TEXTS), 64) and found.dtype == np.float32
        assert np.allclose(found, alone, atol=near)
    assert np.allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-5)
    assert embedder.queries([]).shape == (0, 64)


@pytest.mark.parametrize(("backend", "least"), [("torch-bf16", 0.999), ("onnx-int8", 0.99)])
def test_a_faster_backend_gives_nearly_the_vectors_of_torch(folders: dict[str, Path], backend: str, least: float) -> None:
    """Prompt, cut at max_tokens, pooling and padding are in it: each alone would move a vector further."""
    exact, fast = Embedder(folders["torch"]), Embedder(folders[backend])
    assert ((exact.passages(TEXTS) * fast.passages(TEXTS)).sum(axis=1) > least).all()
    assert not np.array_equal(exact.passages(TEXTS), fast.passages(TEXTS))
    assert ((exact.queries(TEXTS) * fast.passages(TEXTS)).sum(axis=1) < least).any()


def test_the_backend_is_part_of_the_identity_and_another_one_is_refused(folders: dict[str, Path], tmp_path: Path) -> None:
    found = {backend: Embedder(folder).identity() for backend, folder in folders.items()}
    assert [found[backend]["backend"] for backend in BACKENDS] == list(BACKENDS)
    assert len({each["digest"] for each in found.values()}) == len(BACKENDS)
    for backend in BACKENDS[1:]:
        check_embedder(found[backend], found[backend])
        with pytest.raises(IntegrityError, match=rf"backend {backend}.*has torch.*dvc repro index"):
            check_embedder(found[backend], found["torch"])
    with pytest.raises(IntegrityError, match="backend onnx-int8"):
        Index(str(tmp_path / "index"), {"embedder": found["onnx-int8"]}, Embedder(folders["torch"]))


def test_a_release_from_before_there_was_a_choice_is_read_as_torch(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["torch"], tmp_path / "old"))
    source = read_json(folder / "tandem.json")
    source.pop("backend")
    write_json(folder / "tandem.json", source)
    identity = Embedder(folder).identity()
    old = {key: value for key, value in identity.items() if key != "backend"}
    check_embedder(old, identity)
    check_embedder(identity, old)


def test_the_graph_is_made_again_byte_for_byte(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["onnx-int8"], tmp_path / "again"))
    (folder / QUANTISED).unlink()
    quantise_embedder(folder)
    assert file_digest(folder / QUANTISED) == file_digest(folders["onnx-int8"] / QUANTISED)


def test_linear_layers_are_integers_and_the_graph_is_smaller_for_it(folders: dict[str, Path]) -> None:
    import onnx

    graph = onnx.load(str(folders["onnx-int8"] / QUANTISED)).graph
    assert [node.op_type for node in graph.node].count("MatMulIntegerToFloat") == 6  # of one layer: q, k, v, out, up, down
    kinds = {each.name: each.data_type for each in graph.initializer if len(each.dims) == 2 and each.name.endswith("_int8")}
    assert set(kinds.values()) == {onnx.TensorProto.INT8} and len(kinds) == 6


def test_a_graph_is_allowed_only_where_the_stage_made_it(folders: dict[str, Path], tmp_path: Path) -> None:
    check_model_folder(folders["onnx-int8"])
    foreign = Path(shutil.copytree(folders["torch"], tmp_path / "foreign"))
    shutil.copyfile(folders["onnx-int8"] / QUANTISED, foreign / QUANTISED)
    with pytest.raises(InputError, match=QUANTISED):
        check_model_folder(foreign)
    shutil.copyfile(foreign / QUANTISED, foreign / OPENVINO[1])
    for name in (QUANTISED, *OPENVINO[1:]):
        (folder := Path(shutil.copytree(folders["onnx-int8"], tmp_path / name)) / OPENVINO[1]).write_bytes(b"weights")
        with pytest.raises(InputError, match=folder.name):
            check_model_folder(folder.parent)
    (foreign / OPENVINO[1]).unlink()
    (foreign / QUANTISED).rename(foreign / "1_Pooling" / QUANTISED)
    with pytest.raises(InputError, match=QUANTISED):
        check_model_folder(foreign)


def test_without_its_package_the_way_out_is_named(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(InputError, match=r"needs the package onnxruntime: pip install onnxruntime, or set backend: torch"):
        Embedder(folders["onnx-int8"])
    with pytest.raises(InputError, match="onnxruntime"):
        quantise_embedder(tmp_path)
    monkeypatch.setitem(sys.modules, "nncf", None)
    monkeypatch.setitem(sys.modules, "openvino", None)
    with pytest.raises(InputError, match=r"backend: openvino-int8 in params/models.yaml needs the package openvino: pip install"):
        make_graph(tmp_path, "openvino-int8")


def test_a_model_that_cannot_be_exported_is_named_with_the_way_out(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["torch"], tmp_path / "embedder"))
    (folder / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"embedder cannot be exported to ONNX.*set backend: torch"):
        quantise_embedder(folder)


def test_a_batch_holds_no_more_than_its_budget_and_every_text_once() -> None:
    lengths = [5, 300, 1, 7, 6, 40, 2]
    found = list(batches(lengths, 30))
    assert found == [[2, 6, 0, 4], [3], [5], [1]]
    assert all(len(batch) == 1 or len(batch) * max(lengths[each] for each in batch) <= 30 for batch in found)
    assert list(batches([], 30)) == []


def test_a_build_by_the_graph_imports_neither_torch_nor_pandas(folders: dict[str, Path], tmp_path: Path) -> None:
    write_jsonl(tmp_path / "chunks/passages.jsonl", corpus())
    write_json(tmp_path / "retriever" / PINNED, {"sides": "none"})
    places = ("chunks", "retriever", "out", "metrics", "store", "vectors")
    flags = [word for place in places for word in (f"--{place}", str(tmp_path / place))]
    done = subprocess.run(
        [sys.executable, "-v", "-m", "tasks.index", *flags, "--embedder", str(folders["onnx-int8"])],
        env=tiny.outside_environment(), cwd=tiny.ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    imported = set(re.findall(r"^import '(\w+)'", done.stderr, re.MULTILINE))
    assert {"lancedb", "onnxruntime"} <= imported and not imported & {"torch", "pandas", "sentence_transformers"}
    index = Index(str(tmp_path / "store"), read_json(tmp_path / "out/manifest.json"), Embedder(folders["onnx-int8"]))
    assert len(index.legs("bread", 3)[1]) == 3


@pytest.mark.parametrize(("told", "workers"), [("", len(os.sched_getaffinity(0))), ("1", 1), ("3,1", 3)])
def test_as_many_batches_are_computed_at_a_time_as_openmp_is_given_threads(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, told: str, workers: int
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", told)
    embedder = Embedder(folders["onnx-int8"])
    assert embedder.encoder.workers == workers
    assert embedder.encoder.session.get_session_options().intra_op_num_threads == 1
    assert np.allclose(embedder.passages(TEXTS), np.concatenate([embedder.passages([text]) for text in TEXTS]), atol=1e-5)


def test_batches_of_several_threads_return_in_their_places_and_leave_none_idle() -> None:
    together = Barrier(3, timeout=30)

    def run(batch: list[int]) -> Vectors:
        together.wait()  # would break where fewer than three were under way at a time
        return np.array([[float(position), 1.0] for position in batch], np.float32)

    lengths = [4] * 6  # three batches of two, where one would hold all
    assert in_batches(run, lengths, 1000, 2, workers=3)[:, 0].tolist() == [0, 1, 2, 3, 4, 5]
    alone = in_batches(lambda batch: np.ones((len(batch), 2), np.float32), lengths, 1000, 2)
    assert alone.shape == (6, 2)
    asked: list[list[int]] = []

    def noted(batch: list[int]) -> Vectors:
        asked.append(batch)
        return np.ones((len(batch), 2), np.float32)

    in_batches(noted, [2, 10, 3], 1000, 2)
    assert asked == [[0, 2, 1]], "one worker takes what fits into one batch as one"
    assert in_batches(run, [], 1000, 2, workers=3).shape == (0, 2)


def test_a_batch_that_fails_stops_all() -> None:
    def run(batch: list[int]) -> Vectors:
        if 2 in batch:
            raise InputError("the model is torn")
        return np.ones((len(batch), 2), np.float32)

    with pytest.raises(InputError, match="torn"):
        in_batches(run, [4, 4, 4], 4, 2, workers=2)
