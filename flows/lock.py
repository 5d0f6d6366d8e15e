"""Locks that the kernel holds for a process and drops however it dies: no stale lock, no lease, no pid to trust."""

import errno
import fcntl
import json
import os
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from tasks.errors import InputError
from tasks.records import sync

POLL_SECONDS = 1.0  # between two looks at a lock that somebody else holds


@contextmanager
def exclusive(path: Path, what: str = "release", wait_seconds: float = 0, say: Callable[[str], None] = print) -> Iterator[None]:
    """Hold `path` alone, among threads, processes and, where the file system shares locks, hosts.

    Raises InputError where it still is held after `wait_seconds`, saying by whom; `say` is told that it waits. The file stays:
    removing it would let two hold it.
    """
    private_folder(path.parent)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        if not try_lock(descriptor):
            wait_for_it(descriptor, what, wait_seconds, say)
        sign(descriptor, what)
        yield
    finally:
        os.close(descriptor)


def wait_for_it(descriptor: int, what: str, seconds: float, say: Callable[[str], None]) -> None:
    deadline = time.monotonic() + seconds
    if seconds:
        say(f"{busy(descriptor, what)} (for {seconds:g} s at most)")
    while time.monotonic() < deadline:
        time.sleep(min(POLL_SECONDS, seconds))
        if try_lock(descriptor):
            return
    waited = f", as this one did for {seconds:g} s in vain" if seconds else ""
    raise InputError(busy(descriptor, what) + waited)


def try_lock(descriptor: int) -> bool:
    """Lock an open file or folder for as long as `descriptor` is open. False where somebody else holds it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):
            return False
        raise
    return True


def sign(descriptor: int, what: str) -> None:
    """Who holds the lock: for the message of the next one only, never to decide anything."""
    since = datetime.now(UTC).isoformat(timespec="seconds")
    holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since, "what": what}).encode()
    os.pwrite(descriptor, holder, 0)
    os.ftruncate(descriptor, len(holder))


def busy(descriptor: int, what: str) -> str:
    try:
        holder = json.loads(os.pread(descriptor, 4096, 0))
        what, by = holder["what"], f"pid {holder['pid']} on {holder['host']}, since {holder['since']}"
    except (ValueError, LookupError, TypeError):  # it has only just been taken
        by = "started this moment"
    return f"another {what} is running here ({by}); wait for it or stop it"


def private_folder(folder: Path) -> Path:
    """Make `folder` for this user alone, durably; one that exists stays as it is."""
    if not folder.is_dir():
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync(folder.parent)
    return folder
