"""A command as a child process: its output line by line as it comes, SIGTERM passed on to it, its end as one of our errors."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

from flows.faults import LESS_MEMORY, explain_text
from flows.settings import Settings, child_environment
from tasks.errors import ConflictError, InputError, PreemptedError, RefusedError, TandemError
from tasks.stage import MEASURE

Watch = Callable[[str], None]  # receives each line that a stage prints


def ignored(what: object) -> None:
    """For who need not watch."""


def dvc_error(error: Exception) -> TandemError:
    text = str(error).strip() or type(error).__name__
    if is_busy(text):  # first: what is busy may be the corpus, and is then there
        return ConflictError(f"another DVC command is at work here; wait for it and run again ({text})")
    if "data/raw" in text or "missing data 'source'" in text:
        return InputError(f"there is no corpus yet. Run: tandem ingest --documents PATH --questions FILE ({text})")
    return InputError(f"DVC: {text}")


def is_busy(text: str) -> bool:
    """DVC's words for its two locks, of paths and of the repository."""
    return "is busy, it is being blocked" in text or "Unable to acquire lock" in text


def watched(
    command: list[str],
    settings: Settings,
    watch: Watch,
    started_as: Callable[[int], None] = ignored,
    folder: Path | None = None,
) -> Iterator[str]:
    """Yield the lines of a command's output as they come. Raises the error that its exit code and last words mean."""
    environment = os.environ | child_environment(settings) | {"SHELL": "/bin/sh"}  # DVC would take the person's, perhaps fish
    process = subprocess.Popen(
        command, cwd=folder or settings.root, env=environment, text=True, errors="replace", start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    started_as(process.pid)
    lines: list[str] = []
    try:
        with passing_on_sigterm(process.pid):
            for line in process.stdout or ():
                lines.append(line.rstrip("\n"))
                watch(lines[-1])
                yield lines[-1]
            process.wait()
    finally:
        kill_group(process)
    if process.returncode:
        raise stage_error(lines, process.returncode)


def dvc(settings: Settings, *words: str, watch: Watch = ignored, started_as: Callable[[int], None] = ignored) -> list[str]:
    """`dvc ...` to its end, and its lines."""
    return list(watched([sys.executable, "-m", "dvc", *words], settings, watch, started_as))


@contextmanager
def passing_on_sigterm(leader: int) -> Iterator[None]:
    """While it runs, SIGTERM is for the stage: one that can keeps its progress, and its exit code then says so. DVC and the shell
    between us would only die of it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only that one handle signals
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: ask_to_stop(leader))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def ask_to_stop(leader: int) -> None:
    """The processes at the ends of the tree; a launcher above them waits for what they say."""
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(leader)
        for process in [first, *first.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                if not process.children():
                    process.terminate()


def kill_group(process: "subprocess.Popen[str]") -> None:
    """A stage that outlived its parent would go on writing into an output that the next run also writes."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def stage_error(lines: list[str], code: int) -> TandemError:
    """The stage's own last message, which says how to mend it, rather than DVC's "failed to run"."""
    of_dvc = "\n".join(line for line in lines if line.startswith("ERROR: "))
    if is_busy(of_dvc) or is_busy("\n".join(lines[-1:])):
        return dvc_error(ValueError(of_dvc or lines[-1]))
    status = exit_status(of_dvc, code)
    if status < 0:
        return TandemError(killed(running_stage(lines), -status))
    if "missing data 'source'" in of_dvc or re.search("No such file or directory: .*data/raw", of_dvc):
        return dvc_error(ValueError(lines[-1]))
    said = [line for line in lines if line and not line.startswith((MEASURE, "ERROR: failed", "> ", "Running stage"))]
    message = "\n".join((said or lines)[-15:]) or f"{running_stage(lines)} ended with exit code {status} and said nothing"
    if any(line.startswith("Traceback") for line in said):
        message = f"{running_stage(lines)} broke off: {explain_text(said[-1]) or said[-1]} (its traceback stands above)"
    return {2: InputError, 3: RefusedError, PreemptedError.exit_code: PreemptedError}.get(status, TandemError)(message)


def exit_status(of_dvc: str, code: int) -> int:
    """The stage's, where DVC tells it, else DVC's own. Negative: the signal that ended it (a shell adds 128 to its number)."""
    told = re.search(r"exited with (-?\d+)\b", of_dvc)
    status = int(told[1]) if told else code
    return 128 - status if told and 128 < status < 128 + signal.NSIG else status


def running_stage(lines: list[str]) -> str:
    names = [found[1] for line in lines if (found := re.fullmatch("Running stage '(.+)':", line))]
    return f"stage {names[-1]}" if names else "DVC"


def killed(what: str, number: int) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    again = "then run the same command again: it goes on where it was"
    if number == signal.SIGKILL:
        return (
            f"{what} was killed ({name}), as the kernel does where memory runs out (see: dmesg). Free memory, or {LESS_MEMORY}, "
            f"{again}"
        )
    if number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT):
        return f"{what} crashed inside a library ({name}). See that neither disk nor memory is full, {again}"
    return f"{what} was stopped from outside ({name}); run the same command again: it goes on where it was"
