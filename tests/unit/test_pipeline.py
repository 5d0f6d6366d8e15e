import os
import re
import signal
import sys
import time
from pathlib import Path

import pytest
import tiny
import yaml
from workspace import settings_of

from flows import pipeline
from flows.children import dvc_error, stage_error, watched
from flows.pipeline import StageRun, check_metadata, plain_reasons
from flows.settings import Settings, child_environment
from tasks.errors import ConflictError, InputError, PreemptedError, RefusedError, TandemError


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


def stale_stages(root: Path) -> dict[str, list[str]]:
    with pipeline.repository(root) as repo:
        return pipeline.stage_reasons(repo)


def stage_order(root: Path, target: str) -> list[str]:
    with pipeline.repository(root) as repo:
        return pipeline.order_in(repo, target)


def test_the_order_of_the_stages_is_one_in_which_each_follows_what_it_needs(clone: Path) -> None:
    order = stage_order(clone, "evaluate")
    assert len(order) == 10 and order[-1] == "evaluate"
    graph = yaml.safe_load((clone / "dvc.yaml").read_text())["stages"]
    made_by = {
        str(out if isinstance(out, str) else next(iter(out))): stage for stage, entry in graph.items() for out in entry["outs"]
    }
    for stage, entry in graph.items():
        for dep in entry["deps"]:
            makers = [maker for out, maker in made_by.items() if f"{dep}/".startswith(f"{out}/")]
            assert all(order.index(maker) < order.index(stage) for maker in makers)
    assert "adapter" not in stage_order(clone, "retrieval")


@pytest.mark.parametrize(
    ("stale", "ran", "asked"),
    [
        ({}, [], [["documents", "chunks"]]),
        ({"documents": ["params"]}, ["documents"], [["documents", "chunks"], ["chunks"]]),
        ({"chunks": ["params"]}, ["chunks"], [["documents", "chunks"]]),
    ],
)
def test_dvc_is_asked_of_all_stages_at_once_and_again_only_after_one_that_ran(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, stale: dict[str, list[str]], ran: list[str], asked: list[list[str]]
) -> None:
    questions: list[list[str]] = []

    def reasons(repo: object, stages: list[str]) -> dict[str, list[str]]:
        questions.append(stages)
        return {stage: stale[stage] for stage in stages if stage in stale}

    monkeypatch.setattr(pipeline, "stage_reasons", reasons)
    runs = pipeline.reproduce(settings, "chunks", lambda stage, why: StageRun(stage, "executed", 1.0, why), fresh_run)
    assert [run.stage for run in runs if run.outcome == "executed"] == ran and len(runs) == 2
    assert questions == asked


def fresh_run(stage: str) -> StageRun:
    return StageRun(stage, "cached")


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
    assert "tandem ingest" in str(dvc_error(Exception("missing data 'source': data/raw/documents")))
    assert str(dvc_error(ValueError())) == "DVC: ValueError"
    assert isinstance(dvc_error(Exception("nonsense")), InputError)


def test_a_stages_own_last_words_are_the_message() -> None:
    said = "index: the corpus has no passages; ingest documents that hold text"
    noise = ["Running stage 'index':", "> python -m tasks.index", '@measure {"step": 1}', "ERROR: failed to reproduce 'index'"]
    lines = [*noise[:2], said, *noise[2:]]
    error = stage_error(lines, 2)
    assert isinstance(error, InputError)
    assert str(error) == said


def failed(status: int | str) -> list[str]:
    """What `dvc repro` prints where the command of a stage ends so."""
    command = "python -m tasks.adapter --base data/models/base"
    ending = f"ERROR: failed to reproduce 'adapter': failed to run: {command}, exited with {status}"
    return ["Running stage 'adapter':", f"> {command}", "adapter: this is why", ending]


@pytest.mark.parametrize(
    ("status", "kind"), [(1, TandemError), (2, InputError), (3, RefusedError), (75, PreemptedError), (77, TandemError)]
)
def test_the_exit_code_of_a_stage_says_what_kind_of_error_it_is(status: int, kind: type[TandemError]) -> None:
    error = stage_error(failed(status), 255)
    assert type(error) is kind and str(error) == "adapter: this is why"
    broken = stage_error([*failed(1)[:2], "Traceback (most recent call last):", "  File x", "KeyError: 'x'", *failed(1)[3:]], 255)
    assert type(broken) is TandemError
    assert str(broken) == "stage adapter broke off: KeyError: 'x' (its traceback stands above)"


@pytest.mark.parametrize(
    "last",
    [
        "torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.00 GiB.",
        "MemoryError",
        "numpy._core._exceptions._ArrayMemoryError: Unable to allocate 3.2 GiB for an array",
        "RuntimeError: [enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.",
    ],
)
def test_a_stage_without_memory_is_told_what_takes_less(last: str) -> None:
    """F37, F38."""
    said = str(stage_error([*failed(1)[:2], "Traceback (most recent call last):", "  File x", last, *failed(1)[3:]], 255))
    assert re.match(r"stage adapter broke off: memory ran out \(.*lower batch_tokens in params/adapter.yaml", said), said


@pytest.mark.parametrize("status", [-9, 137])
def test_a_stage_that_the_kernel_killed_is_said_to_be_with_advice(status: int) -> None:
    said = str(stage_error(failed(status), 255))
    assert (
        said.startswith("stage adapter was killed (SIGKILL)")
        and "memory" in said
        and "batch_tokens" in said
        and "params/evaluate.yaml" in said
    )
    assert "crashed inside a library (SIGSEGV)" in str(stage_error(failed(-11), 255))
    assert "stopped from outside (SIGTERM)" in str(stage_error(failed(-15), 255))
    assert str(stage_error([], -9)).startswith("DVC was killed (SIGKILL)")


@pytest.mark.parametrize("path", ["data/chunks", "data/raw"])
def test_a_lock_of_dvc_is_a_conflict_whatever_it_is_about(path: str) -> None:
    busy = f"'{path}' is busy, it is being blocked by:\n  (PID 7): dvc add data/raw"
    repository = "Unable to acquire lock. Most likely another DVC process is running"
    for text in (busy, repository):
        assert isinstance(dvc_error(Exception(text)), ConflictError)
        assert isinstance(stage_error([f"ERROR: {text}"], 255), ConflictError)
    about = "documents: the page 'when the line is busy' is empty"
    assert isinstance(stage_error([about, "ERROR: failed to reproduce 'documents': exited with 2"], 255), InputError)


def test_a_stage_is_run_by_a_plain_shell_whatever_the_persons_is(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHELL", "/usr/bin/fish")
    assert list(watched(command("import os; print(os.environ['SHELL'])"), settings, lambda line: None)) == ["/bin/sh"]


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


def test_sigterm_reaches_the_stage_and_not_what_started_it(settings: Settings) -> None:
    """A shell between us, as under DVC: it has to live, to tell how the stage ended."""
    stage = "import signal, sys; signal.signal(15, lambda *_: sys.exit(75)); print('up', flush=True); signal.pause()"
    report = "ERROR: failed to reproduce 'adapter': failed to run: python, exited with"
    shell = f'{sys.executable} -c "{stage}"; code=$?; echo "progress is kept"; echo "{report} $code"; exit 255'
    lines = watched(["sh", "-c", shell], settings, lambda line: None)
    before = signal.getsignal(signal.SIGTERM)
    assert next(lines) == "up"
    os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(PreemptedError, match="progress is kept"):
        list(lines)
    assert signal.getsignal(signal.SIGTERM) is before


def group_is_gone(group: int, seconds: float = 30) -> bool:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        states = [path.read_text().rsplit(")", 1)[1].split() for path in Path("/proc").glob("[0-9]*/stat") if path.exists()]
        if not any(int(state[2]) == group and state[0] != "Z" for state in states):
            return True
        time.sleep(0.05)
    return False
