import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from workspace import settings_of, write_workspace

from flows import tracking
from flows.session import end_left_over_stage, mend, note_running, restore_raw, running_file, session, start_time
from flows.settings import Settings, prepare
from tasks.errors import InputError


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    root = tmp_path / "clone"
    root.mkdir()
    write_workspace(root)
    with tiny.inside(root):
        made = settings_of(root)
        prepare(made)
        yield made


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_a_stage_that_outlived_its_flow_is_stopped(settings: Settings, sleeper: "subprocess.Popen[bytes]") -> None:
    note_running(settings, sleeper.pid)
    end_left_over_stage(settings)
    assert sleeper.wait(timeout=30) == -9
    assert not running_file(settings).exists()


def test_a_process_that_only_has_the_same_number_is_left_alone(settings: Settings, sleeper: "subprocess.Popen[bytes]") -> None:
    running_file(settings).write_text(json.dumps({"pid": sleeper.pid, "started": "1"}))
    end_left_over_stage(settings)
    assert sleeper.poll() is None
    assert not running_file(settings).exists()


def test_a_process_that_is_gone_is_no_fault(settings: Settings) -> None:
    running_file(settings).write_text(json.dumps({"pid": 2**22 + 1, "started": ""}))
    end_left_over_stage(settings)
    assert start_time(2**22 + 1) == ""
    assert start_time(os.getpid()).isdigit()


def test_an_ingest_that_died_between_its_renames_is_undone(tmp_path: Path) -> None:
    (tmp_path / ".raw.old").mkdir()
    (tmp_path / ".raw.old/a.md").write_text("old")
    restore_raw(tmp_path)
    assert (tmp_path / "raw/a.md").read_text() == "old"
    (tmp_path / ".raw.old").mkdir()
    restore_raw(tmp_path)  # the new one is in place: the old is not brought back
    assert (tmp_path / "raw/a.md").exists()


def test_runs_of_a_dead_process_end_as_killed_and_those_of_living_ones_go_on(settings: Settings) -> None:
    mlflow = tracking.client(settings.tracking_uri)
    with (
        tracking.flow_run(settings, "release", {}) as living,
        tracking.flow_run(settings, "release", {}) as dead,
        tracking.stage_run(settings, dead, "index") as stage,
    ):
        mlflow.set_tag(dead, tracking.PID, str(2**22 + 1))
        mend(settings)
        assert mlflow.get_run(dead).info.status == mlflow.get_run(stage).info.status == "KILLED"
        assert mlflow.get_run(living).info.status == "RUNNING"


def test_a_session_holds_the_lock_and_one_mlflow_run_and_ends_both(settings: Settings) -> None:
    mlflow = tracking.client(settings.tracking_uri)
    with session("release") as opened:
        assert mlflow.get_run(opened.run_id).info.status == "RUNNING"
        with pytest.raises(InputError, match="another release is running here"), session("refresh"):
            pass
    assert mlflow.get_run(opened.run_id).info.status == "FINISHED"
    with pytest.raises(KeyError), session("refresh") as failed:
        raise KeyError("x")
    found = mlflow.get_run(failed.run_id)
    assert (found.info.status, found.data.tags["error"]) == ("FAILED", "'x'")
