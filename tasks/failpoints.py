"""Places where a test makes this process die, fail, stop or find the disk full, to show what that leaves behind.

TANDEM_FAILPOINT=<name>:<kill|raise|stop|enospc>[:n] acts on the n-th passage of that name (the first, if n is left out).
Unset, a failpoint costs one look into the environment.
"""

import errno
import os
import re
import signal
from collections import Counter
from pathlib import Path

from tasks.errors import InputError

VARIABLE = "TANDEM_FAILPOINT"
PASSAGES: Counter[str] = Counter()  # of this process


def failpoint(name: str) -> None:
    setting = os.environ.get(VARIABLE)
    if not setting:
        return
    wanted, action, number = parse(setting)
    if name != wanted:
        return
    PASSAGES[name] += 1
    if PASSAGES[name] == number:
        act(name, action)


def parse(setting: str) -> tuple[str, str, int]:
    """Raises InputError where the setting has another form: a test must not pass because nothing was injected."""
    match = re.fullmatch(r"([a-z0-9.-]+):(kill|raise|stop|enospc)(?::([1-9][0-9]*))?", setting)
    if not match:
        raise InputError(f"{VARIABLE}={setting}: write <name>:<kill|raise|stop|enospc>[:n], such as ledger.before-link:kill:2")
    return match[1], match[2], int(match[3] or 1)


def act(name: str, action: str) -> None:
    if action == "enospc":
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))  # without a file name, as the kernel's own of a write
    if action == "raise":
        raise RuntimeError(f"failpoint {name}")
    os.kill(os.getpid(), signal.SIGKILL if action == "kill" else signal.SIGSTOP)


def declared(source: Path) -> list[str]:
    """The names that stand in a file or folder of source code, in order; the code itself is the only list of them."""
    files = [source] if source.is_file() else sorted(source.rglob("*.py"))
    texts = [file.read_text(encoding="utf-8") for file in files]
    return [name for text in texts for name in re.findall(r'\bfailpoint\("([^"]*)"\)', text)]
