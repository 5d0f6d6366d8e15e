"""The stage `adapter` as DVC runs it, in a process of its own that is stopped and killed, and in two."""

import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import tiny

from tasks.errors import PreemptedError
from tasks.records import folder_digest, read_json, write_jsonl

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path) -> Path:
    """A folder with params and examples, in which the stage can be run; 40 steps."""
    place = tmp_path_factory.mktemp("place")
    shutil.copytree(tiny.ROOT / "params", place / "params")
    shrunk = tiny.SHRUNK["adapter.yaml"] | {
        "epochs": 40.0,
        "batch_size": 30,
        "batch_tokens": 64,
        "dropout": 0.1,
        "evaluations": 8,
    }
    tiny.change_params(place, "adapter.yaml", shrunk)
    shutil.copytree(tiny_base, place / "base")
    made = [
        {"id": f"q{number}", "question": row[2], "document": "page", "passages": [],
         "prompt": [{"role": "user", "content": row[2] + " So it is." * (number % 7)}],
         "completion": [{"role": "assistant", "content": tiny.HOUSE.format(row[3])}]}
        for number, row in enumerate(tiny.rows())
    ]  # fmt: skip
    write_jsonl(place / "examples/train.jsonl", made[:30])
    write_jsonl(place / "examples/validation.jsonl", made[30:])
    return place


def start(place: Path, out: Path, *launcher: str) -> "subprocess.Popen[str]":
    beside = {"metrics": ".json", "plots": ".plots", "checkpoints": ".ck"}
    words: dict[str, Path | str] = {
        "base": "base",
        "examples": "examples",
        "general": tiny.ROOT / "infra/general.txt",
        "probes": tiny.ROOT / "infra/probes.jsonl",
        "out": out,
    }
    words |= {name: out.with_suffix(suffix) for name, suffix in beside.items()}
    flags = [str(word) for name, value in words.items() for word in (f"--{name}", value)]
    environment = tiny.outside_environment(PYTHONPATH=str(tiny.ROOT), OMP_NUM_THREADS="1", PYTHONWARNINGS="ignore")
    return subprocess.Popen(
        [*(launcher or (sys.executable,)), "-m", "tasks.adapter", *flags], cwd=place, env=environment, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip


@pytest.fixture(scope="module")
def uninterrupted(place: Path) -> str:
    process = start(place, place / "whole")
    said, _ = process.communicate(timeout=280)
    assert process.returncode == 0, said
    return folder_digest(place / "whole")


def until(process: "subprocess.Popen[str]", pattern: str) -> str:
    for line in process.stdout or ():
        if re.match(pattern, line):
            return line
    raise AssertionError(f"it ended ({process.wait()}) without saying {pattern!r}")


def test_sigterm_writes_a_checkpoint_and_the_next_run_ends_in_the_same_bytes(place: Path, uninterrupted: str) -> None:
    process = start(place, place / "stopped")
    until(process, "step 6 of 40")  # between two evaluations
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == PreemptedError.exit_code == 75, said
    assert "training was asked to stop and did, after step " in said and "Traceback" not in said
    assert not (place / "stopped").exists() and list((place / "stopped.ck").rglob("complete.json"))
    again = start(place, place / "stopped")
    assert int(until(again, "going on after step").split()[4]) >= 6
    said, _ = again.communicate(timeout=280)
    assert again.returncode == 0, said
    assert folder_digest(place / "stopped") == uninterrupted
    assert not (place / "stopped.ck").exists()


def test_kill_9_at_any_time_and_again_ends_in_the_same_bytes(place: Path, uninterrupted: str) -> None:
    """After an evaluation, which is when checkpoints are written."""
    draw = random.Random(5)
    for _ in range(3):
        process = start(place, place / "killed")
        until(process, r"step [1-9]\d* of 40: validation loss")
        time.sleep(draw.uniform(0, 0.2))
        process.kill()
        process.communicate()
    process = start(place, place / "killed")
    until(process, "going on after step")
    said, _ = process.communicate(timeout=280)
    assert process.returncode == 0, said
    assert folder_digest(place / "killed") == uninterrupted


def test_two_processes_train_as_one_does_and_write_one_adapter(place: Path, uninterrupted: str) -> None:
    launch = ("--cpu", "--num_processes", "2", "--num_cpu_threads_per_process", "1")
    process = start(place, place / "two", sys.executable, "-m", "accelerate.commands.launch", *launch)
    said, _ = process.communicate(timeout=280)
    assert process.returncode == 0, said
    one, two = (read_json(place / f"{name}.json") for name in ("whole", "two"))
    for before, after in zip(one["curve"], two["curve"], strict=True):
        assert before["step"] == after["step"]
        for name in ("train_loss", "validation_loss"):
            assert after.get(name) == pytest.approx(before.get(name), abs=0.02)
    assert one["kept_step"] == two["kept_step"]
    assert said.count("adapter: validation loss") == 1 and said.count("step 40 of 40: validation loss") == 1
    assert not list(place.rglob("*.tmp")) and not (place / "two.ck").exists()
