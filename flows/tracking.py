"""The MLflow edge: a run per flow run, a child run per executed stage. Run ids are passed, never taken from the thread:
a Prefect task on another thread would silently open a run of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flows.guard import born
from flows.pipeline import read_lock
from flows.settings import Settings, shown
from tasks.errors import InputError
from tasks.page_rows import right
from tasks.params import ARMS
from tasks.records import Record, flat, read_json

if TYPE_CHECKING:
    from mlflow import MlflowClient

HOST, PID, BORN, FLOW_RUN = "tandem.host", "tandem.pid", "tandem.born", "tandem.flow_run"
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # else the UI guesses, and opens on traces, of which there are none
    "mlflow.note.content": "A run per flow run, below it one per stage that executed. Releases are versions of `assistant`.",
}


@lru_cache(maxsize=1)
def client(tracking_uri: str) -> "MlflowClient":
    import mlflow

    mlflow.set_tracking_uri(tracking_uri)
    return mlflow.MlflowClient(tracking_uri=tracking_uri)


def database_error(uri: str, error: Exception) -> InputError:
    return InputError(
        f"MLflow at {shown(uri)} cannot be opened: {str(error).splitlines()[0]}. A database made by a newer MLflow needs that "
        "MLflow: upgrade with `make setup`, or point MLFLOW_TRACKING_URI elsewhere"
    )


def experiment_id(settings: Settings) -> str:
    """The project's experiment; its artifact place is set when it is made, or it would be the folder we happen to be in."""
    from mlflow.exceptions import MlflowException

    mlflow = client(settings.tracking_uri)
    try:
        found = mlflow.get_experiment_by_name(settings.project)
    except MlflowException as error:
        raise database_error(settings.tracking_uri, error) from error
    if found:
        return str(found.experiment_id)
    return str(mlflow.create_experiment(settings.project, settings.artifacts or None, tags=EXPERIMENT_TAGS))


@contextmanager
def flow_run(settings: Settings, flow: str, tags: Mapping[str, str]) -> Iterator[str]:
    """The MLflow run of one flow run: FINISHED, or FAILED with the error's text; KILLED by the next flow if this process dies."""
    mlflow = client(settings.tracking_uri)
    name = f"{flow} {time.strftime('%Y-%m-%d %H:%M:%S')}"
    owner = {HOST: socket.gethostname(), PID: str(os.getpid()), BORN: born(os.getpid())}
    every = {"flow": flow, **owner, **own_flow_run(), **code_revision(settings.root), **tags}
    run_id = mlflow.create_run(experiment_id(settings), run_name=name, tags=every).info.run_id
    log_snapshot(settings, run_id)
    try:
        yield run_id
    except BaseException as error:
        mlflow.set_tag(run_id, "error", str(error)[:4000])
        mlflow.set_terminated(run_id, "FAILED")
        raise
    mlflow.set_terminated(run_id, "FINISHED")


def own_flow_run() -> dict[str, str]:
    """Of Prefect, for the next session, should this process be killed together with its worker."""
    if "prefect" not in sys.modules:
        return {}
    from prefect.runtime import flow_run

    return {FLOW_RUN: str(flow_run.id)} if flow_run.id else {}


def prefect_run(settings: Settings, run_id: str) -> str | None:
    """The id of the flow run of Prefect that an MLflow run belongs to."""
    tag: str | None = client(settings.tracking_uri).get_run(run_id).data.tags.get(FLOW_RUN)
    return tag


def code_revision(root: Path) -> dict[str, str]:
    """The commit of the code, and whether files differ from it. Without git, or outside a clone, that is what the tag says."""
    try:
        done = [
            subprocess.run(["git", *words], cwd=root, text=True, capture_output=True, check=False)
            for words in (["rev-parse", "HEAD"], ["status", "--porcelain", "--untracked-files=no"])
        ]
    except FileNotFoundError:
        return {"code": "unknown: git is not installed"}
    if any(each.returncode for each in done):
        return {"code": "unknown: not a git clone"}
    return {
        "mlflow.source.git.commit": done[0].stdout.strip(),
        "code": "changed since the commit" if done[1].stdout else "as committed",
    }


def log_snapshot(settings: Settings, run_id: str) -> None:
    """Params and data version as they were when the flow began, whatever becomes of it."""
    mlflow = client(settings.tracking_uri)
    mlflow.log_artifacts(run_id, str(settings.root / "params"), "snapshot/params")
    for path in (settings.root / "dvc.lock", settings.root / "data/raw.dvc"):
        if path.exists():
            mlflow.log_artifact(run_id, str(path), "snapshot")


def belongs_to(settings: Settings, run_id: str, parent: str) -> None:
    """Show a run below another one of the same server; where that has no such run, it stands alone."""
    from mlflow.exceptions import MlflowException

    mlflow = client(settings.tracking_uri)
    try:
        mlflow.get_run(parent)
    except MlflowException:
        return
    mlflow.set_tag(run_id, "mlflow.parentRunId", parent)


@contextmanager
def stage_run(settings: Settings, parent: str, stage: str) -> Iterator[str]:
    """A child run for one executed stage, with its params; metrics and inputs follow when it has ended."""
    mlflow = client(settings.tracking_uri)
    tags = {"mlflow.parentRunId": parent, "stage": stage}
    run_id = mlflow.create_run(experiment_id(settings), run_name=stage, tags=tags).info.run_id
    try:
        yield run_id
    except BaseException as error:
        mlflow.set_tag(run_id, "error", str(error)[:4000])
        mlflow.set_terminated(run_id, "FAILED")
        raise
    mlflow.set_terminated(run_id, "FINISHED")


def dead_runs(settings: Settings) -> list[str]:
    """A killed process leaves its run RUNNING for ever: the runs of this host whose process is gone."""
    query = f"attributes.status = 'RUNNING' and tags.`{HOST}` = '{socket.gethostname()}'"
    found = client(settings.tracking_uri).search_runs([experiment_id(settings)], query)
    return [run.info.run_id for run in found if not alive(int(run.data.tags[PID]), run.data.tags.get(BORN))]


def end_dead_runs(settings: Settings) -> list[str]:
    """Mark them, and the child runs of their stages, KILLED."""
    mlflow, dead = client(settings.tracking_uri), dead_runs(settings)
    children = [child.info.run_id for run_id in dead for child in running_children(settings, run_id)]
    for run_id in [*dead, *children]:
        mlflow.set_terminated(run_id, "KILLED")
    return dead


def running_children(settings: Settings, run_id: str) -> list[Any]:
    query = f"attributes.status = 'RUNNING' and tags.`mlflow.parentRunId` = '{run_id}'"
    return list(client(settings.tracking_uri).search_runs([experiment_id(settings)], query))


def alive(pid: int, was_born: str | None) -> bool:
    """A run from before births were noted counts as alive as long as anything has its number."""
    now = born(pid)
    return bool(now) and was_born in (None, now)


def log_stage(settings: Settings, run_id: str, stage: str) -> None:
    """Params, metrics, curves and dataset inputs of a stage, as its dvc.lock entry and its files give them."""
    entry = read_lock(settings.root)["stages"].get(stage, {})
    log_params(settings, run_id, {f"{Path(file).stem}.{key}": value for file, values in entry.get("params", {}).items()
                                  for key, value in flat(values).items()})  # fmt: skip
    log_inputs(settings, run_id, entry.get("deps", []))
    metrics = settings.root / f"data/metrics/{stage}.json"
    if metrics.exists():
        log_metrics(settings, run_id, numbers(read_json(metrics)))
        client(settings.tracking_uri).log_artifact(run_id, str(metrics))


def log_params(settings: Settings, run_id: str, params: Mapping[str, Any]) -> None:
    from mlflow.entities import Param

    client(settings.tracking_uri).log_batch(
        run_id, params=[Param(metric_name(key), str(value)[:6000]) for key, value in params.items()]
    )


def log_metrics(settings: Settings, run_id: str, values: Mapping[str, float], step: int = 0) -> None:
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    metrics = [Metric(metric_name(key), value, now, step) for key, value in values.items()]
    client(settings.tracking_uri).log_batch(run_id, metrics=metrics)


def metric_name(key: str) -> str:
    """MLflow refuses `@` and `+`, in which our arms and metrics are rich."""
    return key.replace("@", "_at_").replace("+", "_and_")


def log_inputs(settings: Settings, run_id: str, deps: list[dict[str, Any]]) -> None:
    """Data dependencies with their DVC digests, so that a run names the bytes it read."""
    from mlflow.data.meta_dataset import MetaDataset
    from mlflow.data.sources import LocalArtifactDatasetSource
    from mlflow.entities import DatasetInput, InputTag

    inputs = []
    for dep in deps:
        if dep["path"].startswith("data/") and "md5" in dep:
            source = LocalArtifactDatasetSource(str(settings.root / dep["path"]))
            dataset = MetaDataset(source, name=dep["path"], digest=dep["md5"][:36])
            inputs.append(DatasetInput(dataset._to_mlflow_entity(), [InputTag("mlflow.data.context", "stage input")]))
    if inputs:
        client(settings.tracking_uri).log_inputs(run_id, inputs)


def log_answers(settings: Settings, run_id: str, answers: list[Record], served: str) -> None:
    """One row per question, a column per arm; first what the arm to be served says. MLflow compares the tables of several runs by
    question, and opens on the second column."""
    rows: dict[str, dict[str, Any]] = {}
    for record in answers:
        row = rows.setdefault(record["question"], {"question": record["text"], "reference": record["reference"], "right": []})
        row |= {record["arm"]: record["answer"], "page": record["document"] or "", "id": record["question"]}
        row["right"] += [record["arm"]] if right(record) else []
        if record["arm"] == served:
            row |= {"served": record["answer"], "passages": given(record)}
    arms = sorted({record["arm"] for record in answers}, key=ARMS.index)
    columns = ["question", "served", "reference", "right", *arms, "passages", "page", "id"]
    table = {column: [text(row.get(column, "")) for row in rows.values()] for column in columns}
    client(settings.tracking_uri).log_table(run_id, table, "answers.json")


def given(record: Record) -> list[str]:
    return [f"{passage['document']} ({passage['score']:.3f})" for passage in record.get("passages") or []]


def text(value: str | list[str]) -> str:
    return value if isinstance(value, str) else ", ".join(value)


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The plain numbers of a metrics file; curves (lists) were logged while they happened."""
    return {key: float(value) for key, value in flat(values).items() if isinstance(value, int | float)}
