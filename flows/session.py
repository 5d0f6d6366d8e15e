"""What every flow that changes something does first and last: one at a time, mend what a crash left, one MLflow run."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from flows import promotion, tracking
from flows.lock import exclusive
from flows.settings import Settings, prepare, read_settings
from tasks.records import read_json, write_json


@dataclass(frozen=True)
class Session:
    """Handed to every step: the stores, and the MLflow run of this flow run."""

    settings: Settings
    run_id: str


@contextmanager
def session(flow: str) -> Iterator[Session]:
    settings = read_settings()
    prepare(settings)
    with exclusive(settings.home / "lock", what=flow):
        mend(settings)
        with tracking.flow_run(settings, flow, {"who": settings.who, "mlflow.user": settings.who}) as run_id:
            yield Session(settings, run_id)


def mend(settings: Settings) -> None:
    """The lock is ours, so whatever looks half done was left by a process that died."""
    end_left_over_stage(settings)
    restore_raw(settings.root / "data")
    for run_id in tracking.end_dead_runs(settings):
        say(f"run {run_id} was left by a process that died; marked KILLED")
    done = promotion.follow_ledger(settings)
    if done:
        say(f"finished an interrupted promotion: {done}")


def restore_raw(data: Path) -> None:
    """An ingest that died between its two renames: the old corpus goes back to its place."""
    if not (data / "raw").exists() and (data / ".raw.old").exists():
        (data / ".raw.old").rename(data / "raw")


def running_file(settings: Settings) -> Path:
    return settings.home / "running.json"


def note_running(settings: Settings, process: int) -> None:
    """DVC runs in a group of its own; should we die by kill -9, the next run must find it."""
    write_json(running_file(settings), {"pid": process, "started": start_time(process)})


def end_left_over_stage(settings: Settings) -> None:
    path = running_file(settings)
    if not path.exists():
        return
    left = read_json(path)
    if start_time(left["pid"]) == left["started"] and left["started"]:
        os.killpg(left["pid"], signal.SIGKILL)
        say("a stage of a run that died was still at work; it was stopped")
    path.unlink()


def start_time(pid: int) -> str:
    """Clock ticks since boot, from /proc: a pid alone is reused. Empty where the process is gone (or there is no /proc)."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
    except (OSError, IndexError):
        return ""


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
