"""The other columns of the matrix: an error, and a stop, at every failpoint. A target of their own: make test-faults."""

import os
import re
import signal
import time
from pathlib import Path

import psutil
import pytest
import standins
from dying import PATIENCE, returncode_of
from fault_cases import FAILPOINTS, RUNS, SAID, aftermath, copy_world, fail_at, make_world, run_is_whole, run_of, started

from tasks.errors import InputError

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Path:
    return make_world(tmp_path_factory.mktemp("faults"), mlflow_database)


@pytest.mark.parametrize("name", FAILPOINTS)
def test_after_an_error_a_whole_release_answers_and_the_next_run_finishes(world: Path, tmp_path: Path, name: str) -> None:
    clone = copy_world(world, tmp_path)
    assert returncode_of(fail_at, str(clone), name, f"{name}:raise") == 1
    aftermath(clone, name)


@pytest.mark.parametrize("name", FAILPOINTS)
def test_beside_a_stopped_run_others_are_told_who_holds_the_lock_and_it_finishes_when_it_goes_on(
    world: Path, tmp_path: Path, name: str
) -> None:
    clone = copy_world(world, tmp_path)
    child = started(clone, name, "stop")
    try:
        wait_until_stopped(child.pid)
        done = returncode_of(compete, str(clone), name, child.pid)
        assert done == 0, (tmp_path / SAID).read_text()
    finally:
        os.kill(child.pid, signal.SIGCONT)
    child.join(PATIENCE)
    assert child.exitcode == 0
    aftermath(clone, name)


def wait_until_stopped(pid: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while psutil.Process(pid).status() != psutil.STATUS_STOPPED:
        assert time.monotonic() < deadline and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE, (
            "nothing passed it: see run_of"
        )
        time.sleep(0.02)


def compete(clone: str, name: str, holder: int) -> None:
    """In a process of its own, as a second person would: asking works, running is refused with the name of the holder."""
    try:
        os.chdir(clone)
        settings = standins.enter(Path(clone))
        if run_is_whole(settings, run_of(name)):
            standins.check_whole(settings)
        with pytest.raises(
            InputError, match=rf"another [a-z]+ is running here \(pid {holder} on .*, since .*\); wait for it or stop it"
        ):
            RUNS[run_of(name)]()
    except BaseException as error:
        Path(clone).with_name(SAID).write_text(re.sub(r"\x1b\[[0-9;]*m", "", repr(error)))
        raise
