"""A disk that is full in the middle of a refresh: a file system of its own on which so many bytes are left. A target of its own
(make test-faults); only root can mount it."""

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import standins
from dying import returncode_of
from fault_cases import RUNS, aftermath, copy_world, make_world

from flows import faults
from tasks.errors import TandemError

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]
SIZE = 400_000_000  # bytes
STEPS = 10  # shares of what a refresh writes


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Path:
    return make_world(tmp_path_factory.mktemp("faults"), mlflow_database)


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={SIZE}", "tmpfs", str(place)], check=False).returncode:
        pytest.skip("a file system can be mounted by root alone")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="module")
def written(world: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """Bytes that a refresh leaves behind."""
    clone = copy_world(world, tmp_path_factory.mktemp("whole"))
    before = size(clone)
    assert returncode_of(refresh, str(clone), str(clone.with_name("said.txt"))) == 0
    return size(clone) - before


def size(folder: Path) -> int:
    return sum(path.lstat().st_blocks * 512 for path in folder.rglob("*"))


def refresh(clone: str, said: str) -> None:
    """What a person would read is written elsewhere."""
    os.chdir(clone)
    standins.enter(Path(clone))
    try:
        RUNS["refresh"]()
    except TandemError as error:
        Path(said).write_text(str(error))
        raise
    except Exception as error:
        Path(said).write_text(faults.describe(error))
        raise


def leave(disk: Path, free: int) -> None:
    with (disk / "ballast").open("wb") as ballast:
        os.posix_fallocate(ballast.fileno(), 0, shutil.disk_usage(disk).free - free)


def look(clone: str) -> None:
    os.chdir(clone)
    assert standins.check_whole(standins.enter(Path(clone)))["number"] in (4, 5)


@pytest.mark.parametrize("step", range(STEPS))
def test_a_refresh_on_a_full_disk_says_so_and_finishes_once_there_is_room(
    world: Path, written: int, disk: Path, tmp_path: Path, step: int
) -> None:
    """F35."""
    clone = copy_world(world, disk)
    leave(disk, written * step // STEPS)
    assert returncode_of(refresh, str(clone), str(tmp_path / "said.txt")) == 1
    said = (tmp_path / "said.txt").read_text()
    assert re.search(r"free some \(.*then run the same command again", said), said
    assert returncode_of(look, str(clone)) == 0, "what is live answers without room as well"
    assert [path for path in clone.rglob("*") if path.name.startswith(".aside-") or path.suffix == ".tmp"] == []
    (disk / "ballast").unlink()
    aftermath(clone, "session.before-mend")
