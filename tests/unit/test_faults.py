"""Errors of libraries and of the system, as a person is told of them."""

import re
import sqlite3
from pathlib import Path

import httpx
import pytest
import requests
import tiny
from workspace import write_workspace

from flows import cli, commands, faults
from flows.faults import describe
from tasks.errors import InputError


def raised(error: Exception, behind: Exception | None = None) -> Exception:
    """With a traceback, and wrapped as libraries do."""
    try:
        raise error from behind
    except Exception as caught:
        return caught


FULL = OSError(28, "No space left on device", "/data/x")


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (FULL, r"no space left for /data/x; free some \(\d+ MB are free at /\w*\)"),
        (PermissionError(13, "Permission denied", "/x"), "permission denied: /x"),
        (OSError(30, "Read-only file system", "/x"), "/x is on a read-only file system"),
        (OSError(24, "Too many open files"), "ulimit -n"),
        (sqlite3.OperationalError("database is locked"), "another process writes to it"),
        (sqlite3.OperationalError("database or disk is full"), "MB are free"),
        (sqlite3.DatabaseError("file is not a database"), "tandem doctor"),
        (RuntimeError("lance error: Not found: data/1.lance"), "the index does not read or write.*tandem doctor"),
        (RuntimeError("IO error: No space left on device (os error 28)"), "no space left"),
        (ConnectionRefusedError(111, "Connection refused"), "a server cannot be reached"),
        (
            requests.exceptions.ConnectionError("Max retries exceeded"),
            "a server cannot be reached.*MLFLOW_TRACKING_URI=http://nowhere",
        ),
        (httpx.ConnectError("All connection attempts failed"), "a server cannot be reached"),
        (MemoryError(), "memory ran out"),
        (ValueError("Detected out-of-date database schema (found version f)"), "of another version of MLflow.*make setup"),
        (RuntimeError("Timed out while attempting to connect to ephemeral Prefect API server."), "did not start in time"),
    ],
)
def test_the_well_known_are_told_with_what_mends_them(
    error: Exception, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with tiny.inside(tmp_path):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://nowhere")
        assert re.search(said, describe(raised(error)))


def test_what_stands_behind_an_error_counts_and_a_balance_is_no_lance() -> None:
    assert describe(raised(RuntimeError("cannot save"), FULL)).startswith("no space left for /data/x")
    assert describe(raised(ValueError("the balance is off"))).startswith("unexpected ValueError in unit/test_faults.py")


def test_anything_else_is_one_line_and_a_file_with_the_traceback(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_workspace(tmp_path)
    with tiny.inside(tmp_path):
        said = describe(raised(KeyError("k")))
        (log,) = (tmp_path / ".tandem/logs").glob("error-*.log")
    assert "\n" not in said and str(log) in said
    assert "Traceback (most recent call last)" in log.read_text() and "KeyError: 'k'" in log.read_text()


@pytest.mark.parametrize("as_json", [False, True])
def test_an_unexpected_error_is_exit_code_1_and_no_traceback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], as_json: bool
) -> None:
    def broken(folder: Path) -> None:
        raise AttributeError("a fault of ours")

    write_workspace(tmp_path)
    monkeypatch.setattr(commands.ledger, "read", broken)
    with tiny.inside(tmp_path):
        assert cli.run(["history", *(["--json"] if as_json else [])]) == 1
    out = capsys.readouterr()
    assert out.err.startswith("tandem: unexpected AttributeError in flows/commands.py:")
    assert "Traceback" not in out.err
    assert ("a fault of ours" in out.out) is as_json


def test_without_a_place_for_the_file_the_line_still_comes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere() -> None:
        raise InputError("not inside a clone")

    monkeypatch.setattr(faults, "read_settings", nowhere)
    assert "traceback:" not in describe(raised(KeyError("k")))
