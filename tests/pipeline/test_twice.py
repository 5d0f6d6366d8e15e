"""The same flow started twice: one release, and the second run finds it made."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from looking import World, entries, settings

from flows import registry


@pytest.mark.slow
def test_of_two_refreshes_at_once_one_promotes_and_the_other_finds_nothing_new(
    world: World, copy: Callable[[Path], Path]
) -> None:
    """F28. Both wait for the lock, as runs of a worker do."""
    clone = copy(world.ready)
    command = [sys.executable, "-m", "flows.cli", "refresh", "--json"]
    environment = tiny.outside_environment(TANDEM_LOCK_WAIT="900")
    started = [
        subprocess.Popen(command, cwd=clone, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]  # fmt: skip
    said = [each.communicate(timeout=900) for each in started]
    assert [each.returncode for each in started] == [0, 0], said
    outcomes = sorted(json.loads(out)["outcome"] for out, _ in said)
    assert outcomes == ["promoted", "unchanged"]
    assert any("another refresh is running here (pid" in errors for _, errors in said)
    assert [entry.number for entry in entries()] == [1, 2]
    assert [version.number for version in registry.versions(settings())] == [1, 2]
