"""How DVC runs a stage: `python -m tasks.<stage> --input ... --out ...`.

The paths come from dvc.yaml, the values from params/. A stage's signature is the whole contract: a parameter annotated `Path` or
`str` becomes a flag of that name, one annotated with a class of tasks.params is read from that class's file.
"""

import argparse
import ctypes
import errno
import inspect
import json
import os
import shutil
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, get_type_hints

from tasks.errors import TandemError
from tasks.params_files import Params, load

OUTPUTS = ("out", "metrics", "plots")  # the parameters of a stage that it writes; every other path is read
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
WAITING = ("GOMP_SPINCOUNT", "1000")
AGAIN = "then run the same command again"
MEASURE = "@measure "  # a line of stdout that starts so holds one JSON object of numbers, for whoever watches


def run_stage(stage: Callable[..., None], argv: list[str] | None = None) -> None:
    """Parse flags from the stage's signature, load its params, run it. Errors meant for people become exit codes."""
    os.umask(0o077)
    keep_freed_memory()
    spin_less()
    try:
        stage(**arguments(stage, argv))
    except TandemError as error:
        stop(stage.__name__, str(error), error.exit_code)
    except OSError as error:
        told = of_the_system(error)
        if told is None:
            raise
        stop(stage.__name__, told, 1)


def of_the_system(error: OSError) -> str | None:
    """What a person is told where the machine is at fault: which file, and what mends it. None where it may be us."""
    where = error.filename or error.filename2 or "an unnamed file"
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return f"no space left for {where}; {free_space(Path(os.fsdecode(where)))}, {AGAIN}"
    if error.errno == errno.EFBIG:
        return f"{where} may not grow any further (a limit on the size of files: ulimit -f); lift it, {AGAIN}"
    if error.errno == errno.EROFS:
        return f"{where} is on a read-only file system; mount it writable or point TANDEM_HOME elsewhere, {AGAIN}"
    if error.errno in (errno.EACCES, errno.EPERM):
        return f"permission denied: {where}. Give yourself the right to it (ls -l {where}), {AGAIN}"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return f"too many open files; raise the limit (ulimit -n 4096), {AGAIN}"
    return None


def free_space(place: Path) -> str:
    """Of the nearest folder above that exists."""
    folder = next(each for each in (place.absolute(), *place.absolute().parents) if each.is_dir())
    return f"free some ({shutil.disk_usage(folder).free / 1e6:.0f} MB are free at {folder})"


def keep_freed_memory() -> None:
    """glibc returns memory to the kernel after every large tensor and faults it in again: training takes twice as long. A flow
    says this by environment to what it starts; here it holds for `dvc repro` typed by hand as well."""
    with suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD):
            mallopt(option, 2**31 - 1)


def spin_less() -> None:
    """torch's threads wait for each other after every operation, and spin meanwhile (libgomp: 300,000 times, then sleep): where
    other processes want the cores, they burn the time that the last of them needs. Read when torch is imported."""
    os.environ.setdefault(*WAITING)


def stop(stage: str, message: str, code: int) -> None:
    print(f"{stage}: {message}", file=sys.stderr)
    sys.exit(code)


def arguments(stage: Callable[..., None], argv: list[str] | None) -> dict[str, Any]:
    parser = argparse.ArgumentParser(prog=f"python -m {stage.__module__}", description=inspect.getdoc(stage))
    kinds = {name: kind for name, kind in get_type_hints(stage).items() if name != "return"}
    for name, kind in kinds.items():
        if not issubclass(kind, Params):
            parser.add_argument(f"--{name.replace('_', '-')}", type=kind, required=True)
    given = vars(parser.parse_args(argv))
    return given | {name: load(kind) for name, kind in kinds.items() if issubclass(kind, Params)}


def fresh_folder(out: Path) -> Path:
    """An empty folder at `out`: a stage rewrites its output whole."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    return out


def say(message: str) -> None:
    """Progress for a person, at once (stdout is a pipe under DVC)."""
    print(message, flush=True)


def measure(step: int, **values: float) -> None:
    """A point of a curve while it happens; the flow that watches this process forwards it to MLflow."""
    print(MEASURE + json.dumps({"step": step, **values}), flush=True)
