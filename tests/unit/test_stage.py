import errno
import json
import os
import re
from pathlib import Path

import pytest

from flows.pipeline import point
from tasks.errors import ConflictError, InputError, RefusedError
from tasks.params import ChunksParams
from tasks.params_files import load
from tasks.records import write_text
from tasks.stage import arguments, fresh_folder, measure, run_stage

SHIPPED = Path(__file__).parents[2] / "params"


def cut(raw_text: Path, out: Path, store: str, params: ChunksParams) -> None:
    """Cuts."""
    out.write_text(f"{raw_text.name} {store} {params.max_words}")


@pytest.fixture
def workplace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params").symlink_to(SHIPPED)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_stages_signature_gives_its_flags_and_its_params(workplace: Path) -> None:
    given = arguments(cut, ["--raw-text", "a", "--out", "b", "--store", "c"])
    assert given == {"raw_text": Path("a"), "out": Path("b"), "store": "c", "params": load(ChunksParams, SHIPPED)}
    run_stage(cut, ["--raw-text", "a", "--out", "b", "--store", "c"])
    assert Path("b").read_text() == f"a c {load(ChunksParams, SHIPPED).max_words}"


@pytest.mark.parametrize("words", [[], ["--raw-text", "a"], ["--raw-text", "a", "--out", "b", "--store", "c", "--params", "d"]])
def test_a_missing_or_unknown_flag_is_a_mistake_of_usage(workplace: Path, words: list[str]) -> None:
    with pytest.raises(SystemExit) as found:
        arguments(cut, words)
    assert found.value.code == 2


@pytest.mark.parametrize(("error", "code"), [(InputError, 2), (RefusedError, 3), (ConflictError, 1)])
def test_an_error_meant_for_a_person_becomes_one_sentence_and_an_exit_code(
    error: type[Exception], code: int, capsys: pytest.CaptureFixture[str]
) -> None:
    def stage() -> None:
        raise error("the flour is out; buy some")

    with pytest.raises(SystemExit) as found:
        run_stage(stage, [])
    assert found.value.code == code
    assert capsys.readouterr().err == "stage: the flour is out; buy some\n"


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (errno.ENOSPC, r"no space left for {file}; free some \(\d+ MB are free at {folder}\), then run the same command again"),
        (errno.EDQUOT, r"no space left for {file}"),
        (errno.EACCES, r"permission denied: {file}\. Give yourself the right to it"),
        (errno.EROFS, r"{file} is on a read-only file system; mount it writable"),
        (errno.EMFILE, r"too many open files; raise the limit \(ulimit -n"),
    ],
)
def test_what_the_machine_refuses_a_stage_is_told_with_the_file_and_what_mends_it(
    number: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """F35, F36. Also for `dvc repro` typed by hand."""
    file = tmp_path / "passages.jsonl"

    def stage() -> None:
        raise OSError(number, os.strerror(number), str(file))

    with pytest.raises(SystemExit) as found:
        run_stage(stage, [])
    assert found.value.code == 1
    assert re.match("stage: " + said.format(file=file, folder=tmp_path), capsys.readouterr().err)


def test_a_stage_on_a_really_full_disk_says_so_and_leaves_what_was_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written = tmp_path / "counts.json"
    written.write_text("before")
    (tmp_path / f".counts.json.{os.getpid()}.tmp").symlink_to("/dev/full")

    def stage() -> None:
        write_text(written, "after" * 10_000)

    with pytest.raises(SystemExit):
        run_stage(stage, [])
    assert re.search(r"no space left for .*free some \(\d+ MB are free", capsys.readouterr().err)
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [("counts.json", "before")]


@pytest.mark.parametrize(("before", "after"), [(None, "1000"), ("0", "0")])
def test_threads_soon_wait_asleep_unless_a_person_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, before: str | None, after: str
) -> None:
    """Before the stage begins, which is what imports torch."""
    monkeypatch.setenv("GOMP_SPINCOUNT", before) if before else monkeypatch.delenv("GOMP_SPINCOUNT", raising=False)
    seen = []

    def stage() -> None:
        seen.append(os.environ["GOMP_SPINCOUNT"])

    run_stage(stage, [])
    assert seen == [after]


def test_a_mistake_of_ours_keeps_its_traceback() -> None:
    def stage() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        run_stage(stage, [])


def test_what_a_stage_writes_is_for_this_user_alone(workplace: Path) -> None:
    run_stage(cut, ["--raw-text", "a", "--out", "b", "--store", "c"])
    assert Path("b").stat().st_mode & 0o077 == 0


def test_an_output_folder_is_emptied_first(tmp_path: Path) -> None:
    (tmp_path / "out/deep").mkdir(parents=True)
    (tmp_path / "out/deep/old").write_text("old")
    assert list(fresh_folder(tmp_path / "out").iterdir()) == []
    assert list(fresh_folder(tmp_path / "new/out").iterdir()) == []


def test_a_measured_point_reaches_whoever_watches(capsys: pytest.CaptureFixture[str]) -> None:
    measure(7, train_loss=0.5, learning_rate=1e-5)
    line = capsys.readouterr().out.rstrip("\n")
    assert point(line) == (7, {"train_loss": 0.5, "learning_rate": 1e-5})
    assert point("epoch 7, loss 0.5") is None
    assert json.loads(line.split(" ", 1)[1])["step"] == 7
