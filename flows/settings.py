"""Where things live: read from the environment once, here. What changes an artefact is in params/ instead."""

import getpass
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tasks.errors import InputError

MODEL_NAME = "assistant"  # the registered model: one version is one release
ALIAS = "champion"  # the only name that moves

# glibc gives memory back to the kernel after every large tensor and faults it in again: several times slower training
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "8589934592"}


@dataclass(frozen=True)
class Settings:
    """Everything below `home` by default: SQLite, local LanceDB, in-process Prefect."""

    root: Path
    home: Path
    index_uri: str
    vectors: Path
    answers: Path
    ledger: Path
    store: Path
    tracking_uri: str
    project: str
    who: str
    approval: bool
    commit_lock: bool

    @property
    def artifacts(self) -> str:
        """Where a new MLflow experiment keeps its artifacts; a tracking server decides that itself."""
        return (self.home / "mlartifacts").as_uri() if self.tracking_uri.startswith("sqlite:") else ""


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    root = find_root()
    home = Path(environment.get("TANDEM_HOME", root / ".tandem")).absolute()
    return Settings(
        root=root,
        home=home,
        index_uri=environment.get("TANDEM_INDEX_URI", str(home / "index")),
        vectors=Path(environment.get("TANDEM_VECTORS", home / "vectors.sqlite")),
        answers=Path(environment.get("TANDEM_ANSWERS", home / "answers.sqlite")),
        ledger=local_path("TANDEM_LEDGER", environment.get("TANDEM_LEDGER", str(home / "ledger"))),
        store=local_path("TANDEM_STORE", environment.get("TANDEM_STORE", str(home / "store"))),
        tracking_uri=environment.get("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}"),
        project=environment.get("TANDEM_PROJECT", "tandem"),
        who=environment.get("TANDEM_USER") or user_name(),
        approval=environment.get("TANDEM_APPROVAL", "") == "1",
        commit_lock=environment.get("TANDEM_COMMIT_LOCK", "") == "1",
    )


def find_root() -> Path:
    """The clone that holds the current folder. One clone is one assistant."""
    here = Path(os.environ.get("TANDEM_ROOT", Path.cwd())).absolute()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").exists() and (folder / "params").is_dir():
            return folder
    raise InputError(f"{here} is not inside a Tandem clone (no dvc.yaml and params/ above it); go there, or set TANDEM_ROOT")


def local_path(name: str, value: str) -> Path:
    if "://" in value:
        raise InputError(f"{name}={value}: the ledger and the store need a folder that every promoter and server can reach")
    return Path(value).absolute()


def user_name() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's bare uid
        return f"uid {os.getuid()}"


def child_environment(settings: Settings) -> dict[str, str]:
    """What every process that Tandem starts gets: the same stores, this interpreter, no phone-home, private caches."""
    binaries = str(Path(sys.executable).parent)
    return {
        "PATH": f"{binaries}{os.pathsep}{os.environ.get('PATH', '')}",
        "TANDEM_ROOT": str(settings.root),
        "TANDEM_HOME": str(settings.home),
        "TANDEM_INDEX_URI": settings.index_uri,
        "TANDEM_VECTORS": str(settings.vectors),
        "TANDEM_ANSWERS": str(settings.answers),
        "TANDEM_LEDGER": str(settings.ledger),
        "TANDEM_STORE": str(settings.store),
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "DO_NOT_TRACK": "1",
        "PREFECT_HOME": os.environ.get("PREFECT_HOME", str(settings.home / "prefect")),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",  # the default is pickle: who writes results would run code here
        "DVC_NO_ANALYTICS": "1",
        "DVC_SITE_CACHE_DIR": str(settings.home / "dvc"),  # its default is world-writable and holds pickles
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "TQDM_DISABLE": "1",  # stages say what they do in lines; a bar in a pipe is noise
        "TRANSFORMERS_VERBOSITY": "error",
        "PYTHONWARNINGS": "ignore",  # of libraries, in the middle of a stage's own lines; the tests see them all
        "PYTHONUNBUFFERED": "1",
        **MALLOC,
    }


def prepare(settings: Settings) -> None:
    """Make the private home and put the children's environment into this process, before prefect or mlflow is imported."""
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    os.environ.update(child_environment(settings))
