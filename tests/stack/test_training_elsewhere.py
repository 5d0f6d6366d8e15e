"""The adapter is trained by a worker in another clone: a shared DVC remote, a Prefect server, a worker for each pool."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import tiny
import yaml
from running import ENDED, Servers, make_up, wait_for

from tasks.records import folder_digest


@pytest.fixture(scope="module")
def caller(released: Path, days: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    clone = tiny.copy_clone(released, tmp_path_factory.mktemp("caller") / "clone")
    add_remote(clone, tmp_path_factory.mktemp("remote"))
    with make_up(clone, TANDEM_TRAINER="train/train") as environment:
        mlflow, prefect = (f"http://127.0.0.1:{environment[name]}" for name in ("MLFLOW_PORT", "PREFECT_PORT"))
        yield Servers(clone, days, mlflow, prefect, environment)


@pytest.fixture(scope="module")
def runner(caller: Servers, tiny_base: Path, tiny_embedder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A fresh clone that never saw the corpus, with a worker of the pool gpu at work in it."""
    clone = tiny.make_clone(tmp_path_factory.mktemp("runner") / "clone", tiny_base, tiny_embedder)
    (clone / "infra/prefect.yaml").write_text((tiny.ROOT / "infra/prefect.yaml").read_text())
    add_remote(clone, Path(remote_of(caller.clone)))
    environment = tiny.outside_environment(PYTHONPATH=str(clone), PREFECT_API_URL=f"{caller.prefect}/api")
    deploy = ["--no-prompt", "deploy", "--name", "train", "--prefect-file", "infra/prefect.yaml"]
    subprocess.run([sys.executable, "-m", "prefect", *deploy], cwd=clone, env=environment, check=True, capture_output=True)
    with worker(clone, environment):
        yield clone


def add_remote(clone: Path, place: Path) -> None:
    assert tiny.dvc(clone, "remote", "add", "--default", "storage", str(place)).returncode == 0
    assert tiny.dvc(clone, "remote", "modify", "storage", "verify", "true").returncode == 0


def remote_of(clone: Path) -> str:
    return tiny.dvc(clone, "remote", "list").stdout.split()[1]


@contextmanager
def worker(clone: Path, environment: dict[str, str]) -> Iterator[None]:
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "gpu", "--name", "runner"]
    with (clone / "worker.log").open("wb") as log:
        process = subprocess.Popen(command, cwd=clone, env=environment, stdout=log, stderr=log)
    try:
        wait_for(lambda: b"started" in (clone / "worker.log").read_bytes(), "the worker", (clone / "worker.log").read_text)
        yield
    finally:
        process.kill()  # asked to end, Prefect's worker at times only says that it will; nothing here rests on how it ends
        process.wait()


def logs(caller: Servers, run: str) -> str:
    """Of a flow run and its tasks, as the UI shows them."""
    found = caller.api("/logs/filter", {"logs": {"flow_run_id": {"any_": [run]}}, "limit": 200, "sort": "TIMESTAMP_ASC"})
    return "\n".join(each["message"] for each in found)


def trainings(caller: Servers) -> list[dict[str, object]]:
    return list(caller.api("/flow_runs/filter", {"flows": {"name": {"any_": ["train"]}}, "sort": "START_TIME_DESC"}))


def test_what_the_runner_trained_is_restored_here_and_judged(caller: Servers, runner: Path) -> None:
    tiny.change_params(caller.clone, "adapter.yaml", {"seed": 7})
    before = folder_digest(caller.clone / "data/adapter")
    ended = caller.until(caller.start("retrain"), *ENDED)

    assert ended["state_type"] == "COMPLETED", logs(caller, str(ended["id"]))
    (training,) = trainings(caller)
    assert training["state_name"] == "Trained"
    here, there = logs(caller, str(ended["id"])), logs(caller, str(training["id"]))
    assert "adapter: restored in" in here and "adapter: executed in" not in here
    assert "adapter: executed in" in there
    made = folder_digest(caller.clone / "data/adapter")
    assert made == folder_digest(runner / "data/adapter") != before
    assert not (runner / "data/raw").exists() and not (runner / ".tandem/ledger").exists()  # no corpus, no promotion there
    locks = [yaml.safe_load((clone / "dvc.lock").read_text())["stages"]["adapter"] for clone in (caller.clone, runner)]
    assert locks[0] == locks[1]


def test_a_runner_with_other_code_refuses(caller: Servers, runner: Path) -> None:
    stage = runner / "tasks/adapter.py"
    ours = stage.read_text()
    stage.write_text(ours + "\n")
    try:
        tiny.change_params(caller.clone, "adapter.yaml", {"seed": 8})
        ended = caller.until(caller.start("retrain"), *ENDED)
    finally:
        stage.write_text(ours)
    assert ended["state_type"] == "FAILED"
    assert "has other code (tasks/, dvc.yaml) than who asks it to train" in str(ended["state"]["message"])
