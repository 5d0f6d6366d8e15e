import json
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from tasks.artifacts import check_model_folder
from tasks.errors import InputError


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A model folder in which nothing is wrong."""
    model = tmp_path / "model"
    (model / "1_Pooling").mkdir(parents=True)
    save_file({"w": np.ones((2, 3), dtype=np.float32)}, model / "model.safetensors")
    (model / "config.json").write_text('{"model_type": "llama"}')
    (model / "1_Pooling/config.json").write_text("{}")
    (model / "README.md").write_text("A model.")
    check_model_folder(model)
    return model


def fault(folder: Path) -> str:
    with pytest.raises(InputError) as found:
        check_model_folder(folder)
    return str(found.value)


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "optimizer.pt",
        "model.ckpt",
        "modeling_custom.py",
        "model.gguf",
        "run.sh",
        "config.json.pkl",
        ".hidden",
    ],
)
def test_a_file_of_a_kind_that_can_hold_code_is_named(folder: Path, name: str) -> None:
    (folder / name).write_bytes(pickle.dumps({"w": 1}))
    assert name in fault(folder)


def test_a_pickle_under_the_name_of_safetensors_is_found(folder: Path) -> None:
    (folder / "adapter.safetensors").write_bytes(pickle.dumps({"w": list(range(1000))}))
    assert "adapter.safetensors is not a" in fault(folder)


@pytest.mark.parametrize(
    "content", [b"", b"1234", struct.pack("<Q", 2**62) + b"{}", struct.pack("<Q", 4) + b"nope", struct.pack("<Q", 2) + b"[]"]
)
def test_a_torn_header_is_found(folder: Path, content: bytes) -> None:
    (folder / "model.safetensors").write_bytes(content)
    assert "model.safetensors is not a" in fault(folder)


def test_a_file_that_was_cut_short_is_found(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-4])
    assert "model.safetensors is not a" in fault(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "adapter_config.json", "1_Pooling/config.json"])
def test_auto_map_is_refused_in_every_configuration_and_at_any_depth(folder: Path, name: str) -> None:
    (folder / name).write_text(json.dumps({"text_config": {"layers": [{"auto_map": {"AutoModel": "evil--repo.Model"}}]}}))
    said = fault(folder)
    assert name in said and "auto_map asks for code" in said


def test_without_safetensors_there_is_no_model(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "holds no .safetensors weights; convert them" in fault(folder)


def test_a_link_is_refused_even_to_a_good_file(folder: Path) -> None:
    (folder / "more.json").symlink_to(folder / "config.json")
    assert "more.json" in fault(folder)


@pytest.mark.parametrize("text", ["", "{", "\ufeff{}x", "[" * 100_000])
def test_a_configuration_that_is_no_json_is_named(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    assert "config.json is not valid JSON" in fault(folder)


def test_what_is_no_folder_is_refused(tmp_path: Path) -> None:
    assert "not a folder" in fault(tmp_path / "nothing")
