import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import flows.lock
from flows.aside import aside, new_file, new_folder, sweep
from flows.lock import exclusive, private_folder
from tasks.errors import InputError

ROOT = Path(flows.lock.__file__).parents[1]

HOLDER = """
import sys, time
from pathlib import Path
from flows.aside import aside, new_folder
from flows.lock import exclusive
with exclusive(Path(sys.argv[1]) / "lock", "refresh"), aside(Path(sys.argv[1]), new_folder) as folder:
    (folder / "half").write_text("not whole")
    print("held", flush=True)
    time.sleep(60)
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    """A process that holds folder/lock and makes something aside."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(folder)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None and child.stdout.readline() == "held\n"
    return child


def kill(child: subprocess.Popen[str]) -> None:
    child.send_signal(signal.SIGKILL)
    child.communicate()


def test_a_lock_is_held_once_and_given_back_at_the_end_and_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "private" / "lock"
    with exclusive(path):
        with pytest.raises(InputError), exclusive(path):
            pytest.fail("two hold the lock")
        with pytest.raises(InputError), exclusive(path):
            pytest.fail("the loser of before released it")
    with pytest.raises(ZeroDivisionError), exclusive(path):
        raise ZeroDivisionError
    with exclusive(path):
        pass
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert path.stat().st_mode & 0o777 == 0o600


def test_the_loser_learns_what_runs_where_and_since_when_and_exits_with_2(tmp_path: Path) -> None:
    child = holder(tmp_path)
    try:
        with pytest.raises(InputError) as raised, exclusive(tmp_path / "lock", "release"):
            pytest.fail("two hold the lock")
        host = os.uname().nodename
        assert f"another refresh is running here (pid {child.pid} on {host}, since 20" in str(raised.value)
        assert "wait for it or stop it" in str(raised.value)
        assert raised.value.exit_code == 2
    finally:
        kill(child)


def test_who_may_wait_gets_the_lock_when_it_is_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A schedule that meets another flow."""
    monkeypatch.setattr(flows.lock, "POLL_SECONDS", 0.01)
    child, said, ended = holder(tmp_path), [], threading.Event()
    waker = threading.Timer(0.3, lambda: (ended.set(), kill(child)))
    waker.start()
    with exclusive(tmp_path / "lock", "retrain", wait_seconds=60, say=said.append):
        assert ended.is_set()  # the kernel gives the lock back before a parent can see that its child has gone
    waker.join()
    assert len(said) == 1
    assert said[0].startswith(f"another refresh is running here (pid {child.pid} ") and said[0].endswith("(for 60 s at most)")


def test_who_waited_in_vain_says_for_how_long_and_for_whom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(flows.lock, "POLL_SECONDS", 0.01)
    message = r"another refresh is running here \(pid .*as this one did for 0.05 s in vain"
    waiting = exclusive(tmp_path / "lock", "retrain", wait_seconds=0.05, say=lambda line: None)
    with exclusive(tmp_path / "lock", "refresh"), pytest.raises(InputError, match=message), waiting:
        pytest.fail("two hold the lock")


def test_a_killed_holder_holds_nothing_and_what_it_left_aside_is_swept(tmp_path: Path) -> None:
    child = holder(tmp_path)
    left = list(tmp_path.glob(".aside-*"))
    sweep(tmp_path)
    assert len(left) == 1 and left[0].exists(), "what a living process makes must stay"
    kill(child)
    with exclusive(tmp_path / "lock"):
        pass
    sweep(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


def test_of_many_threads_one_at_a_time_holds_the_lock(tmp_path: Path) -> None:
    inside, most, barrier = [0], [0], threading.Barrier(8)

    def work() -> None:
        barrier.wait()
        for _ in range(50):
            try:
                with exclusive(tmp_path / "lock"):
                    inside[0] += 1
                    most[0] = max(most[0], inside[0])
                    inside[0] -= 1
            except InputError as error:
                assert "is running here" in str(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most[0] == 1


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": 1}', "null"])
def test_a_holder_that_has_not_signed_yet_is_still_reported(content: str, tmp_path: Path) -> None:
    with exclusive(tmp_path / "lock", "release"):
        (tmp_path / "lock").write_text(content)
        message = r"another rollback is running here \(started this moment\); wait"
        with pytest.raises(InputError, match=message), exclusive(tmp_path / "lock", "rollback"):
            pytest.fail("two hold the lock")


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError), exclusive(tmp_path / "lock"):
        pytest.fail("followed")
    assert not (tmp_path / "elsewhere").exists()


def test_what_stands_aside_is_gone_at_the_end_unless_it_was_moved_into_place(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), aside(tmp_path, new_file) as path:
        path.write_text("half")
        raise ZeroDivisionError
    with aside(tmp_path, new_folder) as path:
        (path / "whole").touch()
        path.rename(tmp_path / "there")
    assert [path.name for path in tmp_path.rglob("*")] == ["there", "whole"]


def test_many_threads_that_make_and_sweep_never_take_each_others_work(tmp_path: Path) -> None:
    made: list[Path] = []

    def work(thread: int) -> None:
        for number in range(30):
            with aside(tmp_path, new_file) as path:
                path.write_text("whole")
                made.append(path.rename(tmp_path / f"{thread}-{number}"))

    threads = [threading.Thread(target=work, args=(thread,)) for thread in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 180 and all(path.read_text() == "whole" for path in made)
    assert len(list(tmp_path.iterdir())) == 180


def test_a_folder_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir(mode=0o750)
    assert private_folder(tmp_path / "shared").stat().st_mode & 0o777 == 0o750
