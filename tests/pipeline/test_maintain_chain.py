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
    assert run(["maintain", "--keep", "1", "--days", "0", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["kept"], found["dropped"], found["findings"]) == ([2, 1], [], [])  # the live one, and the only one before it
    assert not (clone / ".tandem/scratch/ingest-abc").exists()
    assert len(entries()) == 2 and flow_runs("maintain")[0].data.tags["outcome"] == "maintained"
    for name in ("1", "2"):
        assert run(["ask", QUESTION, "--release", name]) == 0
    assert run(["doctor"]) == 0
    assert run(["rollback", "--reason", "the holidays of day two were wrong"]) == 0
    assert run(["maintain", "--keep", "0"]) == 2
