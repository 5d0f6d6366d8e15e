"""`tandem erase` on two real releases: unanswerable at once on every path, unreadable in the end, whoever dies meanwhile."""

import json
import signal
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest
import tiny
from looking import World, entries, settings

from flows import erase, erasures, evidence, ledger, pending, purge, registry, takeout
from flows.cli import run
from flows.opening import manifest_text, open_release
from tasks.failpoints import declared
from tasks.manifest import load_release
from tasks.records import read_jsonl

Copy = Callable[[Path], Path]
PAGE, QUESTION = "staff/leave", "How many days of holiday do bakers have?"
TEXTS = ("Every baker has", "in the green book beside", "Who is ill calls the night lead", "At Puffin it is 29 days.", QUESTION)
NAMES = [name for module in (erase, evidence, purge, takeout) for name in declared(Path(str(module.__file__)))]
BEFORE = ("erase.before-fallback", "erase.before-entry")


def printed(capsys: pytest.CaptureFixture[str], *words: str, code: int = 0) -> Any:
    capsys.readouterr()
    assert run([*words, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def pages(answer: Any) -> set[str]:
    return {source["page"] for source in answer["sources"]}


def holders(clone: Path) -> list[str]:
    """Every file of the clone's state in which one of the texts or the id stands: looked for by other means than Tandem's own."""
    wanted = [form for text in (*TEXTS, f'"{PAGE}"', f"documents/{PAGE}") for form in (text, json.dumps(text)[1:-1])]
    places = [clone / "data", clone / ".tandem", clone / ".dvc", clone / "dvc.lock"]
    files = [path for place in places for path in ([place] if place.is_file() else sorted(place.rglob("*"))) if path.is_file()]
    assert len(files) > 100
    return [path.relative_to(clone).as_posix() for path in files if any(form.encode() in content(path) for form in wanted)]


def content(path: Path) -> bytes:
    data = path.read_bytes()
    return zlib.decompress(data, 31) if data.startswith(b"\x1f\x8b") else data


def unanswerable(name: str) -> None:
    """By the arm that is served, by retrieval, and by each leg alone."""
    assistant, _ = open_release(settings(), name)
    answer = assistant.ask(QUESTION)
    assert answer.arm == "rag" and PAGE not in pages(answer.to_json()) and "Every baker" not in str(answer.prompt)
    text, near, found = assistant.index.legs("Every baker has 29 days of holiday", 50)
    assert text and near and PAGE not in {passage["document"] for passage in found.values()}


def test_a_page_is_gone_from_every_answer_at_once_and_from_every_store_in_the_end(
    world: World, copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = copy(world.second)
    told = printed(capsys, "ask", QUESTION, "--release", "1")
    assert PAGE in pages(told) and len(holders(clone)) > 20
    mlflow.set_tracking_uri(settings().tracking_uri)
    running = mlflow.pyfunc.load_model("models:/assistant@champion")  # a server that nobody starts anew
    assert PAGE in pages(running.predict([QUESTION])[0])

    done = printed(capsys, "erase", PAGE, "--reason", "case 81", "--later")

    assert done["knew"]["index"] == done["knew"]["adapter"] == [1, 2] and done["fell_back"]
    assert PAGE not in pages(running.predict([QUESTION])[0])
    for name in ("1", "2"):
        unanswerable(name)
    assert run(["ask", QUESTION, "--release", "1", "--arm", "lora"]) == 2
    assert run(["why", told["id"]]) == 2
    assert "cannot be gone back to" in printed(capsys, "rollback", "--reason", "x", code=2)["error"]
    assert run(["report", "1"]) == 0 and b"Every baker" not in (clone / ".tandem/reports/release-1.html").read_bytes()
    assert PAGE not in str(read_jsonl(clone / "data/raw/questions.jsonl"))
    assert "was erased on" in printed(capsys, "erase", PAGE, "--reason", "again", code=2)["error"]
    waiting = printed(capsys, "erase", "--verify", code=1)
    assert {"store", "index", "DVC cache", "home"} <= {hit["where"] for hit in waiting["hits"]}

    finished = printed(capsys, "maintain")

    assert finished["erased"]["amended"] == [1, 2] and finished["findings"] == []
    assert holders(clone) == [] and pending.standing(settings()) == []
    amended_and_sound(capsys)
    assert printed(capsys, "rollback", "--reason", "the holidays were wrong")["number"] == 1
    unanswerable("1")
    assert PAGE not in printed(capsys, "diff", "1", "2")["documents"]["changed"]
    assert run(["report", "1"]) == 0


def amended_and_sound(capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(capsys, "erase", "--verify", "--canary", TEXTS[0])["hits"] == []
    assert printed(capsys, "doctor") == {"mended": [], "findings": [], "notes": []}
    actions = [entry.action for entry in entries()]
    assert actions == ["promote", "promote", "erase", "erase", "erase"] and {entry.number for entry in entries()[1:]} == {2}
    for found in (ledger.find(entries(), name) for name in ("1", "2")):
        release = load_release(manifest_text(settings(), found.release))
        assert (release.arm, release.adapter) == ("rag", None)
    assert [version.release for version in registry.versions(settings())] == [ledger.find(entries(), n).release for n in "12"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_an_erasure_that_was_killed_anywhere_has_happened_or_not_and_maintenance_finishes_it(
    world: World, copy: Copy, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    clone = copy(world.second)
    killed = tiny.tandem(clone, "erase", PAGE, "--reason", "case 81", TANDEM_FAILPOINT=f"{name}:kill")
    assert killed.returncode == -signal.SIGKILL, killed.stdout + killed.stderr
    if name in BEFORE:
        assert len(entries()) == 2 and PAGE in pages(printed(capsys, "ask", QUESTION, "--release", "1"))
        assert run(["erase", PAGE, "--reason", "case 81"]) == 0
    else:
        assert erasures.standing(settings(), entries()).covers(PAGE)
        for number in ("1", "2"):
            unanswerable(number)
        assert run(["maintain"]) == 0
    assert holders(clone) == []
    amended_and_sound(capsys)


@pytest.mark.slow
def test_a_page_that_comes_back_is_left_out_until_a_person_takes_it_back(
    world: World, copy: Copy, capsys: pytest.CaptureFixture[str]
) -> None:
    copy(world.second)
    assert run(["erase", PAGE, "--reason", "case 81"]) == 0
    day = world.folder / "day-2"
    again = ["ingest", "--documents", str(day / "documents"), "--questions", str(day / "questions.jsonl")]
    left = printed(capsys, *again)
    assert left["erased"] == [f"{PAGE} is left out: erased on {entries()[2].at[:10]} (ledger entry 3), reason: case 81"]
    assert left["accepted"] == 9
    assert run([*again, "--take-back", PAGE]) == 2  # without a reason
    assert run([*again, "--take-back", "van", "--reason", "x"]) == 2
    back = printed(capsys, *again, "--take-back", PAGE, "--reason", "they agreed")
    assert (back["erased"], back["accepted"]) == ([], 10) and entries()[-1].action == "override"


@pytest.mark.slow
def test_a_second_erasure_amends_what_the_first_one_left(world: World, copy: Copy, capsys: pytest.CaptureFixture[str]) -> None:
    clone = copy(world.second)
    assert run(["erase", PAGE, "--reason", "case 81"]) == 0
    done = printed(capsys, "erase", "staff/pay", "shop/prices", "--reason", "case 82")
    assert done["amended"] == [1, 2] and done["hits"] == [] and not done["fell_back"]  # no adapter is left that could know them
    assert holders(clone) == [] and printed(capsys, "doctor")["findings"] == []
    text = b"night bonus of 3.10 pounds"
    assert not any(text in content(path) for path in (clone / ".tandem").rglob("*") if path.is_file())
    assert run(["report", "1"]) == 0 and run(["ask", QUESTION, "--release", "1"]) == 0


@pytest.mark.slow
def test_what_a_dvc_remote_holds_goes_as_well(
    world: World, copy: Copy, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clone = copy(world.second)
    remote = tmp_path / "remote"
    assert tiny.dvc(clone, "remote", "add", "--default", "storage", str(remote)).returncode == 0
    assert tiny.dvc(clone, "push", "--run-cache").returncode == 0
    assert any(TEXTS[0].encode() in path.read_bytes() for path in remote.rglob("*") if path.is_file())
    done = printed(capsys, "erase", PAGE, "--reason", "case 81")
    assert done["hits"] == [] and done["searched"]["DVC remote storage"][0] > 10
    assert not any(TEXTS[0].encode() in path.read_bytes() for path in remote.rglob("*") if path.is_file())
