"""`tandem maintain` as a person runs it: the flow, its ledger entry, its MLflow run, and answers afterwards."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from looking import World, entries, flow_runs

from flows.cli import run

QUESTION = "How many days of holiday do bakers have?"


def test_after_maintenance_both_releases_answer_and_can_be_rolled_back_to(
    world: World, copy: Callable[[Path], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    clone = copy(world.second)
    (clone / ".tandem/scratch/ingest-abc").mkdir(parents=True)
    before = answers(capsys)
    assert run(["maintain", "--keep", "1", "--days", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kept"], found["dropped"], found["findings"]) == ([2, 1], [], [])  # the live one, and the only one before it
    assert not (clone / ".tandem/scratch/ingest-abc").exists()
    assert len(entries()) == 2 and flow_runs("maintain")[0].data.tags["outcome"] == "maintained"
    assert answers(capsys) == before
    assert run(["doctor"]) == 0
    assert run(["rollback", "--reason", "the holidays of day two were wrong"]) == 0
    assert answers(capsys) == before
    assert run(["maintain", "--keep", "0"]) == 2


def answers(capsys: pytest.CaptureFixture[str]) -> list[str]:
    """Of both releases, each of which says what its documents said then, and names itself; `tandem why` names it too."""
    found = []
    for number, stated in ((1, "29 days"), (2, "31 days")):
        capsys.readouterr()
        assert run(["ask", QUESTION, "--release", str(number), "--json"]) == 0
        given = json.loads(capsys.readouterr().out)
        assert (given["number"], given["release"]) == (number, entries()[number - 1].release)
        assert stated in given["sources"][0]["passage"]
        assert run(["why", given["id"]]) == 0
        assert f"release {number} ({given['release'][:12]})" in capsys.readouterr().out
        found.append(given["answer"])
    return found
