"""Real DVC, MLflow, LanceDB, PEFT and Prefect on the tiny world. The states that tests start from are made once per session,
by the real flows, and copied."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from looking import World

SECONDS = 1200  # the first test waits for the whole of `world`, which takes minutes where others share the cores
RULES = {"ends": {"pattern": "$"}, "json": {"json_schema": {"type": "object"}}, "few": {"function": "checks.words.few"}}
THIRD_PARTY = (
    "ignore:.*Any type hint is inferred as AnyType:UserWarning",  # of MLflow's own models, at its import
    "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning",  # PEFT asks transformers by the old name
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if item.path.is_relative_to(here):
            item.add_marker(pytest.mark.pipeline)
            item.add_marker(pytest.mark.timeout(SECONDS))
            for warning in THIRD_PARTY:
                item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(scope="session")
def prefect() -> Iterator[None]:
    """One server for all flows of the session; a flow on its own would start one each time."""
    from prefect.testing.utilities import prefect_test_harness

    with prefect_test_harness(server_startup_timeout=180):
        yield


@pytest.fixture(scope="session")
def world(prefect: None, tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, tiny_embedder: Path) -> World:
    folder = tmp_path_factory.mktemp("world")
    days = {day: tiny.write_corpus(folder / f"day-{day}", day) for day in (1, 2)}
    first = tiny.make_clone(folder / "first", tiny_base, tiny_embedder)
    write_rules(first)
    first_outcome = make_first(first, days[1])
    second = tiny.copy_clone(first, folder / "second")
    interrupt_second(second, days[2])
    ready = tiny.copy_clone(second, folder / "ready")
    with tiny.inside(second):
        from flows.refresh import refresh

        second_outcome = refresh()
    return World(folder, first, first_outcome, ready, second, second_outcome)


def write_rules(clone: Path) -> None:
    """One of each kind, and a metric that needs the embedder."""
    tiny.change_params(clone, "evaluate.yaml", {"rules": RULES, "metrics": ["no_personal_data", "semantic_similarity"]})
    (clone / "checks").mkdir()
    (clone / "checks/words.py").write_text(
        "def few(question, answer, reference, passages):\n    return len(answer.split()) < 500\n", encoding="utf-8"
    )


def make_first(clone: Path, day: Path) -> dict[str, Any]:
    """A person types `dvc repro`; the flow then finds everything done."""
    from flows.ingest import ingest
    from flows.release import release

    with tiny.inside(clone):
        ingest([str(day / "documents")], str(day / "questions.jsonl"))
    done = tiny.dvc(clone, "repro")
    assert done.returncode == 0, done.stdout + done.stderr
    with tiny.inside(clone):
        return dict(release())


def interrupt_second(clone: Path, day: Path) -> None:
    """A refresh that dies when all is measured and nothing is sealed."""
    from flows.ingest import ingest
    from flows.refresh import refresh
    from tasks.failpoints import PASSAGES

    with tiny.inside(clone):
        ingest([str(day / "documents")], str(day / "questions.jsonl"))
        PASSAGES.clear()
        os.environ["TANDEM_FAILPOINT"] = "promotion.before-seal:raise"
        with pytest.raises(RuntimeError, match="before-seal"):
            refresh()


@pytest.fixture
def copy(world: World, tmp_path: Path) -> Iterator[Callable[[Path], Path]]:
    """A copy of a state, in which this process then is."""
    with tiny.inside(tmp_path):

        def enter(state: Path) -> Path:
            clone = tiny.copy_clone(state, tmp_path / state.name)
            os.chdir(clone)
            return clone

        yield enter
