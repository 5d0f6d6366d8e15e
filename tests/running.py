"""`make up` over a tiny clone with a promoted release, for the tests that need servers: fixtures to import in a conftest."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny

ATTEMPTS = 5
PATIENCE = 240  # seconds; the cores may be shared
ENDED = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")


@dataclass(frozen=True)
class Servers:
    """Those of `make up`, and how to talk to them."""

    clone: Path
    days: dict[int, Path]
    mlflow: str
    prefect: str
    environment: dict[str, str]

    def api(self, path: str, body: Any = None) -> Any:
        """Prefect's REST interface: POST with a body, else GET. 503: it is busy; its own client asks again too."""
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.prefect}/api{path}", data, {"content-type": "application/json"})
        for more in reversed(range(ATTEMPTS)):
            try:
                with urllib.request.urlopen(request, timeout=60) as response:
                    return json.loads(response.read() or b"null")
            except urllib.error.HTTPError as error:
                if error.code != 503 or not more:
                    raise
                time.sleep(2)
        return None

    def start(self, flow: str, **parameters: Any) -> str:
        """The id of a new run of a deployment."""
        deployment = self.api(f"/deployments/name/{flow}/{flow}")
        return str(self.api(f"/deployments/{deployment['id']}/create_flow_run", {"parameters": parameters})["id"])

    def until(self, run: str, *states: str) -> dict[str, Any]:
        """The run, once it is in one of these states."""

        def there() -> Any:
            found = self.api(f"/flow_runs/{run}")
            return found if found["state_type"] in states else None

        return dict(wait_for(there, f"flow run {run} to be {' or '.join(states)}", lambda: self.log("worker-cpu")))

    def log(self, name: str) -> str:
        return (self.clone / f".tandem/logs/{name}.log").read_text(errors="replace")[-4000:]


def wait_for(what: Callable[[], Any], name: str, explain: Callable[[], str] = str) -> Any:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        found = what()
        if found:
            return found
        time.sleep(0.3)
    raise AssertionError(f"waited {PATIENCE} s in vain for {name}\n{explain()}")


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def clone_environment(clone: Path, **more: str) -> dict[str, str]:
    """A worker loads `flows` by name: from the clone, not from where this environment has it installed."""
    path = os.pathsep.join(filter(None, (str(clone), os.environ.get("PYTHONPATH"))))
    return tiny.outside_environment(PYTHONPATH=path, **more)


@pytest.fixture(scope="session")
def days(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    return {day: tiny.write_corpus(tmp_path_factory.mktemp("corpus") / f"day-{day}", day) for day in (1, 2)}


@pytest.fixture(scope="session")
def released(tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tiny_embedder: Path, days: dict[int, Path]) -> Path:
    """A clone with release 1 live, made by the command line. Not to be written to."""
    clone = tiny.make_clone(tmp_path_factory.mktemp("released") / "clone", tiny_base, tiny_embedder)
    shutil.copyfile(tiny.ROOT / "infra/prefect.yaml", clone / "infra/prefect.yaml")
    first = days[1]
    run_tandem(clone, "ingest", "--documents", str(first / "documents"), "--questions", str(first / "questions.jsonl"))
    run_tandem(clone, "release")
    return clone


def run_tandem(clone: Path, *words: str, **variables: str) -> None:
    command = [sys.executable, "-m", "flows.cli", *words]
    environment = clone_environment(clone, **variables)
    done = subprocess.run(
        command, cwd=clone, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="session")
def servers(released: Path, days: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    """With approval on, so that a promotion waits for a person."""
    clone = tiny.copy_clone(released, tmp_path_factory.mktemp("servers") / "clone")
    with make_up(clone, TANDEM_APPROVAL="1") as environment:
        mlflow, prefect = (f"http://127.0.0.1:{environment[name]}" for name in ("MLFLOW_PORT", "PREFECT_PORT"))
        yield Servers(clone, days, mlflow, prefect, environment)


@contextmanager
def make_up(clone: Path, **variables: str) -> Iterator[dict[str, str]]:
    """`make up` in a process of its own; yields its environment. Its end is part of the test: nothing stays."""
    environment = clone_environment(clone, MLFLOW_PORT=free_port(), PREFECT_PORT=free_port(), **variables)
    said = clone / "up.log"
    with said.open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.servers"], cwd=clone, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
        )
    try:
        wait_for(lambda: process.poll() is not None or "Ctrl-C" in said.read_text(), "make up", said.read_text)
        assert process.poll() is None, said.read_text()
        yield environment | {"UP_PID": str(process.pid)}
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=PATIENCE)
        wait_for(lambda: not processes_in(clone), "all processes to end", lambda: "\n".join(processes_in(clone)))


def processes_in(clone: Path) -> list[str]:
    """Command lines of the processes that work in a clone."""
    import psutil

    found = []
    for process in psutil.process_iter(["cwd", "cmdline", "status"]):
        if process.info["cwd"] == str(clone) and process.info["status"] != psutil.STATUS_ZOMBIE:
            found.append(" ".join(process.info["cmdline"] or []))
    return found
