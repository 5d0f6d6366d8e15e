"""Processes that die in the middle of something. They are forked from a server that has imported and never used the libraries:
a fresh interpreter imports for two seconds, and a fork of a process that has used Lance may hang."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from typing import Any

CHILDREN = multiprocessing.get_context("forkserver")
PRELOADED = [
    "lancedb", "lancedb.remote.table", "mlflow.pyfunc", "mlflow.models.display_utils", "mlflow.tracing.export",
    "mlflow.store.tracking.sqlalchemy_store", "mlflow.store.model_registry.sqlalchemy_store", "alembic.command",
    "sqlalchemy.dialects.sqlite", "scipy.stats", "jinja2", "huggingface_hub.repocard", "huggingface_hub.hf_api",
    "scmrepo.git", "git", "dvc.repo.index", "dvc.repo.stage", "dvc.repo.artifacts", "dvc.repo.datasets", "dvc.repo.metrics",
    "dvc.repo.params", "dvc.repo.plots", "dvc.scm", "dvc.data_cloud", "dvc.cachemgr", "dvc_data.index.checkout",
    "tasks.index", "tasks.upkeep", "tasks.gate", "flows.maintain", "flows.rollback", "flows.refresh", "flows.ingest",
    "flows.refreshing", "flows.doctor", "flows.shipping", "pytest", "standins",
]  # fmt: skip
CHILDREN.set_forkserver_preload(PRELOADED)
PATIENCE = 120  # seconds


def returncode_of(work: Callable[..., object], *arguments: Any) -> int:
    """Of a child that runs `work`, a function of a module: 0, 1 where it raised, or minus the signal that ended it."""
    child = CHILDREN.Process(target=work, args=arguments)
    child.start()
    child.join(PATIENCE)
    hangs = child.is_alive()
    if hangs:
        child.kill()
    assert not hangs and child.exitcode is not None, f"{work} hangs"
    return child.exitcode


def at_once(work: Callable[..., object], given: Sequence[tuple[Any, ...]], answers: int) -> dict[Any, Any]:
    """`work` with each of these arguments, a barrier and a queue, in a process each; the (key, value) pairs put there."""
    barrier, results = CHILDREN.Barrier(len(given)), CHILDREN.Queue()
    workers = [CHILDREN.Process(target=work, args=(*arguments, barrier, results)) for arguments in given]
    for worker in workers:
        worker.start()
    found = dict(results.get(timeout=PATIENCE) for _ in range(answers))
    for worker in workers:
        worker.join()
    return found


def die_in(module: Any, name: str, before: bool = True, call: int = 1) -> None:
    """From now on the `call`-th call of module.name ends this process by kill -9, before it does anything or after all of it."""
    real, calls = getattr(module, name), []

    def dies(*arguments: object) -> object:
        calls.append(name)
        if len(calls) != call:
            return real(*arguments)
        if not before:
            real(*arguments)
        return os.kill(os.getpid(), signal.SIGKILL)

    setattr(module, name, dies)
