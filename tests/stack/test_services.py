"""`make up`: what it refuses, and that nothing of it stays behind."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from running import Servers, clone_environment, free_port, make_up, processes_in, wait_for


def up(clone: Path, **variables: str) -> "subprocess.CompletedProcess[str]":
    environment = clone_environment(clone, **({"MLFLOW_PORT": free_port(), "PREFECT_PORT": free_port()} | variables))
    command = [sys.executable, "-m", "flows.servers"]
    return subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, timeout=120, check=False)


@pytest.mark.parametrize("variable", ["MLFLOW_HOST", "PREFECT_SERVER_API_HOST"])
def test_it_listens_for_this_machine_only(released: Path, variable: str) -> None:
    done = up(released, **{variable: "0.0.0.0"})

    assert done.returncode == 2
    assert f"{variable}=0.0.0.0: these servers ask nobody for a password" in done.stderr


def test_a_port_that_is_taken_is_named_with_a_way_out(released: Path) -> None:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = up(released, MLFLOW_PORT=str(port))

    assert done.returncode == 2
    assert f"port {port} on 127.0.0.1 cannot be had (Address already in use)" in done.stderr
    assert f"make up MLFLOW_PORT={port + 1}" in done.stderr


def test_a_second_one_over_the_same_state_is_refused(servers: Servers) -> None:
    done = up(servers.clone)

    assert done.returncode == 2
    assert "another `make up` is running here (pid " in done.stderr


def test_nothing_is_left_of_it_when_it_is_killed(released: Path, tmp_path: Path) -> None:
    """Not even by kill -9, which leaves it no time to clean up. Its end by SIGTERM is part of every other test."""
    clone = tiny.copy_clone(released, tmp_path / "clone")
    with make_up(clone) as environment:
        assert len(processes_in(clone)) >= 4
        os.kill(int(environment["UP_PID"]), signal.SIGKILL)
        wait_for(lambda: not processes_in(clone), "all processes to end", lambda: "\n".join(processes_in(clone)))
