import os
import sys
import time
from pathlib import Path

import pytest
import tiny
import yaml
from workspace import settings_of

from flows import pipeline
from flows.pipeline import check_metadata, dvc_error, plain_reasons, stage_error, stage_order, stale_stages, watched
from flows.settings import Settings, child_environment
from tasks.errors import ConflictError, InputError, TandemError


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The graph and the code, no data."""
    for name in ("base", "embedder"):
        (tmp_path / name).mkdir()
    made = tiny.make_clone(tmp_path / "clone", tmp_path / "base", tmp_path / "embedder")
    os.environ.update(child_environment(settings_of(made)))  # DVC's caches go into the clone; restored after the test
    return made


@pytest.fixture
def settings(clone: Path) -> Settings:
    return settings_of(clone)


def test_the_order_of_the_stages_is_one_in_which_each_follows_what_it_needs(clone: Path) -> None:
    order = stage_order(clone, "evaluate")
    assert len(order) == 9 and order[-1] == "evaluate"
    graph = yaml.safe_load((clone / "dvc.yaml").read_text())["stages"]
    made_by = {out: stage for stage, entry in graph.items() for out in entry["outs"] if isinstance(out, str)}
    for stage, entry in graph.items():
        for dep in entry["deps"]:
            makers = [maker for out, maker in made_by.items() if f"{dep}/".startswith(f"{out}/")]
            assert all(order.index(maker) < order.index(stage) for maker in makers)
    assert "adapter" not in stage_order(clone, "retrieval")


@pytest.mark.parametrize("place", [".", "params", ".."])
def test_the_folder_that_a_person_stands_in_does_not_matter(clone: Path, monkeypatch: pytest.MonkeyPatch, place: str) -> None:
    monkeypatch.chdir(clone / place)
    assert stage_order(clone, "chunks") == ["documents", "chunks"]
    assert "chunks" in stale_stages(clone)
    assert Path.cwd() == (clone / place).resolve()


def test_without_a_corpus_a_person_is_told_to_ingest_one(clone: Path) -> None:
    with pytest.raises(InputError, match=r"there is no corpus yet.*tandem ingest"):
        pipeline.run_stage(settings_of(clone), "documents", [], print, lambda pid: None)


def test_a_stage_that_never_ran_says_so_and_a_changed_param_is_named(clone: Path) -> None:
    tiny.write_corpus(clone / "data/raw")
    assert {reason for why in stale_stages(clone).values() for reason in why} == {"has not run yet"}
    done = tiny.dvc(clone, "repro", "documents")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "documents" not in stale_stages(clone)
    tiny.change_params(clone, "documents.yaml", {"max_megabytes": 21})
    assert stale_stages(clone)["documents"] == ["params/documents.yaml: max_megabytes modified"]
    page = clone / "data/raw/documents/oven/proofer.txt"
    page.write_text(page.read_text() + "\nMore.\n")
    assert "data/raw/documents modified" in stale_stages(clone)["documents"]


def test_dvcs_nested_status_becomes_sentences() -> None:
    changes = [
        {"changed deps": {"data/chunks": "modified", "params/adapter.yaml": {"rank": "modified", "seed": "new"}}},
        {"changed outs": {"data/adapter": "deleted"}},
        "changed command",
    ]
    assert list(plain_reasons(changes)) == [
        "data/chunks modified", "params/adapter.yaml: rank modified", "params/adapter.yaml: seed new", "data/adapter deleted",
        "changed command",
    ]  # fmt: skip


@pytest.mark.parametrize("name", ["data/raw.dvc", "dvc.lock"])
def test_a_file_that_an_interrupted_command_left_empty_is_named_before_dvc_reads_it_as_nothing(tmp_path: Path, name: str) -> None:
    (tmp_path / "data").mkdir()
    check_metadata(tmp_path)
    (tmp_path / name).write_text("")
    with pytest.raises(InputError, match=f"{name} is empty .*tandem ingest"):
        check_metadata(tmp_path)


def test_an_empty_lock_of_dvc_is_removed_and_a_held_one_stays(tmp_path: Path) -> None:
    lock = tmp_path / ".dvc/tmp/rwlock"
    lock.parent.mkdir(parents=True)
    lock.write_text("")
    check_metadata(tmp_path)
    assert not lock.exists()
    lock.write_text("{}")
    check_metadata(tmp_path)
    assert lock.exists()


def test_errors_of_dvc_get_the_meaning_that_they_have_here() -> None:
    assert isinstance(dvc_error(Exception("'data/chunks' is busy, it is being blocked by")), ConflictError)
    assert "tandem ingest" in str(dvc_error(Exception("missing data 'source': data/raw/documents")))
    assert str(dvc_error(ValueError())) == "DVC: ValueError"
    assert isinstance(dvc_error(Exception("nonsense")), InputError)


def test_a_stages_own_last_words_are_the_message() -> None:
    said = "index: the corpus has no passages; ingest documents that hold text"
    noise = ["Running stage 'index':", "> python -m tasks.index", '@measure {"step": 1}', "ERROR: failed to reproduce 'index'"]
    lines = [*noise[:2], said, *noise[2:]]
    error = stage_error(lines)
    assert isinstance(error, InputError)
    assert str(error) == said
    assert type(stage_error(["Traceback (most recent call last):", "KeyError: 'x'"])) is TandemError
    assert isinstance(stage_error(["ERROR: 'data/x' is busy"]), ConflictError)


def command(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_lines_arrive_while_the_process_still_runs_and_bytes_that_are_no_text_do_no_harm(settings: Settings) -> None:
    seen: list[str] = []
    code = r"import sys, os; os.write(1, b'one\n\xff two\n'); sys.stderr.write('three\n')"
    assert list(watched(command(code), settings, seen.append)) == seen == ["one", "\ufffd two", "three"]


def test_a_failing_process_raises_what_it_said(settings: Settings) -> None:
    with pytest.raises(InputError, match="the flour is out"):
        list(watched(command("print('the flour is out'); raise SystemExit(2)"), settings, lambda line: None))


def test_whoever_stops_watching_stops_the_process_and_its_children(settings: Settings) -> None:
    started: list[int] = []
    child = "import time; time.sleep(600)"
    code = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {child!r}]); print('up', flush=True); {child}"
    lines = watched(command(code), settings, lambda line: None, started.append)
    assert next(lines) == "up"
    lines.close()  # type: ignore[attr-defined]
    assert group_is_gone(started[0])


def group_is_gone(group: int, seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        states = [path.read_text().rsplit(")", 1)[1].split() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
        if not any(int(state[2]) == group and state[0] != "Z" for state in states):
            return True
        time.sleep(0.05)
    return False
