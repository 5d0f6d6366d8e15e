"""MLflow's server that dies in the middle of a promotion, and its database that somebody else holds: a clear stop, nothing
half-done that the next flow does not finish. Slow: MLflow's own patience is waited for."""

import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from dying import CHILDREN, PATIENCE
from test_promoters import Place, place, promote, until_stopped

from flows import faults, ledger, promotion, registry
from flows.settings import Settings
from tasks.failpoints import VARIABLE

__all__ = ["place"]
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]
FEW = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2", "MLFLOW_HTTP_REQUEST_TIMEOUT": "5"}


@contextmanager
def mlflow_server(database: Path, port: int) -> Iterator["subprocess.Popen[bytes]"]:
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    process = subprocess.Popen(
        [*command, "--backend-store-uri", f"sqlite:///{database}"], cwd=database.parent, stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        env=os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
    )  # fmt: skip
    try:
        wait_for(port)
        yield process
    finally:
        stop(process)


def stop(process: "subprocess.Popen[bytes]") -> None:
    """kill -9 of the server and its workers."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def wait_for(port: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5):
                return
        except OSError:
            assert time.monotonic() < deadline
            time.sleep(0.3)


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def promoting(settings: Settings, judgement: Any, told: Any) -> None:
    """Stops between ledger entry and alias; what it says afterwards is what a person would read."""
    os.environ.update(FEW | {VARIABLE: "promotion.at-alias:stop", "TANDEM_ROOT": str(settings.root)})
    promotion.commit(settings, replace(judgement, entries=[]), 1, {}, {})
    try:
        promotion.follow_ledger(settings)
        told.send("it went on as if nothing was")
    except Exception as error:
        told.send(faults.describe(error))


def test_a_server_that_dies_before_the_alias_moves_leaves_the_release_live_and_the_next_flow_finishes(place: Place) -> None:
    """F33."""
    database, port = place.settings.home / "mlflow.db", free_port()
    remote = replace(place.settings, tracking_uri=f"http://127.0.0.1:{port}")
    tells, told = CHILDREN.Pipe(duplex=False)
    child = CHILDREN.Process(target=promoting, args=(remote, place.judgements[0], told))
    try:
        with mlflow_server(database, port):
            child.start()
            until_stopped(child.pid)
        os.kill(child.pid, signal.SIGCONT)
        assert tells.poll(PATIENCE)
        said = tells.recv()
    finally:
        child.kill()
    assert "a server cannot be reached" in said and "run the same command again" in said, said
    entries = ledger.read(remote.ledger)
    assert [entry.release for entry in entries] == [place.judgements[0].release_id]
    assert registry.champion_version(place.settings) is None
    with mlflow_server(database, port):
        assert promotion.follow_ledger(remote) == "alias champion moved to version 1"
        assert promotion.follow_ledger(remote) is None
    assert registry.champion_version(place.settings) == 1


@contextmanager
def held(database: Path, seconds: float) -> Iterator[None]:
    """BEGIN EXCLUSIVE by somebody else, for so long."""
    begun = threading.Event()

    def hold() -> None:
        with closing(sqlite3.connect(database, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            begun.set()
            time.sleep(seconds)

    thread = threading.Thread(target=hold)
    thread.start()
    try:
        assert begun.wait(PATIENCE)
        yield
    finally:
        thread.join()


def test_a_database_that_is_busy_is_waited_for_then_named_and_nothing_is_lost(place: Place) -> None:
    """F34. MLflow waits for 20 s."""
    settings, database = place.settings, place.settings.home / "mlflow.db"
    with tiny.inside(place.root):
        with held(database, 5):
            promote(settings, place.judgements[0], [], 1)
        assert registry.champion_version(settings) == 1
        with held(database, 60), pytest.raises(Exception, match="locked") as failed:
            promote(settings, place.judgements[1], ledger.read(settings.ledger), 2)
        said = faults.describe(failed.value)
        assert "a database is in use" in said and "another process writes to it" in said, said
        assert [entry.version for entry in ledger.read(settings.ledger)] == [1, 2]
        assert registry.champion_version(settings) == 1
        assert promotion.follow_ledger(settings) == "alias champion moved to version 2"
    with closing(sqlite3.connect(database)) as whole:
        assert whole.execute("PRAGMA integrity_check").fetchone() == ("ok",)
