"""What a flow that died left half done: put right by the next one, before it begins."""

import re
import shutil
from pathlib import Path

from flows import corpus, promotion, takeout, tracking
from flows.crashed import mark_crashed
from flows.session import note_running, say
from flows.settings import Settings


def mend(settings: Settings) -> None:
    """The lock is ours, so whatever looks half done was left by a process that died."""
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
