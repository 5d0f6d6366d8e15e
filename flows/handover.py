"""Training on another machine: `TANDEM_TRAINER=train/train` names the deployment whose worker has the accelerator.

The caller gives it a snapshot (what code, dvc.lock, params) and, through the DVC remote, the stage's inputs. The runner, a clone
that keeps no assistant of its own, runs the stage there and pushes the result with DVC's run cache. The caller then restores it:
the stage is not executed here, and what it made is checked by DVC's digests like any other output.
"""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows import ledger, pipeline
from flows.children import Watch, dvc, ignored
from flows.pipeline import StageRun
from flows.settings import Settings
from tasks.errors import InputError, IntegrityError, RefusedError, TandemError
from tasks.records import file_digest, value_digest, write_text

STAGE = "adapter"
INPUTS = ("models", "examples")  # the stages whose outputs it reads
TRAINED, REFUSED = "Trained", "Refused"  # names of the runner's final states
SENT = re.compile(r"dvc\.lock|params/\w+\.yaml")  # the only files that a snapshot may write


# --- The caller


def check_trainer(settings: Settings) -> None:
    """Raises InputError before anything runs, where the hand-over could not work."""
    from prefect.settings import PREFECT_API_URL

    if not settings.trainer:
        return
    if not PREFECT_API_URL.value():
        raise InputError(
            f"TANDEM_TRAINER={settings.trainer} is a deployment, but no Prefect server is named: set PREFECT_API_URL, or unset "
            "TANDEM_TRAINER to train here"
        )
    check_remote(settings)


def check_remote(settings: Settings) -> None:
    """Raises InputError where none is shared, or where DVC would take a damaged object from it, and train on that."""
    with pipeline.repository(settings.root) as repo:
        name = repo.config["core"].get("remote")
        if not name:
            raise InputError(
                "to train elsewhere needs a place that both machines reach: dvc remote add --default storage s3://BUCKET/dvc"
            )
        if not repo.config["remote"][name].get("verify"):
            raise InputError(
                f"what comes from the DVC remote {name} is not compared with its digest; in both clones: "
                f"dvc remote modify {name} verify true"
            )


def is_elsewhere(settings: Settings, stage: str) -> bool:
    return bool(settings.trainer) and stage == STAGE


def train_elsewhere(
    settings: Settings, parent: str, reasons: list[str], watch: Watch, started_as: Callable[[int], None]
) -> StageRun:
    """Push the inputs, have the runner train, restore what it made. `parent`: the MLflow run to which its curve belongs."""
    from prefect.deployments import run_deployment

    through_remote(settings, "push", *INPUTS, watch=watch)
    watch(f"handed over to {settings.trainer}")
    run: Any = run_deployment(settings.trainer, parameters={"snapshot": snapshot(settings), "parent": parent}, poll_interval=2)
    check_ended(settings.trainer, run.state)
    restored = pipeline.run_stage(settings, STAGE, reasons, watch, started_as, "--pull")
    if restored.outcome != "restored":
        raise IntegrityError(f"{settings.trainer} did not train {STAGE} as it is here; see that both clones have one DVC remote")
    return restored


def check_ended(trainer: str, state: Any) -> None:
    """Raises what the runner found: a refusal is one here too."""
    if state.name == REFUSED:
        raise RefusedError(str(state.message))
    if state.name != TRAINED:
        raise TandemError(f"{trainer} ended as {state.name}: {state.message}. Its log is in the Prefect UI; run again to go on")


def snapshot(settings: Settings) -> dict[str, Any]:
    """All that decides what the stage makes, but for its inputs, which dvc.lock names by digest."""
    files = [settings.root / "dvc.lock", *sorted((settings.root / "params").glob("*.yaml"))]
    return {
        "code": code_digest(settings.root),
        "files": {path.relative_to(settings.root).as_posix(): path.read_text(encoding="utf-8") for path in files},
    }


def code_digest(root: Path) -> str:
    files = [root / "dvc.yaml", *sorted((root / "tasks").rglob("*.py"))]
    return value_digest({path.relative_to(root).as_posix(): file_digest(path) for path in files})


# --- The runner


def train_here(settings: Settings, given: dict[str, Any], run: Any) -> None:
    """Make this clone what the caller's was, `run` the stage, push what it made."""
    check_runner(settings, given)
    check_remote(settings)
    for name, text in given["files"].items():
        write_text(settings.root / name, text)
    through_remote(settings, "pull", *INPUTS)
    run()
    through_remote(settings, "push", "--run-cache", STAGE)


def check_runner(settings: Settings, given: dict[str, Any]) -> None:
    """Raises InputError for other code, for a snapshot that writes elsewhere, and for a clone whose state would be lost."""
    where = f"the runner's clone {settings.root}"
    if ledger.read(settings.ledger):
        raise InputError(
            f"{where} keeps an assistant of its own, which would lose its dvc.lock and params; give the runner another"
        )
    if settings.trainer:
        raise InputError(f"{where} would hand over in turn; unset TANDEM_TRAINER for its worker")
    if given["code"] != code_digest(settings.root):
        raise InputError(
            f"{where} has other code (tasks/, dvc.yaml) than who asks it to train; check out the same commit in both"
        )
    strange = [name for name in given["files"] if not SENT.fullmatch(name)]
    if strange:
        raise InputError(f"a snapshot holds dvc.lock and params; this one would write {strange[0]!r} too")


def through_remote(settings: Settings, *words: str, watch: Watch = ignored) -> None:
    """Raises InputError where the remote does not answer."""
    try:
        dvc(settings, *words, watch=watch)
    except TandemError as error:
        raise InputError(
            f"dvc {' '.join(words)}: {error}; see that the DVC remote is there and may be used: dvc remote list"
        ) from error
