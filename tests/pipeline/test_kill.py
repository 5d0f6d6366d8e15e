"""kill -9 in the middle of a promotion: the release before or the one after is live, never a mix, and the next run finishes.

At every failpoint, without a model: tests/unit/test_kill_matrix.py."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from looking import World, entries, flow_runs, settings

from flows import registry
from flows.refresh import refresh

PROMOTE = """
from flows import ledger, steps
from flows.candidate import workspace_candidate
from flows.session import session

with session("refresh") as opened:
    candidate = workspace_candidate(opened.settings)
    entries = ledger.read(opened.settings.ledger)
    evaluation = steps.measure_champion.fn(opened, entries, ledger.live(entries), candidate)
    judgement = steps.judge.fn(opened, candidate, entries, evaluation)
    assert judgement.verdict.accepted, judgement.verdict.reasons
    evidence = steps.seal.fn(opened, candidate, judgement)
    version = steps.register.fn(opened, judgement)
    steps.commit.fn(opened, judgement, version, evidence)
"""


@pytest.mark.parametrize(
    ("failpoint", "live"),
    [
        pytest.param("promotion.before-commit", 1, marks=pytest.mark.faults),
        ("promotion.after-commit", 2),
        pytest.param("promotion.before-alias", 2, marks=pytest.mark.faults),
    ],
)
def test_after_kill_9_one_whole_release_is_live_and_the_next_run_finishes(
    world: World, copy: Callable[[Path], Path], failpoint: str, live: int
) -> None:
    clone = copy(world.ready)
    command = [sys.executable, "-c", PROMOTE]
    environment = tiny.outside_environment(TANDEM_FAILPOINT=f"{failpoint}:kill")
    done = subprocess.run(command, cwd=clone, env=environment, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == -signal.SIGKILL, done.stdout + done.stderr
    assert entries()[-1].number == live
    assert registry.champion_version(settings()) == 1
    assert flow_runs("refresh")[0].info.status == "RUNNING"

    outcome = refresh()

    assert outcome["outcome"] == ("unchanged" if live == 2 else "promoted")
    assert [entry.number for entry in entries()] == [1, 2]
    assert entries()[-1].release == world.second_outcome["release"]
    assert registry.champion_version(settings()) == entries()[-1].version == 2
    assert sorted(run.info.status for run in flow_runs("refresh")).count("KILLED") == 1
