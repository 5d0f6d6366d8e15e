"""`tandem serve` as a person starts it: real models, a real swap, a signal at the end."""

import http.client
import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
from looking import World, entries

from flows.cli import run
from flows.registry import client
from flows.settings import read_settings

Copy = Callable[[Path], Path]
QUESTION = "How many days of holiday do bakers have?"
PATIENCE = 240  # seconds


@dataclass(frozen=True)
class Server:
    process: "subprocess.Popen[str]"
    address: str
    log: Path

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(f"{self.address}{path}", timeout=PATIENCE) as response:
            return json.load(response)

    def ask(self, question: str, **more: str) -> Any:
        body = json.dumps({"question": question, **more}).encode()
        request = urllib.request.Request(f"{self.address}/ask", body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=PATIENCE) as response:
            return json.load(response)


@contextmanager
def serving(clone: Path, *words: str) -> Iterator[Server]:
    log = clone / "serve.log"
    command = [sys.executable, "-m", "flows.cli", "serve", "--port", "0", "--json", *words]
    with log.open("w") as errors:
        process = subprocess.Popen(
            command, cwd=clone, env=tiny.outside_environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
            text=True,
        )  # fmt: skip
    try:
        address = until(lambda: re.search(r"at (http://\S+);", log.read_text()) or process.poll(), log)
        assert process.poll() is None, log.read_text()
        yield Server(process, address[1], log)
    finally:
        process.kill()
        process.wait()


def until(what: Callable[[], Any], log: Path) -> Any:
    deadline = time.monotonic() + PATIENCE
    while not (found := what()):
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.1)
    return found


def test_the_live_release_answers_over_http_until_another_is_live_and_a_signal_ends_it_gently(world: World, copy: Copy) -> None:
    clone = copy(world.second)
    with serving(clone) as server:
        first = server.ask(QUESTION)
        assert (first["number"], first["release"]) == (2, entries()[1].release)
        assert "31 days" in first["passages"][0]["passage"] + first["passages"][-1]["passage"]
        assert server.ask(QUESTION, arm="prompt")["passages"] == []
        health = server.get("/health")
        assert (health["status"], health["wrong"], health["release"]["number"]) == ("ok", [], 2)
        assert health["adapter"]["since"] == entries()[0].at and health["index"]["since"] == entries()[1].at
        why = tiny.tandem(clone, "why", first["id"], "--json")
        assert json.loads(why.stdout)["answer"] == first["answer"], why.stderr

        back = tiny.tandem(clone, "rollback", "--reason", "the holidays of day two were wrong")
        assert back.returncode == 0, back.stderr
        until(lambda: server.get("/health")["release"]["number"] == 1, server.log)
        then = server.ask(QUESTION)
        assert (then["number"], then["release"]) == (1, entries()[0].release)
        assert "29 days" in then["passages"][0]["passage"]
        ends_gently(server)


def ends_gently(server: Server) -> None:
    """What has begun is answered, then the process ends with 0 and its one result on stdout."""
    place = server.address.removeprefix("http://")
    connections = [http.client.HTTPConnection(place, timeout=PATIENCE) for _ in range(4)]
    for connection in connections:  # let in before the signal comes
        connection.request("GET", "/health")
        connection.getresponse().read()
    for connection in connections:
        body = json.dumps({"question": QUESTION, "arm": "rag+lora"})
        connection.request("POST", "/ask", body, {"Content-Type": "application/json"})
    first = json.load(connections[0].getresponse())
    server.process.send_signal(signal.SIGTERM)
    others = [json.load(connection.getresponse()) for connection in connections[1:]]
    assert [each["number"] for each in (first, *others)] == [1] * 4
    stdout, _ = server.process.communicate(timeout=PATIENCE)
    assert server.process.returncode == 0, server.log.read_text()
    assert json.loads(stdout)["outcome"] == "stopped"


def test_a_server_does_not_start_where_the_alias_is_gone_and_says_what_mends_it(
    world: World, copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    copy(world.second)
    client(read_settings().tracking_uri).delete_registered_model_alias("assistant", "champion")
    assert run(["serve", "--port", "0", "--json"]) == 1
    said = json.loads(capsys.readouterr().out)["error"]
    assert "the alias champion is gone; release 2 is live. Put it back: tandem doctor --mend" in said
    assert run(["serve", "--host", "0.0.0.0", "--json"]) == 2
    assert "set TANDEM_TOKEN" in json.loads(capsys.readouterr().out)["error"]
