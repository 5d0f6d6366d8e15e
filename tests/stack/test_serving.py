"""What MLflow's users do with a release: look it up, load it, serve it."""

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import tiny
from running import PATIENCE, Servers, clone_environment, free_port, run_tandem, wait_for

from flows.servers import answers

QUESTION = "How many days of holiday do bakers have?"
LOAD = f"""
import json, mlflow
print(json.dumps(mlflow.pyfunc.load_model("models:/assistant@champion").predict([{QUESTION!r}])))
"""


def test_the_registry_says_what_a_release_is(servers: Servers) -> None:
    model = ask(f"{servers.mlflow}/api/2.0/mlflow/registered-models/get?name=assistant")["registered_model"]
    champion = {each["alias"]: each["version"] for each in model["aliases"]}["champion"]
    address = f"{servers.mlflow}/api/2.0/mlflow/model-versions/get?name=assistant&version={champion}"
    version = ask(address)["model_version"]
    tags = {each["key"]: each["value"] for each in version["tags"]}

    assert tags.keys() >= {"release", "number", "arm", "corpus", "index", "base", "embedder", "adapter", "primary", "ledger"}
    assert tags["corpus"].startswith("10 documents, ")
    assert tags["release"][:12] in version["description"]


def test_the_server_has_no_assistant_that_runs_commands(servers: Servers) -> None:
    with pytest.raises(urllib.error.HTTPError, match="404"):
        ask(f"{servers.mlflow}/ajax-api/3.0/mlflow/assistant/config")


def test_a_release_is_loaded_by_its_alias(released: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LOAD], cwd=released, env=tracking(released), capture_output=True, text=True, check=False
    )  # fmt: skip

    assert done.returncode == 0, done.stderr
    check_answer(json.loads(done.stdout.splitlines()[-1]))


def test_a_release_is_served_by_its_alias(released: Path, tmp_path: Path) -> None:
    command = ["models", "serve", "-m", "models:/assistant@champion", "--env-manager", "local"]
    with serving(command, released, tmp_path, "/ping") as address:
        answer = ask(f"{address}/invocations", {"inputs": [QUESTION]})

    check_answer(answer["predictions"])


def test_a_release_is_registered_with_a_shared_tracking_server(released: Path, tmp_path: Path) -> None:
    """Over HTTP MLflow checks more than over a database of one's own."""
    clone = tiny.copy_clone(released, tmp_path / "clone")
    shutil.rmtree(clone / ".tandem/ledger")
    store = ["--backend-store-uri", f"sqlite:///{tmp_path / 'shared.db'}", "--artifacts-destination", str(tmp_path / "artifacts")]
    with serving(["server", *store, "--workers", "1"], released, tmp_path, "/health") as address:
        run_tandem(clone, "release", MLFLOW_TRACKING_URI=address)
        found = ask(f"{address}/api/2.0/mlflow/registered-models/alias?name=assistant&alias=champion")

    assert found["model_version"]["version"] == "1"


@contextmanager
def serving(words: list[str], clone: Path, folder: Path, health: str) -> Iterator[str]:
    """`mlflow ...` on a free port; yields its address."""
    port = free_port()
    command = [sys.executable, "-m", "mlflow", *words, "--port", port]
    said = folder / "serving.log"
    with said.open("wb") as log:
        process = subprocess.Popen(
            command, cwd=clone, env=tracking(clone), stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_for(lambda: process.poll() is not None or answers(f"{address}{health}"), "the server", said.read_text)
        assert process.poll() is None, said.read_text()
        yield address
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(PATIENCE)


def check_answer(answers: list[dict[str, Any]]) -> None:
    (answer,) = answers
    assert answer.keys() >= {"answer", "sources", "arm", "release"}
    assert len(answer["release"]) == 64
    assert answer["sources"][0].keys() >= {"page", "passage", "score"}


def tracking(clone: Path) -> dict[str, str]:
    return clone_environment(clone, MLFLOW_TRACKING_URI=f"sqlite:///{clone / '.tandem/mlflow.db'}", TANDEM_ROOT=str(clone))


def ask(address: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {"content-type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.loads(response.read())
