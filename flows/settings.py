"""Where things live: read from the environment once, here. What changes an artefact is in params/ instead."""

import getpass
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

from tasks.errors import InputError
from tasks.stage import WAITING
from tasks.tables import check_store, is_local, scheme_of

MODEL_NAME = "assistant"  # the registered model: one version is one release
ALIAS = "champion"  # the only name that moves
WORKERS_WAIT = 900  # seconds
TOKEN = 16  # characters at least
TRACKING_SCHEMES = ("sqlite", "postgresql", "mysql", "mssql", "http", "https")

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
    checkpoints: Path
    ledger: Path
    store: Path
    tracking_uri: str
    artifacts: str  # where a new MLflow experiment keeps its own; empty: the tracking server decides
    project: str
    who: str
    approval: bool
    commit_lock: bool
    lock_wait_seconds: float
    trainer: str  # the deployment that trains, as FLOW/NAME; empty: this process does
    token: str = field(repr=False)  # what `tandem serve` asks for; empty: nothing, on this machine alone


def read_settings(environment: Mapping[str, str] = os.environ) -> Settings:
    """A variable that is set to nothing counts as unset, as in dvc.yaml; a relative place is one below the clone, not below the
    folder that somebody happens to stand in."""
    root = find_root()
    given = {name: value for name, value in environment.items() if value}
    home = local_path(root, "TANDEM_HOME", given.get("TANDEM_HOME", ".tandem"))
    tracking = tracking_uri(root, given.get("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}"))
    beside = str(home / "mlartifacts") if tracking.startswith("sqlite:") else ""
    return Settings(
        root=root,
        home=home,
        index_uri=index_uri(root, given.get("TANDEM_INDEX_URI", str(home / "index"))),
        vectors=local_path(root, "TANDEM_VECTORS", given.get("TANDEM_VECTORS", str(home / "vectors.sqlite"))),
        answers=local_path(root, "TANDEM_ANSWERS", given.get("TANDEM_ANSWERS", str(home / "answers.sqlite"))),
        checkpoints=local_path(root, "TANDEM_CHECKPOINTS", given.get("TANDEM_CHECKPOINTS", str(home / "checkpoints"))),
        ledger=local_path(root, "TANDEM_LEDGER", given.get("TANDEM_LEDGER", str(home / "ledger"))),
        store=local_path(root, "TANDEM_STORE", given.get("TANDEM_STORE", str(home / "store"))),
        tracking_uri=tracking,
        artifacts=artifacts_uri(root, given.get("TANDEM_ARTIFACTS", beside)),
        project=given.get("TANDEM_PROJECT", "tandem"),
        who=given.get("TANDEM_USER") or user_name(),
        approval=switch("TANDEM_APPROVAL", given.get("TANDEM_APPROVAL", "0")),
        commit_lock=switch("TANDEM_COMMIT_LOCK", given.get("TANDEM_COMMIT_LOCK", "0")),
        lock_wait_seconds=lock_wait(given),
        trainer=trainer(given.get("TANDEM_TRAINER", "")),
        token=token(given.get("TANDEM_TOKEN", "")),
    )


def find_root() -> Path:
    """The clone that holds the current folder. One clone is one assistant."""
    try:
        here = Path(os.environ.get("TANDEM_ROOT") or Path.cwd()).absolute()
    except FileNotFoundError as error:
        raise InputError("the folder that you are in was deleted; go into a Tandem clone, or set TANDEM_ROOT") from error
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").exists() and (folder / "params").is_dir():
            return folder
    raise InputError(f"{here} is not inside a Tandem clone (no dvc.yaml and params/ above it); go there, or set TANDEM_ROOT")


def local_path(root: Path, name: str, value: str) -> Path:
    if scheme_of(value):
        raise InputError(f"{name}={value}: this has to be a folder or file that every promoter and server can reach, not a URI")
    return (root / value).absolute()


def index_uri(root: Path, value: str) -> str:
    """Raises InputError for a scheme without a safe commit."""
    check_store(value)
    return str((root / value).absolute()) if is_local(value) else value


def artifacts_uri(root: Path, value: str) -> str:
    """Raises InputError for what MLflow could not write to, before a run has begun."""
    if not scheme_of(value):
        return (root / value).absolute().as_uri() if value else ""
    if value.startswith("file:///"):  # as we hand it to our children
        return value
    if not re.match(r"s3://[^/\s]", value):
        raise InputError(f"TANDEM_ARTIFACTS={value}: runs keep their artifacts in a folder or on s3://BUCKET/FOLDER")
    if find_spec("boto3") is None:
        raise InputError(f"TANDEM_ARTIFACTS={value}: MLflow needs boto3 for it: pip install 'tandem[s3]'")
    return value


def tracking_uri(root: Path, value: str) -> str:
    """Raises InputError where MLflow would take it for something else: a plain path is a file store, which has no registry."""
    scheme, separator, place = value.partition("://")
    if not separator or scheme.partition("+")[0] not in TRACKING_SCHEMES:
        known = ", ".join(f"{known}://" for known in TRACKING_SCHEMES)
        raise InputError(f"MLFLOW_TRACKING_URI={shown(value)}: runs and the registry need a server or a database; known: {known}")
    relative = scheme == "sqlite" and place.startswith("/") and not place.startswith("//")
    return f"sqlite:///{(root / place[1:]).absolute()}" if relative else value


def shown(uri: str) -> str:
    """An address as it may stand in a message, a log or a link: without user and password."""
    return re.sub(r"//[^/@\s]*@", "//", uri)


def switch(name: str, value: str) -> bool:
    """Whoever writes TANDEM_APPROVAL=yes must not find that nobody was asked."""
    if value not in ("0", "1"):
        raise InputError(f"{name}={value}: write 1 for on; unset or 0 is off")
    return value == "1"


def trainer(value: str) -> str:
    if value and not re.fullmatch(r"[^/]+/[^/]+", value):
        raise InputError(
            f"TANDEM_TRAINER={value}: name a deployment as FLOW/NAME, such as train/train; unset, training runs here"
        )
    return value


def token(value: str) -> str:
    """Raises InputError, without repeating it, for one that is guessed or that no HTTP header can carry."""
    if value and (len(value) < TOKEN or not re.fullmatch(r"[!-~]+", value)):
        raise InputError(
            f"TANDEM_TOKEN: use {TOKEN} characters or more, of ASCII without spaces: "
            "export TANDEM_TOKEN=$(python -c 'import secrets; print(secrets.token_urlsafe())')"
        )
    return value


def lock_wait(given: Mapping[str, str]) -> float:
    """How long a flow waits for one that is at work. A person at the terminal is told at once; a run that a worker started waits,
    or a schedule that meets another would have to be run by hand."""
    value = given.get("TANDEM_LOCK_WAIT", str(WORKERS_WAIT if "PREFECT__FLOW_RUN_ID" in given else 0))
    if not value.isascii() or not value.isdigit():
        raise InputError(f"TANDEM_LOCK_WAIT={value}: write whole seconds, such as 900; 0 fails at once")
    return float(value)


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
        "TANDEM_CHECKPOINTS": str(settings.checkpoints),
        "TANDEM_LEDGER": str(settings.ledger),
        "TANDEM_STORE": str(settings.store),
        "TANDEM_ARTIFACTS": settings.artifacts,
        "MLFLOW_TRACKING_URI": settings.tracking_uri,
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_LOGGING_LEVEL": "WARNING",  # it tells of every step of making its database
        "DO_NOT_TRACK": "1",
        "RAY_USAGE_STATS_ENABLED": "0",
        "PREFECT_HOME": os.environ.get("PREFECT_HOME") or str(settings.home / "prefect"),
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
        WAITING[0]: os.environ.get(*WAITING),
        **MALLOC,
    }


def prepare(settings: Settings) -> None:
    """Make the private home and put the children's environment into this process, before prefect or mlflow is imported."""
    settings.home.mkdir(mode=0o700, parents=True, exist_ok=True)
    (settings.home / "dvc").mkdir(mode=0o700, exist_ok=True)  # DVC would make it, and what it makes below it, for all to write to
    os.environ.update(child_environment(settings))
