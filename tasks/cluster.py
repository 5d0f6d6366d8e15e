"""Ray Data: work on many machines, by the cluster that RAY_ADDRESS names, else by a Ray of this machine while the work lasts."""

import logging
import signal
import threading
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

from tasks.errors import InputError, TandemError

if TYPE_CHECKING:
    import pyarrow as pa

DEATHS = 3  # of a worker that are mended; Ray would go on for ever, with a file that kills who reads it


def on_ray(
    worker: type, arguments: tuple[Any, ...], tables: Iterable["pa.Table"], doing: str, mend: str, gpus: bool = False
) -> Generator["pa.Table"]:
    """What `worker(*arguments)` makes of each table, in the order in which they are ready. No table, no Ray.

    A worker is a process of the cluster for as long as this lasts: one per GPU where there are any and it wants one, else one per
    processor. A table is held by the cluster as soon as it is taken. Raises TandemError: `doing` failed, why, how to `mend` it.
    """
    tables = iter(tables)
    first = list(islice(tables, 1))
    if not first:
        return
    with cluster() as ray:
        try:
            blocks = [ray.put(table) for table in chain(first, tables)]
            yield from mapped(ray, blocks, worker, arguments, gpus).iter_batches(batch_size=None, batch_format="pyarrow")
        except ray.exceptions.RayError as error:
            said = str(error).strip().splitlines()[-1]  # after pages of Ray's own
            raise TandemError(f"{doing} on Ray failed ({said}); {mend}") from error


def mapped(ray: Any, blocks: list[Any], worker: type, arguments: tuple[Any, ...], gpus: bool) -> Any:
    resources = ray.cluster_resources()
    cards = int(resources.get("GPU", 0)) if gpus else 0
    return ray.data.from_arrow_refs(blocks).map_batches(  # a table is a block, a block without a batch size one call
        worker,
        fn_constructor_args=arguments,
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=1,
        num_gpus=1 if cards else 0,
        max_restarts=DEATHS,
        max_task_retries=DEATHS,
        compute=ray.data.ActorPoolStrategy(size=min(len(blocks), cards or int(resources["CPU"]))),
    )


@contextmanager
def cluster() -> Iterator[Any]:
    """Ray, connected."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError(
            "params say engine: ray, and Ray is not installed: pip install 'tandem[ray]', or set engine: local"
        ) from error

    ours = not ray.is_initialized()
    if ours:
        before = signal.getsignal(signal.SIGTERM)
        ray.init(log_to_driver=False, logging_level="ERROR")
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)  # Ray takes it; a flow that is cancelled has its own
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    ray.data.DataContext.get_current().enable_progress_bars = False
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()
