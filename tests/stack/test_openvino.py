"""The embedder by OpenVINO, which is installed for these tests only."""

import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tiny

from flows.settings import read_settings
from flows.tuning import tune
from tasks.artifacts import check_model_folder
from tasks.backends import OPENVINO
from tasks.calibrate import TEXTS, calibrate
from tasks.embedding import Embedder
from tasks.errors import InputError, IntegrityError
from tasks.models import write_embedder
from tasks.params import EmbedderSource
from tasks.records import folder_digest
from tasks.search import check_embedder

PASSAGES = ["x", "How warm is the proofer?", "The van leaves at 5:45.", "bread " * 40, "Aprons are washed after every shift."]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_embedder: Path) -> dict[str, Path]:
    """Backend -> the embedder's folder as the stage `models` leaves it."""
    made = {backend: tmp_path_factory.mktemp("models") / "embedder" for backend in ("torch", "openvino-int8")}
    for backend, folder in made.items():
        write_embedder(source(tiny_embedder, backend), folder)
    return made


def source(folder: Path, backend: str) -> EmbedderSource:
    values = {"source": "folder", "id": str(folder), "revision": "", "query_prompt": "", "passage_prompt": "passage: "}
    return EmbedderSource.model_validate(values | {"max_tokens": 32, "backend": backend})


def test_a_vector_does_not_depend_on_its_batch_and_is_nearly_that_of_torch(folders: dict[str, Path]) -> None:
    """Prompt, cut at max_tokens, pooling and padding are in it: each alone would move a vector further."""
    exact, fast = (Embedder(folders[backend]) for backend in ("torch", "openvino-int8"))
    alone = np.concatenate([fast.passages([text]) for text in PASSAGES])
    for budget in (1, 40, 10_000):
        assert np.allclose(fast.passages(PASSAGES, budget), alone, atol=1e-5)
    near = (exact.passages(PASSAGES) * alone).sum(axis=1)
    assert (near > 0.98).all() and not np.array_equal(exact.passages(PASSAGES), alone)
    assert ((exact.queries(PASSAGES) * alone).sum(axis=1) < near).any(), "the passages' prompt was told"
    assert fast.queries([]).shape == (0, 64)


def test_threads_that_ask_at_the_same_time_get_each_its_own_vectors(folders: dict[str, Path]) -> None:
    fast = Embedder(folders["openvino-int8"])
    texts = PASSAGES * 40
    alone = [fast.queries([text]) for text in PASSAGES] * 40
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda text: fast.queries([text]), texts))
    assert np.array_equal(np.concatenate(together), np.concatenate(alone))


def test_threads_whose_arrays_are_the_first_of_the_process_do_not_wait_for_each_other_for_ever(folders: dict[str, Path]) -> None:
    """They would, each time: NumPy's interface is looked up slowly here, so that both are at it."""
    code = """
import sys, threading, time
import numpy as np
from pathlib import Path
from tasks.backends import OpenvinoBackend
known = np.lib.NumpyVersion
np.lib.NumpyVersion = lambda version: (time.sleep(0.3), known(version))[1]
backend = OpenvinoBackend(Path(sys.argv[1]))
threads = [threading.Thread(target=backend.vectors, args=(["bread"], "", 512)) for _ in range(2)]
[thread.start() for thread in threads]
[thread.join() for thread in threads]
print("done")
"""
    command = [sys.executable, "-c", code, str(folders["openvino-int8"])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, env=tiny.outside_environment(), check=False)
    assert done.stdout == "done\n", done.stderr


def test_the_graph_is_made_again_byte_for_byte_whatever_the_process_made_before(folders: dict[str, Path], tmp_path: Path) -> None:
    again = Path(shutil.copytree(folders["openvino-int8"], tmp_path / "again"))
    for name in OPENVINO:
        (again / name).unlink()
    calibrate(again)
    assert folder_digest(again) == folder_digest(folders["openvino-int8"])
    check_model_folder(again)


def test_an_index_of_another_backend_does_not_open_with_it(folders: dict[str, Path]) -> None:
    theirs, ours = (Embedder(folders[backend]).identity() for backend in ("torch", "openvino-int8"))
    assert ours["backend"] == "openvino-int8"
    check_embedder(ours, ours)
    with pytest.raises(IntegrityError, match=r"backend torch.*openvino-int8"):
        check_embedder(theirs, ours)


def test_a_model_that_cannot_be_made_a_graph_is_named_with_the_way_out(folders: dict[str, Path], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(folders["torch"], tmp_path / "embedder"))
    (folder / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"embedder cannot be made an OpenVINO graph \(.*\); set backend: torch"):
        calibrate(folder)


def test_the_texts_of_the_calibration_are_none_of_the_demo_corpus() -> None:
    handbook = "\n".join(path.read_text(encoding="utf-8") for path in (tiny.ROOT / "data/demo/handbook").rglob("*.md"))
    lines = TEXTS.read_text(encoding="utf-8").splitlines()
    assert len(lines) > 80 and not [line for line in lines if len(line) > 20 and line in handbook]


def test_tuning_measures_it_beside_the_others(tmp_path: Path, tiny_base: Path, tiny_embedder: Path) -> None:
    clone = tiny.make_clone(tmp_path / "clone", tiny_base, tiny_embedder)
    with tiny.inside(clone):
        found = tune(read_settings(), 2.0)
    assert "openvino-int8" in {record["backend"] for record in found["measured"]} and not found["skipped"]
