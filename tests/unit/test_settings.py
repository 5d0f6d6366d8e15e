"""Where things live: what an environment may say, and what of it is refused before anything is opened."""

from pathlib import Path

import pytest
import tiny

from flows.settings import read_settings
from tasks.errors import InputError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "clone/params").mkdir(parents=True)
    (tmp_path / "clone/dvc.yaml").touch()
    return tmp_path / "clone"


PLACES = ("TANDEM_HOME", "TANDEM_INDEX_URI", "TANDEM_VECTORS", "TANDEM_ANSWERS", "TANDEM_LEDGER", "TANDEM_STORE")


def test_a_variable_that_is_set_to_nothing_is_unset(root: Path) -> None:
    names = (*PLACES, "MLFLOW_TRACKING_URI", "TANDEM_PROJECT", "TANDEM_APPROVAL")
    with tiny.inside(root):
        unset = read_settings({"TANDEM_USER": "a test"})
        assert read_settings(dict.fromkeys(names, "") | {"TANDEM_USER": "a test"}) == unset
    assert unset.home == root / ".tandem"
    assert (unset.index_uri, unset.project, unset.approval) == (str(root / ".tandem/index"), "tandem", False)


def test_a_relative_place_is_one_below_the_clone_wherever_one_stands(root: Path) -> None:
    environment = dict.fromkeys(PLACES, "here/place") | {"MLFLOW_TRACKING_URI": "sqlite:///here/runs.db"}
    with tiny.inside(root / "params"):
        settings = read_settings(environment)
    places = [settings.home, Path(settings.index_uri), settings.vectors, settings.answers, settings.ledger, settings.store]
    assert places == [root / "here/place"] * 6
    assert settings.tracking_uri == f"sqlite:///{root / 'here/runs.db'}"


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


@pytest.mark.parametrize("uri", ["https://mlflow.example.org", "postgresql+psycopg2://u:p@host/db", "sqlite:////var/runs.db"])
def test_a_server_or_a_database_is_taken_as_it_is(root: Path, uri: str) -> None:
    with tiny.inside(root):
        assert read_settings({"MLFLOW_TRACKING_URI": uri}).tracking_uri == uri
