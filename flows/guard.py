"""Processes that end with the one that started them, and all that those started, however it ends: Ctrl-C, SIGTERM or kill -9."""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil

BOOT = Path("/proc/sys/kernel/random/boot_id")  # of Linux
STOP_SECONDS = 10  # for a service and what it runs; then kill -9


@contextmanager
def guarded() -> Iterator[int]:
    """Yields a pipe: the processes whose ids are written into it, one a line, end when this block or this process does."""
    reading, writing = os.pipe()
    guard = os.fork()
    if guard == 0:
        os.close(writing)
        watch_over(reading)
    os.close(reading)
    try:
        yield writing
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # a second Ctrl-C must not leave half of them
        os.close(writing)
        reap(until=guard)
        for left in psutil.Process().children():  # the guard was killed too, by somebody who killed by name
            end(left.pid)
        reap(until=None)


def reap(until: int | None) -> None:
    """Wait for children, up to this one or all: one that nobody has waited for still counts as there for who ends it."""
    with suppress(ChildProcessError):
        while os.wait()[0] != until:
            pass


def watch_over(reading: int) -> None:
    """The guard, in a session of its own: where the pipe ends, nobody is left who wants them. The last one started ends first,
    so that a worker can still tell its server what became of its runs."""
    os.setsid()
    with os.fdopen(reading) as pipe:
        pids = [int(line) for line in pipe]
    for pid in reversed(pids):
        end(pid)
    os._exit(0)


def end(pid: int, seconds: float = STOP_SECONDS) -> None:
    """A process and its descendants, in whatever group or session: asked first, parents before children, then killed."""
    try:
        leader = psutil.Process(pid)
        family = [leader, *leader.children(recursive=True)]
    except psutil.NoSuchProcess:
        return
    for process in family:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=seconds)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def born(pid: int) -> str:
    """Which process it is that has this number; "" where it is gone. A number is used again, in containers by every start, and a
    time would move with the clock: it is the boot, and the tick of it at which the process started."""
    try:
        if BOOT.exists():
            ticks = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace").rpartition(")")[2].split()[19]
            return f"{BOOT.read_text(encoding='ascii').strip()} {ticks}"
        return str(psutil.Process(pid).create_time())
    except (OSError, psutil.Error):
        return ""
