"""A flow that would find nothing new ends at once, and only where all that it goes by is as it was: every change is planted."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import tiny
from workspace import EMBEDDER, candidate_of, change, judged, settings_of, write_workspace

from flows import glance, ledger, listing, pipeline, promotion, registry, standstill, tracking
from flows.ledger import Draft
from flows.outcome import Outcome
from flows.session import Session
from flows.settings import Settings, prepare
from flows.standstill import Watched, keep, note, recall, standing, unless_settled
from tasks.errors import IntegrityError
from tasks.records import folder_digest, read_json, write_json, write_text

# MLflow infers schemas of its own models at its import
pytestmark = pytest.mark.filterwarnings("ignore:.*Any type hint is inferred as AnyType:UserWarning")
Change = Callable[[Settings], AbstractContextManager[None]]
WATCHED = Watched()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, mlflow_database: Path) -> Settings:
    """Release 1 is live. Its table is files of which Lance knows nothing."""
    root = tmp_path_factory.mktemp("world") / "clone"
    root.mkdir()
    write_workspace(root)
    change(root / "data/index/manifest.json", embedder=EMBEDDER | {"digest": folder_digest(root / "data/models/embedder")})
    shutil.copytree(tiny.ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    write_text(root / "data/raw/documents/page-1.md", "a")
    write_text(root / "data/raw.dvc", f"outs:\n- md5: {'0' * 32}.dir\n  hash: md5\n  path: raw\n")
    with tiny.inside(root):
        settings = settings_of(root)
        prepare(settings)
        shutil.copyfile(mlflow_database, settings.home / "mlflow.db")
        write_table(settings)
        judgement = judged(settings)
        evidence = promotion.seal(settings, candidate_of(root), judgement)
        with tracking.flow_run(settings, "release", {}) as run_id:
            version = promotion.register(settings, judgement, run_id)
            promotion.commit(settings, judgement, version, evidence, {"mlflow": run_id})
        promotion.follow_ledger(settings)
        with pipeline.repository(root) as repo:
            WATCHED.look(repo)
    return settings


def write_table(settings: Settings) -> None:
    table = Path(settings.index_uri) / "t.lance"
    write_json(table / "_refs/tags/r.json", {"version": 1})
    write_text(table / f"_versions/{2**64 - 2}.manifest", "rows.lance")
    write_text(table / "data/rows.lance", "three rows")
    listing.note(settings, {"table": "t", "tag": "r"})


@pytest.fixture
def settled(world: Settings) -> Iterator[Settings]:
    """As after a run that found nothing new."""
    with tiny.inside(world.root):
        prepare(world)
        as_now = Watched(WATCHED.paths, glance.look(WATCHED.paths))
        keep(world, "refresh", standing(world, ledger.read(world.ledger)), as_now)
        assert recall(world, "refresh") is not None
        yield world


# --- Changes, each undone afterwards


@contextmanager
def put_back(path: Path) -> Iterator[Path]:
    before, status = path.read_bytes(), path.stat()
    path.chmod(0o600)
    try:
        yield path
    finally:
        path.write_bytes(before)
        path.chmod(status.st_mode & 0o777)


def edited(name: str) -> Change:
    @contextmanager
    def planted(settings: Settings) -> Iterator[None]:
        with put_back(settings.root / name) as path:
            path.write_bytes(path.read_bytes() + b"\n")
            yield

    return planted


def made(name: str) -> Change:
    @contextmanager
    def planted(settings: Settings) -> Iterator[None]:
        write_text(settings.root / name, "")
        yield
        (settings.root / name).unlink()

    return planted


def rotten(name: str) -> Change:
    """A byte went bad on the disk: inode, size and time are as they were."""

    @contextmanager
    def planted(settings: Settings) -> Iterator[None]:
        with put_back(next(settings.home.glob(name))) as path:
            content, status = path.read_bytes(), path.stat()
            path.write_bytes(bytes([content[0] ^ 1]) + content[1:])
            os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
            yield

    return planted


def gone(name: str) -> Change:
    @contextmanager
    def planted(settings: Settings) -> Iterator[None]:
        path = next(settings.home.glob(name))
        path.rename(settings.home / "gone")
        yield
        (settings.home / "gone").rename(path)

    return planted


@contextmanager
def moved_tag(settings: Settings) -> Iterator[None]:
    with put_back(Path(settings.index_uri) / "t.lance/_refs/tags/r.json") as path:
        write_json(path, {"version": 2})
        yield


@contextmanager
def evidence_gone(settings: Settings) -> Iterator[None]:
    with gone(f"store/files/{ledger.read(settings.ledger)[0].evidence['verdict']}")(settings):
        yield


@contextmanager
def another_promoter(settings: Settings) -> Iterator[None]:
    """A refusal is the least that one writes; a promotion, a rollback, an erasure are entries as well."""
    newest = ledger.read(settings.ledger)[-1]
    known = newest.model_dump(exclude={"format", "sequence", "previous", "digest"})
    entry = ledger.append(settings.ledger, Draft(**known | {"action": "refuse", "candidate": "c" * 64}), newest.sequence)
    yield
    (settings.ledger / ledger.file_name(entry.sequence)).unlink()


@contextmanager
def other_code(settings: Settings) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        shutil.copytree(tiny.ROOT / "flows", settings.home / "code/flows", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(tiny.ROOT / "tasks", settings.home / "code/tasks", ignore=shutil.ignore_patterns("__pycache__"))
        patch.setattr(standstill, "CODE", settings.home / "code")
        assert recall(settings, "refresh"), "the same code elsewhere is the same"
        (settings.home / "code/flows/promotion.py").write_text("")
        yield
    shutil.rmtree(settings.home / "code")


@contextmanager
def a_library_installed(settings: Settings) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(standstill.sysconfig, "get_path", lambda name: str(settings.home))
        yield


CHANGES: dict[str, Change] = {
    "a new page": made("data/raw/documents/page-2.md"),
    "an edited page": edited("data/raw/documents/page-1.md"),
    "the thresholds of the gate": edited("params/gate.yaml"),
    "params that no stage reads": edited("params/judge.yaml"),
    "dvc.lock": edited("dvc.lock"),
    "the graph": edited("dvc.yaml"),
    "an output of a stage": edited("data/evaluation/report.json"),
    "an adapter left by a retrain": edited("data/adapter/adapter_config.json"),
    "an ingest that died": made("data/.raw.old"),
    "an erasure that is not finished": made(".tandem/erasing/e.json"),
    "a piece of the live release": rotten("store/objects/*/model.safetensors"),
    "its adapter": rotten("store/objects/*/adapter_model.safetensors"),
    "a piece that is gone": gone("store/objects/*/adapter_config.json"),
    "a file of its index": rotten("index/t.lance/data/rows.lance"),
    "the tag of its index": moved_tag,
    "a torn version of its table": made(".tandem/index/t.lance/_versions/1.manifest"),
    "the list of its index": gone("store/index/*.json"),
    "evidence in the store": evidence_gone,
    "the ledger": another_promoter,
    "the code": other_code,
    "a library": a_library_installed,
}


@pytest.mark.parametrize("planted", CHANGES.values(), ids=CHANGES.keys())
def test_whatever_a_flow_goes_by_makes_it_go_through_all_of_it_again(settled: Settings, planted: Change) -> None:
    with planted(settled):
        assert recall(settled, "refresh") is None


@pytest.mark.parametrize("other", [{"project": "another"}, {"tracking_uri": "http://127.0.0.1:9"}, {"index_uri": "s3://b/i"}])
def test_with_other_stores_it_goes_through_all_of_it(settled: Settings, other: dict[str, str]) -> None:
    assert recall(replace(settled, **other), "refresh") is None


def test_what_decides_nothing_changes_nothing(settled: Settings) -> None:
    (settled.root / "data/mine.txt").write_text("nobody reads it")
    assert recall(replace(settled, who="another", lock_wait_seconds=9.0), "refresh")


@pytest.mark.parametrize("content", ["", "{", "[]", "{}", '{"paths": 1}'])
def test_a_damaged_note_counts_for_nothing(settled: Settings, content: str) -> None:
    note(settled, "refresh").write_text(content)
    assert recall(settled, "refresh") is None


# --- A flow that uses it


class Work:
    """A flow's body that comes to `outcome`; what happens `meanwhile`, DVC looks at too late."""

    def __init__(self, outcome: str = "unchanged", meanwhile: Callable[[], object] = int) -> None:
        self.outcome, self.meanwhile, self.runs = outcome, meanwhile, list[str]()

    def __call__(self, opened: Session) -> Outcome:
        with pipeline.repository(opened.settings.root) as repo:
            opened.look(repo)
        self.meanwhile()
        self.runs.append(opened.run_id)
        return Outcome(self.outcome, 1, "r", "rag", ["it was gone through"], 1)


def forget(settings: Settings) -> None:
    note(settings, "refresh").unlink()


def test_what_found_nothing_new_ends_at_once_the_next_time_and_leaves_no_run(settled: Settings) -> None:
    forget(settled)
    work = Work()
    assert unless_settled("refresh", work).reasons == ["it was gone through"]
    database = standstill.database(settled)
    found = unless_settled("refresh", work)
    newest = ledger.read(settled.ledger)[-1]
    assert found == Outcome(
        "unchanged", 1, newest.release, "rag+lora", ["nothing new: release 1 is live and up to date"], newest.sequence
    )
    assert len(work.runs) == 1 and standstill.database(settled) == database
    assert unless_settled("release", work).reasons == ["it was gone through"], "each flow by its own note"


@pytest.mark.parametrize("outcome", ["promoted", "refused", "undecided"])
def test_only_what_found_nothing_new_is_noted(settled: Settings, outcome: str) -> None:
    """A refusal is judged again: a person is asked again, and whoever reads the list of runs sees it every day."""
    forget(settled)
    unless_settled("refresh", Work(outcome))
    assert recall(settled, "refresh") is None


def test_a_file_that_changed_while_it_was_gone_through_shows_the_next_time(settled: Settings) -> None:
    forget(settled)
    unless_settled("refresh", Work(meanwhile=(settled.root / "data/raw/documents/page-1.md").touch))
    assert recall(settled, "refresh") is None


def test_a_promoter_that_came_while_it_was_gone_through_shows_the_next_time(settled: Settings) -> None:
    forget(settled)
    came = another_promoter(settled)
    unless_settled("refresh", Work(meanwhile=came.__enter__))
    came.__exit__(None, None, None)
    assert recall(settled, "refresh") is None


def test_where_a_language_model_judges_too_it_is_asked_every_time(settled: Settings) -> None:
    forget(settled)
    with put_back(settled.root / "params/judge.yaml"):
        tiny.change_params(settled.root, "judge.yaml", {"model": "openai:/any"})
        unless_settled("refresh", Work())
        assert recall(settled, "refresh") is None


# --- What is looked at every time


def test_an_alias_that_was_moved_by_hand_is_put_right_by_a_flow_that_finds_nothing_new(settled: Settings) -> None:
    mlflow = tracking.client(settled.tracking_uri)
    mlflow.delete_registered_model_alias("assistant", "champion")
    assert recall(settled, "refresh")
    assert registry.champion_version(settled) == 1
    assert recall(settled, "refresh")  # this one finds it right, and notes the database as it is now
    assert read_json(note(settled, "refresh"))["registry"] == standstill.database(settled)


def test_an_alias_that_the_ledger_does_not_know_is_refused(settled: Settings) -> None:
    mlflow = tracking.client(settled.tracking_uri)
    run_id = mlflow.create_run(tracking.experiment_id(settled)).info.run_id
    strange = mlflow.create_model_version("assistant", "nowhere", run_id).version
    mlflow.set_registered_model_alias("assistant", "champion", strange)
    try:
        with pytest.raises(IntegrityError, match="moved by hand to version"):
            recall(settled, "refresh")
    finally:
        mlflow.set_registered_model_alias("assistant", "champion", "1")
        mlflow.delete_model_version("assistant", strange)


def test_a_run_that_a_dead_process_left_is_ended_by_a_flow_that_finds_nothing_new(settled: Settings) -> None:
    mlflow = tracking.client(settled.tracking_uri)
    with tracking.flow_run(settled, "release", {}) as dead:
        mlflow.set_tag(dead, tracking.PID, str(2**22 + 1))
        assert recall(settled, "refresh")
        assert mlflow.get_run(dead).info.status == "KILLED"


def test_a_registry_behind_a_server_is_asked_every_time(settled: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a database that is not a file says of itself is not known."""
    asked = []
    monkeypatch.setattr(standstill, "database", lambda settings: None)
    monkeypatch.setattr(standstill, "mended_registry", lambda settings: asked.append(settings.tracking_uri))
    assert recall(settled, "refresh") and recall(settled, "refresh")
    assert len(asked) == 2


def test_a_flow_that_finds_nothing_new_needs_neither_mlflow_nor_lancedb_nor_dvc(settled: Settings) -> None:
    code = (
        "import sys; from flows import standstill, refresh, release; from flows.settings import read_settings\n"
        "assert standstill.recall(read_settings(), 'refresh')\n"
        "heavy = {'mlflow', 'lancedb', 'dvc', 'torch', 'scipy', 'matplotlib', 'networkx', 'sqlalchemy', 'prefect.server'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)"
    )
    environment = tiny.outside_environment(PYTHONPATH=str(tiny.ROOT), PYTHONWARNINGS="ignore")
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=settled.root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
