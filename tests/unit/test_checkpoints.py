import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tasks.checkpoints import MARKER, PARTS, Checkpoints, Progress, stop_asked, training_key
from tasks.params import AdapterParams
from tasks.params_files import load
from tasks.records import write_text

KEY, OTHER = "a" * 64, "b" * 64
SHIPPED = Path(__file__).parents[2] / "params"


def parts(value: float) -> dict[str, Any]:
    import torch

    return {name: {"lora_B": torch.full((2, 3), float(value))} for name in PARTS}


def written(root: Path, *steps: int) -> Checkpoints:
    made = Checkpoints(root, KEY)
    for step in steps:
        made.write(Progress(step, [{"step": step, "train_loss": 1 / 3}]), parts(step))
    return made


def found(root: Path, key: str = KEY) -> int | None:
    """The step that a new process would go on from; its weights are those of that step."""
    newest = Checkpoints(root, key).newest()
    if newest is None:
        return None
    progress, tensors = newest
    assert {float(tensors[name]["lora_B"].mean()) for name in PARTS} == {progress.step}
    return progress.step


def test_the_newest_checkpoint_comes_back_as_it_was_and_the_one_before_is_gone(tmp_path: Path) -> None:
    made = written(tmp_path, 4, 8)
    newest = made.newest()
    assert newest is not None and newest[0] == Progress(8, [{"step": 8, "train_loss": 1 / 3}])
    assert [path.name for path in made.folder.iterdir()] == ["step-00000008"]
    assert not any(path.suffix not in (".json", ".safetensors") for path in made.folder.rglob("*.*"))  # no pickle


def test_a_kill_at_any_file_of_a_checkpoint_leaves_the_one_before(tmp_path: Path) -> None:
    old = written(tmp_path / "old", 4).folder / "step-00000004"
    new = written(tmp_path / "new", 8).folder / "step-00000008"
    files = sorted(new.iterdir(), key=lambda path: (path.name == MARKER, path.stat().st_mtime_ns))
    assert len(files) == len(PARTS) + 2
    for count, cut in ((count, cut) for count in range(len(files)) for cut in (True, False)):
        root = tmp_path / f"killed-{count}-{cut}"
        shutil.copytree(old, root / KEY / old.name)
        torn = root / KEY / new.name
        torn.mkdir()
        for path in files[:count]:
            shutil.copy(path, torn)
        if cut:  # in the middle of the next
            (torn / files[count].name).write_bytes(files[count].read_bytes()[:-7])
        assert found(root) == 4 and not torn.exists()


def test_a_kill_while_the_one_before_is_removed_leaves_the_new_one(tmp_path: Path) -> None:
    old = written(tmp_path / "old", 4).folder / "step-00000004"
    (old / MARKER).unlink()
    written(tmp_path / "all", 8)
    shutil.copytree(old, tmp_path / "all" / KEY / old.name)
    assert found(tmp_path / "all") == 8


@pytest.mark.parametrize("name", [*(f"{part}.safetensors" for part in PARTS), "progress.json", MARKER])
def test_a_flipped_byte_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, 4).folder / "step-00000004" / name
    whole = path.read_bytes()
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 1]) + whole[-2:])
    assert found(tmp_path) is None and list(tmp_path.rglob("*.safetensors")) == []


def test_a_foreign_checkpoint_is_never_taken_whatever_its_folder_is_called(tmp_path: Path) -> None:
    written(tmp_path, 4)
    (tmp_path / KEY).rename(tmp_path / OTHER)
    assert found(tmp_path, OTHER) is None
    written(tmp_path, 4)
    assert found(tmp_path, OTHER) is None and not (tmp_path / KEY).exists()  # nobody will end that training


def test_another_base_example_value_or_number_of_processes_is_another_training(tmp_path: Path) -> None:
    for name in ("base", "examples"):
        write_text(tmp_path / name / "file", "one")
    params = load(AdapterParams, SHIPPED)

    def key(changed: AdapterParams = params, processes: int = 1) -> str:
        return training_key(tmp_path / "base", tmp_path / "examples", changed, processes)

    keys = [key(), key(processes=2), key(params.model_copy(update={"seed": 9}))]
    for name in ("base", "examples"):
        write_text(tmp_path / name / "file", "two")
        keys.append(key())
    assert len(set(keys)) == 5


def test_sigterm_is_noted_and_the_process_goes_on_until_it_looks() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_asked() as asked:
        assert not asked()
        os.kill(os.getpid(), signal.SIGTERM)
        assert asked()
    assert signal.getsignal(signal.SIGTERM) is before


def test_what_somebody_else_keeps_in_that_folder_stays(tmp_path: Path) -> None:
    write_text(tmp_path / "photos/cat", "meow")
    write_text(tmp_path / "notes", "buy flour")
    made = written(tmp_path, 4)
    assert found(tmp_path, OTHER) is None and found(tmp_path) is None
    made = written(tmp_path, 4)
    made.clear()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["notes", "photos"] and (tmp_path / "photos/cat").exists()
    written(tmp_path / "own", 4).clear()
    assert not (tmp_path / "own").exists()
