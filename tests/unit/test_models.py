import shutil
from pathlib import Path
from typing import Any

import pytest

from tasks.errors import InputError
from tasks.models import copy_model, minilm_folder, models
from tasks.params import ModelsParams
from tasks.records import folder_digest, folder_digests, read_json

NO_RERANKER = {"source": "none", "id": "", "revision": "", "max_tokens": 64, "backend": "torch"}


def params(base: dict[str, str], embedder: Path) -> ModelsParams:
    extra: dict[str, Any] = {"query_prompt": "q: ", "passage_prompt": "p: ", "max_tokens": 64, "backend": "torch"}
    return ModelsParams.model_validate(
        {
            "base": base,
            "embedder": {"source": "folder", "id": str(embedder), "revision": ""} | extra,
            "reranker": NO_RERANKER,
        }
    )


def folder_source(folder: Path) -> dict[str, str]:
    return {"source": "folder", "id": str(folder), "revision": ""}


BUILTIN = {"source": "builtin", "id": "", "revision": ""}


def test_a_models_files_are_copied_whole_beside_what_names_them(tmp_path: Path, tiny_base: Path, tiny_embedder: Path) -> None:
    models(tmp_path / "none", tmp_path / "out", params(folder_source(tiny_base), tiny_embedder))
    copied = folder_digests(tmp_path / "out/base")
    identity = read_json(tmp_path / "out/base/tandem.json")
    assert identity == {"source": "folder", "id": "", "revision": ""}
    assert copied.pop("tandem.json") and copied == folder_digests(tiny_base)
    assert read_json(tmp_path / "out/embedder/tandem.json")["query_prompt"] == "q: "
    assert (tmp_path / "out/embedder/1_Pooling/config.json").exists()


def test_the_same_model_from_another_folder_has_the_same_digest(tmp_path: Path, tiny_base: Path, tiny_embedder: Path) -> None:
    for number, (base, embedder) in enumerate([(tiny_base, tiny_embedder), (tmp_path / "b", tmp_path / "e")]):
        if number:
            shutil.copytree(tiny_base, base)
            shutil.copytree(tiny_embedder, embedder)
        models(tmp_path / "none", tmp_path / f"out-{number}", params(folder_source(base) | {"revision": str(number)}, embedder))
    assert folder_digest(tmp_path / "out-0") == folder_digest(tmp_path / "out-1")


def test_the_built_in_base_is_the_folder_that_the_graph_names(tmp_path: Path, tiny_base: Path, tiny_embedder: Path) -> None:
    models(tiny_base, tmp_path / "out", params(BUILTIN, tiny_embedder))
    assert (tmp_path / "out/base/model.safetensors").read_bytes() == (tiny_base / "model.safetensors").read_bytes()


def test_of_a_download_only_what_a_model_may_consist_of_is_taken(tmp_path: Path, tiny_base: Path) -> None:
    source = Path(shutil.copytree(tiny_base, tmp_path / "source"))
    (source / "pytorch_model.bin").write_bytes(b"pickle")
    (source / "modeling.py").write_text("print('evil')")
    (source / ".cache").mkdir()
    (source / ".cache/state.json").write_text("{}")
    for name in ("onnx/config.json", "openvino/openvino_model.json", "original/params.json", "1_Pooling/sub/config.json"):
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        (source / name).write_text("{}")
    for name in ("consolidated.safetensors", "onnx/model.safetensors", "training_args.json", "flax_model.msgpack"):
        (source / name).write_bytes(b"twice the weights")
    (source / "model.safetensors").rename(tmp_path / "blob")
    (source / "model.safetensors").symlink_to(tmp_path / "blob")  # a hub's cache links to its blobs
    copy_model(source, tmp_path / "target")
    assert folder_digests(tmp_path / "target") == folder_digests(tiny_base)
    assert not (tmp_path / "target/model.safetensors").is_symlink()


def test_a_model_in_several_files_and_the_modules_of_an_embedder_are_taken(tmp_path: Path, tiny_embedder: Path) -> None:
    source = Path(shutil.copytree(tiny_embedder, tmp_path / "source"))
    more = {
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "2_Dense/model.safetensors",
        "2_Dense/config.json",
    }
    more |= {"additional_chat_templates/tools.jinja", "sentencepiece.bpe.model", "vocab.txt", "LICENSE.md"}
    for name in more:
        (source / name).parent.mkdir(exist_ok=True)
        (source / name).write_text("{}")
    copy_model(source, tmp_path / "target")
    assert set(folder_digests(tmp_path / "target")) == set(folder_digests(tiny_embedder)) | more


def test_a_folder_that_is_not_there_is_named(tmp_path: Path, tiny_embedder: Path) -> None:
    with pytest.raises(InputError, match=r"params/models\.yaml: .*nothing is not a folder"):
        models(tmp_path, tmp_path / "out", params(folder_source(tmp_path / "nothing"), tiny_embedder))


def test_a_folder_without_safetensors_is_refused(tmp_path: Path, tiny_base: Path, tiny_embedder: Path) -> None:
    source = Path(shutil.copytree(tiny_base, tmp_path / "source"))
    (source / "model.safetensors").rename(source / "pytorch_model.bin")
    with pytest.raises(InputError, match=r"no \.safetensors weights"):
        models(tmp_path, tmp_path / "out", params(folder_source(source), tiny_embedder))


def test_a_folder_with_nothing_of_a_model_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "source").mkdir()
    (tmp_path / "source/model.bin").write_bytes(b"pickle")
    with pytest.raises(InputError, match="holds no model files"):
        copy_model(tmp_path / "source", tmp_path / "target")


def test_a_hub_that_cannot_be_reached_says_what_to_use_instead(tmp_path: Path, tiny_embedder: Path) -> None:
    hub = {"source": "hub", "id": "no-such-org/no-such-model", "revision": "0" * 40}
    with pytest.raises(InputError, match=r"no-such-model at 000000000000 cannot be fetched.*source: builtin"):
        models(tmp_path, tmp_path / "out", params(hub, tiny_embedder))  # tests are offline: tests/conftest.py


def test_the_built_in_embedder_is_the_official_minilm() -> None:
    assert (minilm_folder() / "1_Pooling/config.json").exists()
