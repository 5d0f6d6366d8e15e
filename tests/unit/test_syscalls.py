"""kill -9 inside other people's code, at a system call: Lance's commit, DVC's pointer, SQLite's journal. Needs strace."""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from test_index_faults import Place, corpus
from workspace import settings_of

from flows import corpus as raw
from flows.settings import child_environment
from tasks.records import write_text
from tasks.table_files import manifest_path, table_folder

pytestmark = [
    pytest.mark.faults,
    pytest.mark.timeout(900),
    pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed: apt-get install strace"),
]

BUILD = """
import sys
from pathlib import Path
from test_index_faults import Place, corpus
Place(Path(sys.argv[1])).build(corpus(3, 9))
"""
TAG = "rows-dd3ffbdf7ce2c43e56b7e57ac022c990"  # of corpus(3, 9); the test asserts it


def killed_at(call: str, path: Path | None, command: list[str], folder: Path, **environment: str) -> None:
    """Run a command until it makes this system call (on this path, where one is given), before which it is killed."""
    only = ["-P", str(path)] if path else []
    strace = ["strace", "-f", "-qq", *only, "-e", f"trace={call}", "-e", f"inject={call}:signal=SIGKILL", "-o", os.devnull]
    paths = os.pathsep.join(str(tiny.ROOT / part) for part in (".", "tests", "tests/unit"))
    outside = tiny.outside_environment(PYTHONPATH=paths, PYTHONDONTWRITEBYTECODE="1", **environment)
    done = subprocess.run([*strace, *command], cwd=folder, env=outside, capture_output=True, text=True, timeout=600, check=False)
    if "Operation not permitted" in done.stderr:
        pytest.skip("this machine lets nobody trace a process")
    assert done.returncode == -signal.SIGKILL, f"{call} on {path} was not reached: {done.stdout}{done.stderr}"


def places(place: Place, table: str) -> dict[str, tuple[str, Path | None]]:
    """The steps of a commit in Lance 14, in their order. The first build took the versions 1 (rows) and 2 (full text)."""
    folder = table_folder(place.store, table)
    rows, structures = manifest_path(folder, 3), manifest_path(folder, 4)
    return {
        "the rename of the rows' data file": ("renameat", None),
        "the link of the rows' manifest": ("linkat", rows),
        "its first name": ("unlink", Path(f"{rows}#1")),
        "the hint of the newest version": ("renameat", folder / "_versions/latest_version_hint.json"),
        "the link of the full text's manifest": ("linkat", structures),
        "the link of the tag": ("linkat", folder / "_refs/tags" / f"{TAG}.json"),
    }


@pytest.mark.parametrize("step", range(6))
def test_a_build_that_is_killed_inside_lances_commit_leaves_the_old_version_and_the_next_build_finishes(
    tmp_path: Path, step: int
) -> None:
    place = Place(tmp_path)
    old, _ = place.build(corpus(0, 6))
    call, path = list(places(place, old["table"]).values())[step]
    killed_at(call, path, [sys.executable, "-c", BUILD, str(tmp_path)], tmp_path)
    assert place.ids(old) == sorted(row["id"] for row in corpus(0, 6))
    new, _ = place.build(corpus(3, 9))
    assert new["tag"] == TAG
    assert place.ids(new) == sorted(row["id"] for row in corpus(3, 9))
    assert place.ids(old) == sorted(row["id"] for row in corpus(0, 6))


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    for name in ("base", "embedder"):
        (tmp_path / name).mkdir()
    made = tiny.make_clone(tmp_path / "clone", tmp_path / "base", tmp_path / "embedder")
    os.environ.update(child_environment(settings_of(made)))
    return made


def test_dvc_that_is_killed_as_it_writes_its_pointer_leaves_an_empty_one_and_the_next_flow_writes_it(clone: Path) -> None:
    """It opens data/raw.dvc for writing, which empties it, and reads an empty one as nothing to do."""
    write_text(clone / "data/raw/documents/page.md", "new")
    pointer = clone / "data/raw.dvc"
    write_text(pointer, "outs: []\n")
    killed_at("write", pointer, [sys.executable, "-m", "dvc", "add", "--quiet", "data/raw"], clone, DVC_NO_ANALYTICS="1",
              DVC_SITE_CACHE_DIR=str(clone / ".tandem/dvc"))  # fmt: skip
    assert pointer.read_bytes() == b""
    with tiny.inside(clone):
        assert raw.mend(settings_of(clone), lambda pid: None)
    assert "md5" in pointer.read_text()


def test_mlflows_database_survives_a_kill_as_sqlite_ends_a_transaction(clone: Path, mlflow_database: Path) -> None:
    """The journal is still there: whoever opens the database next rolls back by it."""
    home = clone / ".tandem"
    home.mkdir()
    shutil.copyfile(mlflow_database, home / "mlflow.db")
    code = "from flows import tracking; from flows.settings import read_settings; tracking.experiment_id(read_settings())"
    killed_at("unlink", home / "mlflow.db-journal", [sys.executable, "-c", code], clone)
    with tiny.inside(clone):
        from flows import tracking

        assert tracking.experiment_id(settings_of(clone)) == "1"
