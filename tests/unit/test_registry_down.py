"""MLflow's server that dies in the middle of a promotion, loses its replies or fails, and its database that somebody else
holds: a clear stop, nothing twice, nothing half-done that the next flow does not finish. Slow: it waits as MLflow does."""

import http.client
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import tiny
from dying import CHILDREN, PATIENCE
from test_promoters import Place, place, promote, until_stopped

from flows import faults, ledger, promotion, registry, tracking
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


CREATES = ("runs/create", "model-versions/create", "registered-models/create", "model-versions/delete", "registered-models/alias")


class Between(BaseHTTPRequestHandler):
    """Hands every request on to the server. Of each kind in CREATES the first reply is lost, the request done; the first request
    for anything else, and every fifth, meets an overloaded server."""

    protocol_version = "HTTP/1.1"
    upstream, asked = 0, Counter[str]()

    def handle_any(self) -> None:
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        kind = next((kind for kind in CREATES if kind in self.path), "")
        self.asked[kind] += 1
        if not kind and self.asked[kind] % 5 == 1:
            return self.answer(503, [("content-length", "0")], b"")
        with closing(http.client.HTTPConnection("127.0.0.1", self.upstream)) as server:
            server.request(self.command, self.path, body, {key: value for key, value in self.headers.items() if key != "Host"})
            reply = server.getresponse()
            content = reply.read()
        if kind and self.asked[kind] == 1:
            self.close_connection = True
            return self.connection.shutdown(socket.SHUT_RDWR)
        kept = [(key, value) for key, value in reply.getheaders() if key.lower() not in ("transfer-encoding", "content-length")]
        return self.answer(reply.status, [*kept, ("content-length", str(len(content)))], content)

    def answer(self, status: int, headers: list[tuple[str, str]], content: bytes) -> None:
        self.send_response_only(status)
        for key, value in headers:
            self.send_header(key, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *arguments: object) -> None:
        """Nothing."""

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any


@contextmanager
def between(upstream: int) -> Iterator[int]:
    Between.upstream = upstream
    with ThreadingHTTPServer(("127.0.0.1", 0), Between) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")  # of MLflow's own models, at its import
def test_replies_that_are_lost_and_requests_that_fail_make_nothing_twice(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """F29, and F33 for a server that is overloaded. MLflow's client asks again: what was done is then done twice."""
    settings, port = place.settings, free_port()
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR", "0")
    judgement = place.judgements[0]
    tracking.client(settings.tracking_uri).delete_registered_model("assistant")
    with mlflow_server(settings.home / "mlflow.db", port), between(port) as proxy, tiny.inside(place.root):
        remote = replace(settings, tracking_uri=f"http://127.0.0.1:{proxy}", artifacts="")
        with tracking.flow_run(remote, "release", {}) as run_id:
            version = promotion.register(remote, judgement, run_id)
            promotion.commit(remote, replace(judgement, entries=[]), version, {}, {})
            assert promotion.follow_ledger(remote) == "alias champion moved to version 1"
    assert set(CREATES) <= {kind for kind, times in Between.asked.items() if times > 1}
    assert [(each.number, each.release) for each in registry.versions(settings)] == [(1, judgement.release_id)]
    assert registry.champion_version(settings) == 1
    runs = tracking.client(settings.tracking_uri).search_runs([tracking.experiment_id(settings)])
    assert sorted(run.info.status for run in runs) == ["FINISHED", "RUNNING"]  # the other was made for a reply that was lost
    monkeypatch.setattr(tracking, "alive", lambda *process: False)
    tracking.end_dead_runs(settings)  # as the next flow does, once this process is gone
    runs = tracking.client(settings.tracking_uri).search_runs([tracking.experiment_id(settings)])
    assert sorted(run.info.status for run in runs) == ["FINISHED", "KILLED"]
