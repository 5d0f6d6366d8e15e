"""What every flow that changes something does first and last: one at a time, mend what a crash left, one MLflow run."""

import os
import re
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

from flows import corpus, promotion, takeout, tracking
from flows.checks import check_params
from flows.crashed import mark_crashed
from flows.guard import born, end
from flows.handover import check_trainer
from flows.lock import exclusive
from flows.settings import Settings, prepare, read_settings
from tasks.failpoints import failpoint
from tasks.records import read_json, write_json

# A typo must not keep a person from going back; `train` is sent its params
READ_NO_PARAMS = ("rollback", "maintain", "train", "erase")
TRAIN = ("release", "retrain")
PREFECT_SERVER = "prefect.server.api.server:create_app"  # stands in the command line of a flow's own server


@dataclass(frozen=True)
class Session:
    """Handed to every step: the stores, and the MLflow run of this flow run."""

    settings: Settings
    run_id: str


@contextmanager
def session(flow: str) -> Iterator[Session]:
    settings = read_settings()
    prepare(settings)
    if flow not in READ_NO_PARAMS:
        check_params(settings.root / "params")
    if flow in TRAIN:
        check_trainer(settings)
    with exclusive(settings.home / "lock", flow, settings.lock_wait_seconds, say):
        failpoint("session.before-mend")
        mend(settings)
        failpoint("session.after-mend")
        note_server(settings)
        with tracking.flow_run(settings, flow, {"who": settings.who, "mlflow.user": settings.who}) as run_id:
            yield Session(settings, run_id)


def mend(settings: Settings) -> None:
    """The lock is ours, so whatever looks half done was left by a process that died."""
    if end_noted(running_file(settings)):
        say("a stage of a run that died was still at work; it was stopped")
    if not owner_lives(server_file(settings)) and end_noted(server_file(settings)):
        say("the Prefect server of a run that died was still there; it was stopped")
    clear_scratch(settings.home / "scratch")
    if corpus.mend(settings, lambda pid: note_running(settings, pid)):
        say("an ingest that died half-way was put right")
    takeout.mend(settings, lambda pid: note_running(settings, pid))
    for run_id in tracking.end_dead_runs(settings):
        say(f"run {run_id} was left by a process that died; marked KILLED")
        mark_crashed(tracking.prefect_run(settings, run_id), say)
    done = promotion.follow_ledger(settings)
    if done:
        say(f"finished an interrupted promotion: {done}")


def clear_scratch(folder: Path) -> None:
    """What a champion answered to newer questions was dear and is read again; everything else was of one run."""
    for path in folder.glob("*"):
        if not re.fullmatch("champion-[0-9a-f]{12}-[0-9a-f]{12}", path.name):
            shutil.rmtree(path, ignore_errors=True)


# --- Processes that outlive a kill -9 of this one: noted, so that the next session finds them


def running_file(settings: Settings) -> Path:
    return settings.home / "running.json"


def server_file(settings: Settings) -> Path:
    return settings.home / "prefect-server.json"


def note_running(settings: Settings, process: int) -> None:
    """DVC runs in a group of its own."""
    note(running_file(settings), process)


def note_server(settings: Settings) -> None:
    """Without PREFECT_API_URL a flow starts a server for itself, which only a regular end of ours takes along. Of several the one
    that was started last: an embedding program may hold more, of flows of another clone."""
    servers = [child for child in psutil.Process().children() if is_prefect_server(child)]
    if servers:
        note(server_file(settings), max(servers, key=lambda server: server.create_time()).pid)


def is_prefect_server(process: psutil.Process) -> bool:
    try:
        return PREFECT_SERVER in process.cmdline()
    except psutil.Error:
        return False


def note(path: Path, process: int) -> None:
    owner = {"owner": os.getpid(), "owner_started": born(os.getpid())}
    write_json(path, {"pid": process, "started": born(process)} | owner)


def owner_lives(path: Path) -> bool:
    """Whether whoever noted it still is there: this very process, which runs one flow after another with the same server, or that
    of the clone which this one is a copy of."""
    left = read_json(path) if path.exists() else {}
    return bool(left) and born(left["owner"]) == left["owner_started"]


def end_noted(path: Path) -> bool:
    """End the process that is noted there, and all that it started; whether it was still at work."""
    if not path.exists():
        return False
    left = read_json(path)
    there = bool(left["started"]) and born(left["pid"]) == left["started"]
    if there:
        end(left["pid"], seconds=0)
    path.unlink()
    return there


def say(message: str) -> None:
    """To the terminal (stderr: stdout is for results) and, inside a flow run, to the Prefect UI."""
    if "PREFECT__FLOW_RUN_ID" not in os.environ:  # under a worker the log below is what it prints
        print(message, file=sys.stderr, flush=True)
    if "prefect" in sys.modules:
        log(message)


def log(message: str) -> None:
    from prefect.exceptions import MissingContextError
    from prefect.logging import get_run_logger

    try:
        get_run_logger().info(message)
    except MissingContextError:
        return
