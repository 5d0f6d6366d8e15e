"""What it finds without a release; with two releases and real damage: tests/pipeline/test_day_two.py."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from workspace import settings_of, write_workspace

from flows import doctor, tracking
from flows.settings import Settings, prepare

pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")  # of MLflow's own models


@pytest.fixture
def settings(tmp_path: Path, mlflow_database: Path) -> Iterator[Settings]:
    root = tmp_path / "clone"
    root.mkdir()
    write_workspace(root)
    with tiny.inside(root):
        made = settings_of(root)
        prepare(made)
        shutil.copyfile(mlflow_database, made.home / "mlflow.db")
        yield made


def test_a_clone_in_which_nothing_happened_is_healthy_and_one_left_halfway_is_not(settings: Settings) -> None:
    assert doctor.examine(settings) == []
    data = settings.root / "data"
    (data / "raw.dvc").write_text("")
    (data / ".raw.old").mkdir()
    mlflow = tracking.client(settings.tracking_uri)
    with tracking.flow_run(settings, "release", {}) as dead:
        mlflow.set_tag(dead, tracking.PID, str(2**22 + 1))
        found = doctor.examine(settings)
        assert [finding.where for finding in found] == ["DVC", "data/", "MLflow"]
        assert "raw.dvc is empty" in found[0].what and dead in found[2].what
        assert doctor.mend(settings)[0] == f"run {dead} marked KILLED"
        assert (data / "raw").is_dir()
        assert [finding.where for finding in doctor.examine(settings)] == ["DVC"]  # which only an ingest mends
    assert doctor.as_json(found)[0]["mend"] == "tandem ingest"


def test_a_folder_in_which_everybody_may_put_something_else_is_told(settings: Settings) -> None:
    above = settings.root.parent
    for mode, found in ((0o777, [f"chmod o-w {above}"]), (0o1777, []), (0o775, [])):  # of all; sticky, as /tmp; of a group
        above.chmod(mode)
        assert [finding.mend for finding in doctor.examine(settings) if finding.minor] == found
    settings.home.chmod(0o707)
    assert [finding.mend for finding in doctor.examine(settings)] == [f"chmod o-w {settings.home}"]


def test_a_damaged_ledger_is_a_finding_not_a_crash(settings: Settings) -> None:
    settings.ledger.mkdir(parents=True)
    (settings.ledger / "000001.json").write_text("{}")
    found = doctor.examine(settings)
    assert any("000001.json" in finding.what for finding in found)
