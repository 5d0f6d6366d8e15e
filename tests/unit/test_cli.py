import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny

from flows import commands
from flows.cli import exit_code, parser, run
from flows.commands import parse_columns
from tasks.errors import InputError

HEAVY = ("torch", "transformers", "prefect", "lancedb", "mlflow", "sentence_transformers", "datasets")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli")
    for name in ("base", "embedder"):
        (folder / name).mkdir()
    return tiny.make_clone(folder / "clone", folder / "base", folder / "embedder")


@pytest.fixture
def clone(made: Path) -> Iterator[Path]:
    """A clone in which nothing has been done; the tests here only read."""
    with tiny.inside(made):
        yield made


def loaded(clone: Path, code: str) -> list[str]:
    """Which heavy libraries a process holds after `code`."""
    script = f"{code}\nimport sys\nprint('LOADED', *[name for name in {HEAVY!r} if name in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=clone, env=tiny.outside_environment(), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-1].split()[1:]


@pytest.mark.parametrize("words", [["status"], ["plan"], ["history"], ["history", "--json"]])
def test_what_only_looks_loads_nothing_heavy(clone: Path, words: list[str]) -> None:
    assert loaded(clone, f"from flows.cli import run\nassert run({words!r}) == 0") == []


def test_importing_a_flow_loads_prefect_and_none_of_the_libraries_of_its_stages(clone: Path) -> None:
    names = [path.stem for path in sorted((tiny.ROOT / "flows").glob("*.py")) if path.stem not in ("pyfunc", "__init__")]
    assert len(names) > 20
    assert loaded(clone, "".join(f"import flows.{name}\n" for name in names)) == ["prefect"]


def test_importing_a_stage_loads_nothing_heavy(clone: Path) -> None:
    names = [path.stem for path in sorted((tiny.ROOT / "tasks").glob("*.py"))]
    assert loaded(clone, "".join(f"import tasks.{name}\n" for name in names)) == []


def test_asking_before_there_is_a_release_is_bad_usage(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", "How warm is the proofer?"]) == 2
    out = capsys.readouterr()
    assert out.out == "" and out.err == "tandem: there is no release yet; make one: tandem release\n"


def test_an_error_as_json_is_an_object_on_stdout(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["ask", "How warm is the proofer?", "--json"]) == 2
    assert json.loads(capsys.readouterr().out) == {
        "error": "there is no release yet; make one: tandem release",
        "exit_code": 2,
    }


@pytest.mark.parametrize("words", [["diff", "1", "2"], ["ask", "x", "--release", "1"]])
def test_what_needs_a_release_says_so_without_one(clone: Path, words: list[str]) -> None:
    assert run(words) == 2


def test_an_empty_history_and_status_say_what_to_do(clone: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["status"]) == run(["history"]) == 0
    assert capsys.readouterr().out.count("make a release: tandem release") == 2
    assert run(["status", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["live"] is None


@pytest.mark.parametrize("words", [[], ["frobnicate"], ["ask"], ["rollback"], ["release", "--no-such-flag"]])
def test_bad_usage_is_exit_code_2(words: list[str]) -> None:
    with pytest.raises(SystemExit) as found:
        run(words)
    assert found.value.code == 2


def test_outside_of_a_clone_a_person_is_told_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with tiny.inside(tmp_path):
        assert run(["status"]) == 2
    assert "is not inside a Tandem clone" in capsys.readouterr().err


def test_a_damaged_ledger_is_exit_code_1(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ledger").mkdir()
    (tmp_path / "ledger/000001.json").write_text("{}")
    with tiny.inside(made):
        monkeypatch.setenv("TANDEM_LEDGER", str(tmp_path / "ledger"))
        assert run(["status"]) == 1


def test_a_plan_with_a_typo_in_the_params_of_the_last_stage_names_it(
    made: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    clone = tiny.copy_clone(made, tmp_path / "clone")
    tiny.change_params(clone, "gate.yaml", {"alpha": "x"})
    with tiny.inside(clone):
        assert run(["plan"]) == 2
    assert "gate.yaml: alpha" in capsys.readouterr().err


def test_a_refusal_is_exit_code_3_and_findings_are_1() -> None:
    assert exit_code({"outcome": "refused"}) == exit_code({"outcome": "undecided"}) == 3
    assert exit_code({"outcome": "promoted"}) == exit_code({"outcome": "unchanged"}) == 0
    assert exit_code({"findings": [], "mended": ["x"]}) == exit_code([]) == exit_code({}) == 0
    assert exit_code({"findings": [{}]}) == 1


def test_columns_are_pairs() -> None:
    assert parse_columns(["answer=Answer", "fact=a=b"]) == {"answer": "Answer", "fact": "a=b"}
    with pytest.raises(InputError, match="write OURS=THEIRS"):
        parse_columns(["answer"])


NOISY = """
import os, subprocess, sys
from flows import commands
from flows.cli import run
def noisy(options, settings):
    print("a library's progress")
    os.write(1, b"a library in C\\n")
    subprocess.run(["echo", "a child"], check=True)
    return []
commands.history = noisy
sys.exit(run(["history", "--json"]))
"""


def test_stdout_holds_the_document_and_nothing_else(clone: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", NOISY], cwd=clone, env=tiny.outside_environment(), capture_output=True, text=True, check=False
    )
    assert json.loads(done.stdout) == []
    assert sorted(done.stderr.splitlines()) == ["a child", "a library in C", "a library's progress"]


def test_a_reader_that_has_seen_enough_is_no_fault(clone: Path) -> None:
    command = f"set -o pipefail; {sys.executable} -m flows.cli history | true"
    done = subprocess.run(
        ["bash", "-c", command], cwd=clone, env=tiny.outside_environment(), capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_of_the_documents_is_there_and_says_what_it_is_for(capsys: pytest.CaptureFixture[str]) -> None:
    commands = [
        "ingest",
        "plan",
        "release",
        "refresh",
        "retrain",
        "ask",
        "status",
        "history",
        "diff",
        "rollback",
        "doctor",
        "maintain",
    ]
    for command in commands:
        with pytest.raises(SystemExit) as found:
            run([command, "--help"])
        assert found.value.code == 0
        shown = capsys.readouterr().out
        options = parser()._subparsers._group_actions[0].choices[command]._actions  # type: ignore[union-attr,index,call-overload]
        assert all(action.help for action in options), f"{command}: an argument without help"
        assert len(shown.splitlines()) > 3


def test_ctrl_c_says_that_one_can_go_on(clone: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def stopped(folder: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(commands.ledger, "read", stopped)
    assert run(["history"]) == 1
    assert "run the same command again" in capsys.readouterr().err
