"""kill -9 at every failpoint of the path from an ingest to a release, a rollback and a maintenance, without a model (standins).

Two cases at a time, as most of each is waiting for a process to start or for the disk; a test each tells what became of it.
"""

import signal
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import pytest
from dying import returncode_of
from fault_cases import FAILPOINTS, RUNS, aftermath, copy_world, fail_at, make_world, run_of

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def cases(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path
) -> Iterator[dict[str, "Future[None]"]]:
    folder = tmp_path_factory.mktemp("faults")
    world = make_world(folder, mlflow_database)
    selected = [name for name in FAILPOINTS if any(f"[{name}]" in item.name for item in request.session.items)]
    with ThreadPoolExecutor(2) as pool:
        yield {name: pool.submit(killed(world, folder / name), name) for name in selected}
        pool.shutdown(cancel_futures=True)


def killed(world: Path, folder: Path) -> Callable[[str], None]:
    def case(name: str) -> None:
        clone = copy_world(world, folder)
        assert returncode_of(fail_at, str(clone), name, f"{name}:kill") == -signal.SIGKILL, "nothing passed it: see run_of"
        aftermath(clone, name)

    return case


def test_there_are_failpoints_in_every_part_of_the_path() -> None:
    assert len(FAILPOINTS) >= 50
    assert {run_of(name) for name in FAILPOINTS} == set(RUNS)


@pytest.mark.parametrize("name", FAILPOINTS)
def test_after_kill_9_a_whole_release_answers_and_the_next_run_finishes(cases: dict[str, "Future[None]"], name: str) -> None:
    cases[name].result()
