import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import tiny
from workspace import settings_of, write_workspace

from flows import corpus, guard, tracking
from flows.corpus import restore_raw
from flows.guard import born
from flows.mending import clear_scratch, mend
from flows.session import (
    end_left_over,
    end_noted,
    note_running,
    note_server,
    running_file,
    server_file,
    session,
)
from flows.settings import Settings, prepare, read_settings
from tasks.errors import InputError
from tasks.records import write_text


@pytest.fixture
def settings(tmp_path: Path, mlflow_database: Path) -> Iterator[Settings]:
    root = tmp_path / "clone"
    root.mkdir()
    write_workspace(root)
    with tiny.inside(root):
        made = settings_of(root)
        prepare(made)
        shutil.copyfile(mlflow_database, made.home / "mlflow.db")
        yield made


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The graph, the code and DVC's settings."""
    for name in ("base", "embedder"):
        (tmp_path / name).mkdir()
    return tiny.make_clone(tmp_path / "whole", tmp_path / "base", tmp_path / "embedder")


@pytest.fixture
def sleeper() -> Iterator["subprocess.Popen[bytes]"]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"], start_new_session=True)
    yield process
    process.kill()
    process.wait()


def test_a_stage_that_outlived_its_flow_is_stopped(settings: Settings, sleeper: "subprocess.Popen[bytes]") -> None:
    note_running(settings, sleeper.pid)
    end_left_over(settings)
    sleeper.wait(timeout=30)  # else it would sleep for minutes. Who reaped it first knows how it ended
    assert not running_file(settings).exists()


def test_a_process_that_only_has_the_same_number_is_left_alone(settings: Settings, sleeper: "subprocess.Popen[bytes]") -> None:
    running_file(settings).write_text(json.dumps({"pid": sleeper.pid, "started": born(os.getpid())}))
    assert not end_noted(running_file(settings))
    assert sleeper.poll() is None
    assert not running_file(settings).exists()


def test_a_process_that_is_gone_is_no_fault(settings: Settings) -> None:
    running_file(settings).write_text(json.dumps({"pid": 2**22 + 1, "started": ""}))
    assert not end_noted(running_file(settings))
    assert born(2**22 + 1) == ""


def test_the_prefect_server_of_a_flow_that_died_is_ended_by_the_next_one(settings: Settings) -> None:
    """uvicorn is started by Prefect as a plain child: only a regular end of the flow takes it along."""
    command = [sys.executable, "-c", "import time; time.sleep(600)", "--factory", "prefect.server.api.server:create_app"]
    of_another_clone = subprocess.Popen(command)
    time.sleep(0.1)  # the clock of process starts ticks in hundredths of a second
    server = subprocess.Popen(command)
    try:
        note_server(settings)
        noted = json.loads(server_file(settings).read_text())
        assert noted["pid"] == server.pid
        end_left_over(settings)
        assert server.poll() is None  # the next flow of the same process goes on with it
        server_file(settings).write_text(json.dumps(noted | {"owner": 2**22 + 1}))
        end_left_over(settings)
        server.wait(timeout=30)  # else it would sleep for minutes. Who reaped it first knows how it ended
        assert not server_file(settings).exists()
        assert of_another_clone.poll() is None
    finally:
        server.kill()
        of_another_clone.kill()


def test_what_dead_runs_measured_aside_is_cleared_and_a_champions_answers_stay(tmp_path: Path) -> None:
    kept = f"champion-{'a' * 12}-{'b' * 12}"
    for name in (kept, "ingest-x1y2", "champion-x1y2", "challenge-abc"):
        (tmp_path / name).mkdir()
    clear_scratch(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == [kept]


def test_a_typo_in_the_last_stages_params_is_found_before_anything_runs(settings: Settings) -> None:
    tiny.change_params(settings.root, "gate.yaml", {"margin": "0.1"})
    tiny.change_params(settings.root, "chunks.yaml", {"max_words": 1})
    with pytest.raises(InputError, match=r"gate\.yaml: margin") as found, session("release"):
        pass
    assert "chunks.yaml: max_words" in str(found.value), "every fault is told at once"
    assert not (settings.home / "lock").exists()


def test_an_ingest_that_died_between_its_renames_is_undone(tmp_path: Path) -> None:
    (tmp_path / ".raw.old").mkdir()
    (tmp_path / ".raw.old/a.md").write_text("old")
    restore_raw(tmp_path)
    assert (tmp_path / "raw/a.md").read_text() == "old"
    (tmp_path / ".raw.old").mkdir()
    restore_raw(tmp_path)  # the new one is in place: the old is not brought back
    assert (tmp_path / "raw/a.md").exists()


DIE = """
import sys
from pathlib import Path
from flows import corpus
from flows.settings import prepare, read_settings
settings = read_settings()
prepare(settings)
corpus.swap_in(settings.root / "data", Path(sys.argv[1]))
corpus.record(settings, lambda pid: None)
"""


def ingest_and_die(clone: Path, text: str, **environment: str) -> int:
    raw = clone / ".tandem/incoming"
    write_text(raw / "documents/page.md", text)
    done = subprocess.run(
        [sys.executable, "-c", DIE, str(raw)], cwd=clone, env=tiny.outside_environment(**environment), check=False
    )
    return done.returncode


@pytest.mark.parametrize("failpoint", ["between-renames", "before-add", "after-add"])
def test_an_ingest_that_was_killed_is_undone_or_recorded_by_the_next_flow(clone: Path, failpoint: str) -> None:
    """A corpus that DVC does not know would be trained on and could never be brought back."""
    assert ingest_and_die(clone, "old") == 0
    old = (clone / "data/raw.dvc").read_text()
    assert ingest_and_die(clone, "new", TANDEM_FAILPOINT=f"corpus.{failpoint}:kill") == -9
    with tiny.inside(clone):
        settings = settings_of(clone)
        prepare(settings)
        corpus.mend(settings, lambda pid: None)
        assert not corpus.mend(settings, lambda pid: None), "the second time there is nothing left to do"
    undone = failpoint == "between-renames"
    assert (clone / "data/raw/documents/page.md").read_text() == ("old" if undone else "new")
    assert ((clone / "data/raw.dvc").read_text() == old) is undone
    assert tiny.dvc(clone, "status", "data/raw.dvc").stdout.strip() == "Data and pipelines are up to date."
    assert not list((clone / "data").glob(".raw.*"))


def test_a_dvc_add_that_was_killed_while_it_wrote_is_done_again(clone: Path) -> None:
    assert ingest_and_die(clone, "new", TANDEM_FAILPOINT="corpus.before-add:kill") == -9
    (clone / "data/raw.dvc").touch()
    with tiny.inside(clone):
        assert corpus.mend(settings_of(clone), lambda pid: None)
    assert "md5" in (clone / "data/raw.dvc").read_text()


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


def test_a_run_whose_process_left_its_number_to_another_is_ended_too(settings: Settings) -> None:
    """F46. In a container every start has the numbers of the one before."""
    mlflow = tracking.client(settings.tracking_uri)
    with tracking.flow_run(settings, "release", {}) as living, tracking.flow_run(settings, "release", {}) as dead:
        mlflow.set_tag(dead, tracking.BORN, "another boot 1")
        assert tracking.end_dead_runs(settings) == [dead]
        assert mlflow.get_run(living).info.status == "RUNNING"
        mlflow.delete_tag(living, tracking.BORN)  # as a run of an older Tandem
        assert tracking.dead_runs(settings) == []


@pytest.mark.parametrize("boot", [guard.BOOT, Path("/nowhere")])  # Linux, and what has no /proc
def test_a_process_keeps_its_birth_and_no_two_share_one(
    monkeypatch: pytest.MonkeyPatch, sleeper: "subprocess.Popen[bytes]", boot: Path
) -> None:
    monkeypatch.setattr(guard, "BOOT", boot)
    assert born(sleeper.pid) == born(sleeper.pid) != born(os.getpid()) != ""


def test_a_change_of_the_clock_makes_nobody_another_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """F40. The time at which a process started is counted back from now, and so moves with the clock."""
    before = born(os.getpid())
    monkeypatch.setattr(psutil._pslinux, "boot_time", lambda: time.time() - 86_400)
    assert born(os.getpid()) == before


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


@pytest.mark.parametrize(
    ("variables", "seconds"),
    [({}, 0), ({"PREFECT__FLOW_RUN_ID": "x"}, 900), ({"PREFECT__FLOW_RUN_ID": "x", "TANDEM_LOCK_WAIT": "5"}, 5)],
)
def test_a_run_that_a_worker_started_waits_for_another_one(settings: Settings, variables: dict[str, str], seconds: float) -> None:
    assert read_settings(variables).lock_wait_seconds == seconds


def test_a_wait_that_is_no_number_is_named(settings: Settings) -> None:
    with pytest.raises(InputError, match=r"TANDEM_LOCK_WAIT=ten: write whole seconds"):
        read_settings({"TANDEM_LOCK_WAIT": "ten"})
