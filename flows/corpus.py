"""data/raw, the ingested documents and questions: replaced whole, versioned by DVC, and put right after a crash.

The corpus before stands aside until DVC has recorded the new one, so that whoever comes next sees how far an ingest came.
"""

import shutil
from collections.abc import Callable
from pathlib import Path

from flows import pipeline
from flows.settings import Settings
from tasks.failpoints import failpoint

Started = Callable[[int], None]  # receives the id of the process that works


def swap_in(data: Path, raw: Path) -> None:
    """Two renames on one file system, as no portable call exchanges folders; `restore_raw` undoes the first."""
    new, old = data / ".raw.new", data / ".raw.old"
    for left in (new, old):
        shutil.rmtree(left, ignore_errors=True)
    failpoint("corpus.before-swap")
    shutil.move(raw, new)
    if (data / "raw").exists():
        (data / "raw").rename(old)
    failpoint("corpus.between-renames")
    new.rename(data / "raw")
    failpoint("corpus.before-add")


def record(settings: Settings, started_as: Started) -> None:
    """The version into data/raw.dvc, then the corpus before it goes. Doing it twice is the same as once."""
    pointer = settings.root / "data/raw.dvc"
    if pointer.exists() and pipeline.torn_pointer(pointer):
        pointer.unlink()  # an interrupted `dvc add`: DVC reads an empty file as "nothing to do"
    pipeline.add_raw(settings, started_as)
    failpoint("corpus.after-add")
    shutil.rmtree(settings.root / "data/.raw.old", ignore_errors=True)


def mend(settings: Settings, started_as: Started) -> bool:
    """Whether an ingest that died had to be undone or finished."""
    data = settings.root / "data"
    shutil.rmtree(data / ".raw.new", ignore_errors=True)
    if restore_raw(data):
        return True
    if (data / "raw").exists() and not recorded(data):
        record(settings, started_as)
        return True
    return False


def restore_raw(data: Path) -> bool:
    """An ingest that died between its two renames: the old corpus goes back to its place."""
    if (data / "raw").exists() or not (data / ".raw.old").exists():
        return False
    (data / ".raw.old").rename(data / "raw")
    return True


def recorded(data: Path) -> bool:
    pointer = data / "raw.dvc"
    return pointer.exists() and not pipeline.torn_pointer(pointer) and not (data / ".raw.old").exists()
