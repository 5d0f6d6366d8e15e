import errno
import os
import re
import signal
import subprocess
import sys
import timeit
from pathlib import Path

import pytest

import tasks.failpoints
from tasks.errors import InputError
from tasks.failpoints import PASSAGES, declared, failpoint

ROOT = Path(tasks.failpoints.__file__).parents[1]


def test_every_failpoint_stands_once_and_is_named_after_its_module() -> None:
    modules = [*(ROOT / "flows").rglob("*.py"), *(ROOT / "tasks").rglob("*.py")]
    found = [(module.stem, declared(module)) for module in sorted(modules)]
    names = [name for _, listed in found for name in listed]
    assert len(names) >= 50
    assert sorted(set(names)) == sorted(names)
    for module, listed in found:
        assert all(re.fullmatch(rf"{module}\.[a-z]+(-[a-z]+)*", name) for name in listed), (module, listed)
    assert sorted([*declared(ROOT / "flows"), *declared(ROOT / "tasks")]) == sorted(names)


def test_without_the_variable_or_under_another_name_nothing_happens(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TANDEM_FAILPOINT", raising=False)
    failpoint("test.here")
    monkeypatch.setenv("TANDEM_FAILPOINT", "test.there:raise")
    failpoint("test.here")


def test_raise_acts_on_the_passage_asked_for_and_only_on_that(monkeypatch: pytest.MonkeyPatch) -> None:
    PASSAGES.clear()
    monkeypatch.setenv("TANDEM_FAILPOINT", "test.here:raise:3")
    failpoint("test.here")
    failpoint("test.here")
    with pytest.raises(RuntimeError, match=r"failpoint test\.here"):
        failpoint("test.here")
    failpoint("test.here")


def test_enospc_is_the_error_that_the_kernel_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    PASSAGES.clear()
    monkeypatch.setenv("TANDEM_FAILPOINT", "test.here:enospc")
    with pytest.raises(OSError, match="No space left on device") as caught:
        failpoint("test.here")
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize(("action", "expected"), [("kill", signal.SIGKILL), ("stop", signal.SIGSTOP)])
def test_kill_and_stop_send_this_process_the_signal(action: str, expected: signal.Signals) -> None:
    code = "from tasks.failpoints import failpoint; failpoint('test.here')"
    environment = os.environ | {"TANDEM_FAILPOINT": f"test.here:{action}", "PYTHONPATH": str(ROOT)}
    child = subprocess.Popen([sys.executable, "-c", code], env=environment)
    _, status = os.waitpid(child.pid, os.WUNTRACED)
    if action == "stop":
        assert os.WSTOPSIG(status) == expected
        child.send_signal(signal.SIGCONT)
        assert child.wait(timeout=60) == 0
    else:
        assert os.WTERMSIG(status) == expected
        child.returncode = -expected  # reaped above


@pytest.mark.parametrize("setting", ["x", "x:explode", "x:kill:0", "x:kill:-1", "x:kill:2:3", ":kill", "x:kill "])
def test_a_setting_of_another_form_is_an_error_not_a_test_that_passes(setting: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TANDEM_FAILPOINT", setting)
    with pytest.raises(InputError, match=r"write <name>:<kill\|raise\|stop\|enospc>"):
        failpoint("test.here")


def test_unset_a_failpoint_costs_microseconds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TANDEM_FAILPOINT", raising=False)
    assert min(timeit.repeat(lambda: failpoint("test.here"), number=1000, repeat=5)) < 0.05
