"""What every test may use: the tiny models, made once per session, and a process whose environment is left as it was found."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

os.environ.update(
    HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", TQDM_DISABLE="1", DO_NOT_TRACK="1", MLFLOW_DISABLE_TELEMETRY="true",
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false", DVC_NO_ANALYTICS="1", PREFECT_SERVER_ANALYTICS_ENABLED="false",
    GOMP_SPINCOUNT="1000",  # or two busy cores make a test that trains a hundred times slower
)  # fmt: skip  # before a library reads them at its import

import crossing
import tiny
from hypothesis import settings

# Other examples every time, so that many short runs see more than one long one; HYPOTHESIS_PROFILE=thorough for the long one
settings.register_profile("quick", max_examples=25, deadline=None)
settings.register_profile("thorough", max_examples=500, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "quick"))


@pytest.fixture(autouse=True)
def _environment_as_found() -> Iterator[None]:
    here, before, mask = Path.cwd(), dict(os.environ), os.umask(0o022)
    os.umask(mask)
    yield
    os.chdir(here)
    os.umask(mask)
    for name in os.environ.keys() - before.keys() - {"PYTEST_CURRENT_TEST"}:
        del os.environ[name]
    os.environ.update({name: value for name, value in before.items() if name != "PYTEST_CURRENT_TEST"})


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random language model's folder. Not to be written to."""
    return tiny.write_base(tmp_path_factory.mktemp("models") / "base")


@pytest.fixture(scope="session")
def mlflow_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty MLflow database, to be copied: making its tables takes seconds."""
    from flows.tracking import client

    path = tmp_path_factory.mktemp("mlflow") / "mlflow.db"
    client(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture(scope="session")
def tiny_reranker(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cross-encoder that learnt one word."""
    return crossing.write_reranker(tmp_path_factory.mktemp("models") / "reranker")


@pytest.fixture(scope="session")
def tiny_embedder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random sentence-transformers model's folder, as a hub would hold it. Not to be written to."""
    return tiny.write_embedder(tmp_path_factory.mktemp("models") / "embedder")
