"""What every flow that changes something does first and last: one at a time, mend what a crash left, one MLflow run.

MLflow and what mends are imported where they are needed: a flow that finds nothing to do (flows/standstill.py) needs neither.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from flows.checks import check_approval, check_params
from flows.children import ignored
from flows.guard import born, end
from flows.lock import exclusive
from flows.settings import Settings, prepare, read_settings
from tasks.failpoints import failpoint
from tasks.records import read_json, write_json

# A typo must not keep a person from going back; `train` is sent its params
READ_NO_PARAMS = ("rollback", "maintain", "train", "erase")
TRAIN = ("release", "retrain")
SHIP = ("release", "refresh", "retrain")
PREFECT_SERVER = "prefect.server.api.server:create_app"  # stands in the command line of a flow's own server


@dataclass(frozen=True)
class Session:
    """Handed to every step: the stores, and the MLflow run of this flow run. `look` is shown DVC's repository before DVC is asked
    what is stale."""

    settings: Settings
    run_id: str
    look: Callable[[Any], None] = ignored


@contextmanager
def session(flow: str) -> Iterator[Session]:
    with alone(flow) as settings, recorded(settings, flow) as opened:
        yield opened


@contextmanager
def alone(flow: str) -> Iterator[Settings]:
    """No other flow at work here, params that can be read, and no process left of a flow that died."""
    settings = read_settings()
    prepare(settings)
    if flow not in READ_NO_PARAMS:
        check_params(settings.root / "params")
    if flow in SHIP:
        check_approval(settings)
    if flow in TRAIN and settings.trainer:
        from flows.handover import check_trainer

        check_trainer(settings)
    with exclusive(settings.home / "lock", flow, settings.lock_wait_seconds, say):
        failpoint("session.before-mend")
        end_left_over(settings)
        note_server(settings)
        yield settings


@contextmanager
def recorded(settings: Settings, flow: str, look: Callable[[Any], None] = ignored) -> Iterator[Session]:
    """What a crash left put right, and the MLflow run of this flow run. `alone` comes before it."""
    from flows import mending, tracking

    mending.mend(settings)
    failpoint("session.after-mend")
    with tracking.flow_run(settings, flow, {"who": settings.who, "mlflow.user": settings.who}) as run_id:
        yield Session(settings, run_id, look)


# --- Processes that outlive a kill -9 of this one: noted, so that the next session finds them


def end_left_over(settings: Settings) -> None:
    """The lock is ours, so whatever still is at work was left by a process that died."""
    if end_noted(running_file(settings)):
        say("a stage of a run that died was still at work; it was stopped")
    if not owner_lives(server_file(settings)) and end_noted(server_file(settings)):
        say("the Prefect server of a run that died was still there; it was stopped")


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
