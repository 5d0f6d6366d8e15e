"""Faults of the params that are found before anything runs."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from safetensors.numpy import save_file

from flows.checks import check_adapter_folder, check_params, check_space
from tasks.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    shutil.copytree(tiny.ROOT / "params", tmp_path / "params")
    return tmp_path


def test_the_shipped_params_agree(root: Path) -> None:
    check_params(root / "params")


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("evaluate.yaml", {"style": {"voice": "^At (Larkfield"}}, "style.voice: '^At (Larkfield' is no regular expression"),
        ("evaluate.yaml", {"rules": {"mine": {"function": "checks.gone.polite"}}}, "there is no file checks/gone.py"),
        ("evaluate.yaml", {"engine": "vllm"}, "engine: vllm needs an environment of its own; make one (docs/gpu.md)"),
        ("prompt.yaml", {"abstention_patterns": ["["]}, "abstention_patterns.0: '[' is no regular expression"),
        ("prompt.yaml", {"abstention_patterns": ["no idea"]}, "no pattern of `abstention_patterns` matches `abstention`"),
        ("prompt.yaml", {"shots": {"prompt": 3, "rag": 0, "rga": 0}}, "prompt.yaml: shots.rga"),
    ],
)
def test_what_would_stop_or_spoil_the_last_stage_stops_the_first(root: Path, file: str, values: Any, said: str) -> None:
    tiny.change_params(root, file, values)
    with pytest.raises(InputError) as found:
        check_params(root / "params")
    assert file in str(found.value) and said in str(found.value)


def test_a_weight_on_a_house_voice_without_rules_is_refused(root: Path) -> None:
    path = root / "params/evaluate.yaml"
    path.write_text(re.sub(r"^style:.*\n(  .*\n)*", "style: {}\n", path.read_text(), flags=re.MULTILINE))
    with pytest.raises(InputError, match="weighs the house voice"):
        check_params(root / "params")
    tiny.change_params(root, "gate.yaml", {"primary": {"fact": 0.8, "citation": 0.2, "style": 0.0}})
    check_params(root / "params")


def test_a_disk_without_room_for_the_databases_is_refused_before_a_server_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    check_space(tmp_path)
    usage = shutil.disk_usage(tmp_path)._replace(free=3_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(InputError, match=r"3 MB are free .* TANDEM_HOME"):
        check_space(tmp_path)


def test_a_folder_that_is_no_adapter_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a folder with a model in it"):
        check_adapter_folder(tmp_path / "nowhere")
    save_file({"w": np.zeros((2, 2), dtype=np.float32)}, tmp_path / "model.safetensors")
    with pytest.raises(InputError, match=r"no adapter_config\.json and no adapter_model"):
        check_adapter_folder(tmp_path)
    (tmp_path / "training_args.bin").write_bytes(b"\x80")
    with pytest.raises(InputError, match=r"training_args\.bin: a model may hold only"):
        check_adapter_folder(tmp_path)
