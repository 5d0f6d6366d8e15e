"""Where things live: what an environment may say, and what of it is refused before anything is opened."""

import os
import tomllib
from pathlib import Path

import pytest
import tiny

from flows import pipeline
from flows.lock import private_folder
from flows.settings import child_environment, prepare, read_settings
from tasks.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "clone/params").mkdir(parents=True)
    (tmp_path / "clone/dvc.yaml").touch()
    return tmp_path / "clone"


PLACES = (
    "TANDEM_HOME", "TANDEM_INDEX_URI", "TANDEM_VECTORS", "TANDEM_ANSWERS", "TANDEM_CHECKPOINTS", "TANDEM_LEDGER", "TANDEM_STORE",
)  # fmt: skip


def test_a_variable_that_is_set_to_nothing_is_unset(root: Path) -> None:
    names = (*PLACES, "MLFLOW_TRACKING_URI", "TANDEM_PROJECT", "TANDEM_APPROVAL")
    with tiny.inside(root):
        unset = read_settings({"TANDEM_USER": "a test"})
        assert read_settings(dict.fromkeys(names, "") | {"TANDEM_USER": "a test"}) == unset
    assert unset.home == root / ".tandem"
    assert (unset.index_uri, unset.project, unset.approval) == (str(root / ".tandem/index"), "tandem", False)


@pytest.mark.parametrize(("before", "after"), [(None, "1000"), ("0", "0")])
def test_a_persons_own_choice_of_how_threads_wait_stays(
    root: Path, monkeypatch: pytest.MonkeyPatch, before: str | None, after: str
) -> None:
    monkeypatch.setenv("GOMP_SPINCOUNT", before) if before else monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    with tiny.inside(root):
        assert child_environment(read_settings({"TANDEM_USER": "a test"}))["GOMP_SPINCOUNT"] == after


def test_a_relative_place_is_one_below_the_clone_wherever_one_stands(root: Path) -> None:
    environment = dict.fromkeys(PLACES, "here/place") | {"MLFLOW_TRACKING_URI": "sqlite:///here/runs.db"}
    with tiny.inside(root / "params"):
        settings = read_settings(environment)
    stores = [settings.vectors, settings.answers, settings.checkpoints, settings.ledger, settings.store]
    assert [settings.home, Path(settings.index_uri), *stores] == [root / "here/place"] * 7
    assert settings.tracking_uri == f"sqlite:///{root / 'here/runs.db'}"


def test_runs_keep_their_artifacts_beside_sqlite_where_the_server_says_or_where_the_environment_does(root: Path) -> None:
    places: dict[str, dict[str, str]] = {
        (root / ".tandem/mlartifacts").as_uri(): {},
        "": {"MLFLOW_TRACKING_URI": "https://mlflow.example.org"},
        (root / "runs").as_uri(): {"TANDEM_ARTIFACTS": "runs", "MLFLOW_TRACKING_URI": "https://mlflow.example.org"},
    }
    with tiny.inside(root):
        for place, environment in places.items():
            settings = read_settings(environment)
            assert settings.artifacts == place
            assert read_settings(child_environment(settings)).artifacts == place


def test_artifacts_on_object_storage_need_its_client(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = {"TANDEM_ARTIFACTS": "s3://bucket/runs"}
    with tiny.inside(root):
        monkeypatch.setattr("flows.settings.find_spec", lambda name: None)
        with pytest.raises(InputError, match=r"pip install 'tandem\[s3\]'"):
            read_settings(here)
        monkeypatch.setattr("flows.settings.find_spec", lambda name: object())
        assert read_settings(here).artifacts == "s3://bucket/runs"


def test_a_folder_that_was_deleted_under_ones_feet_is_said_to_be(root: Path) -> None:
    (root / "gone").mkdir()
    with tiny.inside(root / "gone"):
        (root / "gone").rmdir()
        with pytest.raises(InputError, match="was deleted"):
            read_settings({})


@pytest.mark.parametrize("uri", ["s3://bucket/index", "gs://bucket/index", "az://bucket/index"])
def test_object_storage_with_a_safe_commit_is_taken_as_it_is(root: Path, uri: str) -> None:
    with tiny.inside(root):
        assert read_settings({"TANDEM_INDEX_URI": uri}).index_uri == uri


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("TANDEM_INDEX_URI", "cos://bucket/index", "s3, gs, az"),
        ("TANDEM_INDEX_URI", "ftp://host/index", "ftp:// has no safe commit"),
        ("TANDEM_INDEX_URI", "S3://bucket/index", "use a folder or s3, gs, az"),
        ("TANDEM_INDEX_URI", "s3:/bucket/index", "a bucket is missing; write s3://BUCKET/FOLDER"),
        ("TANDEM_INDEX_URI", "s3:bucket", "a bucket is missing; write s3://BUCKET/FOLDER"),
        ("TANDEM_INDEX_URI", "s3://", "a bucket is missing; write s3://BUCKET/FOLDER"),
        ("TANDEM_INDEX_URI", "s3:///index", "a bucket is missing; write s3://BUCKET/FOLDER"),
        ("TANDEM_ARTIFACTS", "ftp://host/runs", "a folder or on s3://BUCKET/FOLDER"),
        ("TANDEM_ARTIFACTS", "s3:/bucket/runs", "a folder or on s3://BUCKET/FOLDER"),
        ("TANDEM_STORE", "s3:/bucket/store", "not a URI"),
        ("TANDEM_LEDGER", "s3://bucket/ledger", "not a URI"),
        ("TANDEM_HOME", "s3://bucket/home", "not a URI"),
        ("MLFLOW_TRACKING_URI", "mlruns", "sqlite://, postgresql://"),
        ("MLFLOW_TRACKING_URI", "ftp://example.org", "sqlite://, postgresql://"),
        ("TANDEM_APPROVAL", "yes", "write 1 for on"),
        ("TANDEM_COMMIT_LOCK", "true", "write 1 for on"),
    ],
)
def test_what_is_not_known_is_refused_with_what_is(root: Path, name: str, value: str, said: str) -> None:
    with tiny.inside(root), pytest.raises(InputError, match=said) as found:
        read_settings({name: value})
    assert f"{name}={value}" in str(found.value)


def test_what_tandem_makes_is_for_its_user_alone_whatever_the_umask_and_dvcs_pickles_lie_below_it(root: Path) -> None:
    (root / ".dvc").mkdir()
    (root / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    os.umask(0)
    with tiny.inside(root):
        settings = read_settings({})
        prepare(settings)
        with pipeline.repository(root):  # which makes its own caches
            private_folder(settings.store)
    modes = {path: path.stat().st_mode & 0o777 for path in (settings.home, settings.home / "dvc", settings.store)}
    assert set(modes.values()) == {0o700}, modes
    assert Path(os.environ.get("DVC_SITE_CACHE_DIR", child_environment(settings)["DVC_SITE_CACHE_DIR"])) == settings.home / "dvc"
    assert (settings.home / "dvc/repo").is_dir()


def test_results_are_json_and_no_server_of_ours_runs_jobs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Prefect and MLflow themselves understand what every process of ours gets: their defaults are pickle, and jobs."""
    from mlflow.environment_variables import MLFLOW_SERVER_ENABLE_JOB_EXECUTION
    from prefect.settings import Settings as OfPrefect

    with tiny.inside(root):
        environment = child_environment(read_settings({}))
    for name in ("PREFECT_RESULTS_DEFAULT_SERIALIZER", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION"):
        monkeypatch.setenv(name, environment[name])
    assert OfPrefect().results.default_serializer == "json"
    assert MLFLOW_SERVER_ENABLE_JOB_EXECUTION.get() is False


FLOORS = {"torch": "2.10", "transformers": "5.3.0", "prefect": "3.6.28", "mlflow": "3.11"}  # below: known to run foreign code


@pytest.mark.parametrize("name", FLOORS)
def test_no_version_that_is_known_to_run_foreign_code_can_be_installed(name: str) -> None:
    """By what pyproject.toml allows, and what the lock pins."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    project = tomllib.loads((tiny.ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    locked = [line for line in (tiny.ROOT / "requirements.lock").read_text().splitlines() if "==" in line]
    found = [each for each in map(Requirement, [*project, *locked]) if each.name == name]
    lowest = [Version(part.version) for each in found for part in each.specifier if part.operator in (">=", "==", "~=")]
    assert len(lowest) == 2 and min(lowest) >= Version(FLOORS[name])


@pytest.mark.parametrize("uri", ["https://mlflow.example.org", "postgresql+psycopg2://u:p@host/db", "sqlite:////var/runs.db"])
def test_a_server_or_a_database_is_taken_as_it_is(root: Path, uri: str) -> None:
    with tiny.inside(root):
        assert read_settings({"MLFLOW_TRACKING_URI": uri}).tracking_uri == uri
