"""What is not whole yet stands aside, under a name of its own, locked by the process that makes it.

The kernel drops the lock of a process that dies, so the next one can tell what was left behind from what is being made.
"""

import errno
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from flows.lock import private_folder, try_lock
from tasks.errors import TandemError

PREFIX = ".aside-"


@contextmanager
def aside(folder: Path, make: Callable[[Path], None]) -> Iterator[Path]:
    """A new file or folder in `folder`, made by `make`; what is left of it at the end is removed."""
    private_folder(folder)
    sweep(folder)
    path, descriptor = locked(folder, make)
    try:
        yield path
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise TandemError(
            f"no space left on the disk (or in the quota) of {folder}. Nothing is lost: free some "
            "(tandem maintain drops old releases) and run the same command again"
        ) from error
    finally:
        remove(path)
        os.close(descriptor)


def new_file(path: Path) -> None:
    path.touch(mode=0o600, exist_ok=False)


def new_folder(path: Path) -> None:
    path.mkdir(mode=0o700)


def locked(folder: Path, make: Callable[[Path], None]) -> tuple[Path, int]:
    while True:
        path = folder / f"{PREFIX}{os.getpid()}-{secrets.token_hex(8)}"
        make(path)
        descriptor = open_or_none(path)
        if descriptor is None:
            continue  # between making and locking it, another process swept it: once more
        if try_lock(descriptor) and path.exists():
            return path, descriptor
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove what dead processes left; what a living or stopped one holds stays."""
    for path in folder.glob(f"{PREFIX}*"):
        descriptor = open_or_none(path)
        if descriptor is not None:
            try:
                if try_lock(descriptor):
                    remove(path)
            finally:
                os.close(descriptor)


def open_or_none(path: Path) -> int | None:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except FileNotFoundError:
        return None


def remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def write_new(path: Path, data: bytes) -> None:
    """Overwrite an aside file whole and durably, read-only from then on."""
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fchmod(file.fileno(), 0o400)
        os.fsync(file.fileno())
