"""A Prefect server and a worker beside a clone, for what is timed against servers that run."""

import json
import os
import shutil
import socket
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import peers

sys.path.insert(0, str(peers.ROOT / "tests"))

import tiny


def environment(clone: Path, **more: str) -> dict[str, str]:
    return tiny.outside_environment(
        TANDEM_ROOT=str(clone), DVC_NO_ANALYTICS="1", DVC_SITE_CACHE_DIR=str(clone / ".tandem/dvc"), **more
    )


@contextmanager
def prefect_server(clone: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)]
    home = {"PREFECT_HOME": str(clone / ".tandem/prefect-running"), "PREFECT_SERVER_ANALYTICS_ENABLED": "false"}
    with (clone / ".tandem/server.log").open("w") as log:
        server = subprocess.Popen(command, env=tiny.outside_environment(**home), stdout=log, stderr=log)
        try:
            wait_until_there(f"http://127.0.0.1:{port}/api/health")
            yield f"http://127.0.0.1:{port}/api"
        finally:
            server.terminate()
            server.wait()


def wait_until_there(url: str) -> None:
    for _ in range(120):
        try:
            urllib.request.urlopen(url, timeout=2)
        except OSError:
            time.sleep(1)
        else:
            return
    sys.exit("the Prefect server did not start")


# --- As a schedule starts it


@contextmanager
def worker(clone: Path, url: str) -> Iterator[None]:
    """Of the pool that infra/prefect.yaml names, as `make up` starts it."""
    shutil.copyfile(peers.ROOT / "infra/prefect.yaml", clone / "infra/prefect.yaml")
    named = environment(clone, PREFECT_API_URL=url, PREFECT_HOME=str(clone / ".tandem/prefect"), PYTHONPATH=str(clone))
    peers.finished([sys.executable, "-m", "flows.servers", "deploy"], named, clone)
    command = [sys.executable, "-m", "prefect", "worker", "start", "--pool", "cpu"]
    with (clone / ".tandem/worker.log").open("w") as log:
        started = subprocess.Popen(command, env=named, cwd=clone, stdout=log, stderr=log)
        try:
            yield
        finally:
            started.kill()  # asked to end, it at times only says that it will
            started.wait()


def run_of_deployment(url: str) -> dict[str, float]:
    """Seconds of one run: of the flow itself, and of all from when it was due. The worker looks at its pool every 10 s (and 10 s
    ahead of what a schedule makes due), and starts two processes, one after the other."""
    deployment = api(f"{url}/deployments/name/refresh/refresh")["id"]
    run = api(f"{url}/deployments/{deployment}/create_flow_run", {"parameters": {}})["id"]
    while (found := api(f"{url}/flow_runs/{run}"))["state_type"] not in ("COMPLETED", "FAILED", "CRASHED"):
        time.sleep(0.5)
    assert found["state_name"] == "Unchanged" and found["state"]["message"].startswith("nothing new"), found["state"]
    taken = [state["timestamp"] for state in api(f"{url}/flow_run_states/?flow_run_id={run}") if state["name"] == "Pending"]
    due, taken_up, end = (datetime.fromisoformat(at) for at in (found["expected_start_time"], min(taken), found["end_time"]))
    return {
        "the flow run itself": found["total_run_time"],
        "from the worker's taking it up": (end - taken_up).total_seconds(),
        "from when it was due": (end - due).total_seconds(),
    }


def api(address: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(address, data, {"content-type": "application/json"}), timeout=60) as said:
        return json.loads(said.read())


def show_runs(runs: list[dict[str, float]]) -> None:
    print("\n| `refresh` by a worker | median seconds | least to most |\n|---|---|---|")
    for name in runs[0]:
        seconds = [run[name] for run in runs]
        print(f"| {name} | {statistics.median(seconds):.1f} | {min(seconds):.1f} to {max(seconds):.1f} |")
    print(f"\nload at the end {os.getloadavg()[0]:.1f}")
