"""The backup that docs/operations.md describes, brought back on an empty machine. With the faults: it makes their world."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
import tiny
from fault_cases import aftermath, copy_world, make_world

pytestmark = [pytest.mark.faults, pytest.mark.timeout(900)]


def documented() -> str:
    found = re.search(r"^tar czf tandem\.tgz .*$", (tiny.ROOT / "docs/operations.md").read_text(), re.MULTILINE)
    assert found
    return found[0]


def test_a_backup_brought_back_is_whole_answers_in_every_release_and_goes_on(tmp_path: Path, mlflow_database: Path) -> None:
    clone = copy_world(make_world(tmp_path, mlflow_database), tmp_path / "machine")
    subprocess.run(documented().split(), cwd=clone, check=True)
    (clone / "tandem.tgz").rename(tmp_path / "tandem.tgz")
    shutil.rmtree(clone)
    clone.mkdir()
    shutil.copyfile(tiny.ROOT / ".dvcignore", clone / ".dvcignore")  # of the clone of the code, as are the modules
    subprocess.run(["tar", "xzf", str(tmp_path / "tandem.tgz")], cwd=clone, check=True)
    aftermath(clone, "session.before-mend")
