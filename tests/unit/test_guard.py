"""What was started ends with who started it, though somebody killed its guard as well."""

import subprocess
import sys

import tiny

SCRIPT = """
import os, subprocess, psutil
from flows.guard import guarded
with guarded() as pipe:
    child = subprocess.Popen(["sleep", "60"], start_new_session=True)
    os.write(pipe, f"{child.pid}\\n".encode())
    if KILL:
        next(each for each in psutil.Process().children() if each.pid != child.pid).kill()
print("left:", psutil.pid_exists(child.pid))
"""


def left(kill: bool) -> str:
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.replace("KILL", str(kill))],
        cwd=tiny.ROOT,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return done.stdout.strip()


def test_children_end_with_the_block() -> None:
    assert left(kill=False) == "left: False"


def test_children_end_with_the_block_though_the_guard_was_killed() -> None:
    assert left(kill=True) == "left: False"
