"""What both sides of a hand-over refuse; that it works is shown with two real workers in tests/stack."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import tiny
from prefect.settings import PREFECT_API_URL, temporary_settings
from workspace import write_workspace

from flows import handover, ledger
from flows.settings import Settings, read_settings
from tasks.errors import InputError, RefusedError, TandemError


@pytest.fixture
def clone(tmp_path: Path) -> Settings:
    settings = write_workspace(tmp_path / "clone")
    (settings.root / "tasks").mkdir()
    (settings.root / "tasks/adapter.py").write_text("rank = 16\n")
    return settings


def test_a_snapshot_carries_params_and_lock_and_is_refused_by_other_code(clone: Settings) -> None:
    sent = handover.snapshot(clone)
    assert "dvc.lock" in sent["files"] and "params/adapter.yaml" in sent["files"]
    handover.check_runner(clone, sent)
    (clone.root / "tasks/adapter.py").write_text("rank = 17\n")
    with pytest.raises(InputError, match="has other code"):
        handover.check_runner(clone, sent)


@pytest.mark.parametrize("name", ["flows/cli.py", "../params/adapter.yaml", "params/../tasks/adapter.yaml", ".dvc/config"])
def test_a_snapshot_that_writes_elsewhere_is_refused(clone: Settings, name: str) -> None:
    sent = handover.snapshot(clone)
    sent["files"][name] = ""
    with pytest.raises(InputError, match="would write"):
        handover.check_runner(clone, sent)


def test_a_clone_with_an_assistant_of_its_own_is_no_runner(clone: Settings) -> None:
    sent = handover.snapshot(clone)
    refusal = ledger.Draft(
        action="refuse", release=None, number=None, version=None, candidate="c" * 64, who="a test", why="a floor",
        at="2026-11-21T05:00:00Z", evidence={}, runs={},
    )  # fmt: skip
    ledger.append(clone.ledger, refusal, 0)
    with pytest.raises(InputError, match="keeps an assistant of its own"):
        handover.check_runner(clone, sent)


def test_a_runner_does_not_hand_over_in_turn(clone: Settings) -> None:
    with pytest.raises(InputError, match="unset TANDEM_TRAINER"):
        handover.check_runner(replace(clone, trainer="train/train"), handover.snapshot(clone))


def test_who_hands_over_needs_a_server_and_a_remote_that_is_verified(clone: Settings) -> None:
    asking = replace(clone, trainer="train/train")
    handover.check_trainer(clone)
    with temporary_settings(restore_defaults={PREFECT_API_URL}), pytest.raises(InputError, match="no Prefect server"):
        handover.check_trainer(asking)
    (clone.root / ".dvc").mkdir()
    (clone.root / ".dvc/config").write_text("[core]\n    no_scm = true\n")
    with temporary_settings({PREFECT_API_URL: "http://127.0.0.1:1/api"}):
        with pytest.raises(InputError, match="dvc remote add"):
            handover.check_trainer(asking)
        assert tiny.dvc(clone.root, "remote", "add", "--default", "storage", "remote").returncode == 0
        with pytest.raises(InputError, match="dvc remote modify storage verify true"):  # F10
            handover.check_trainer(asking)
        assert tiny.dvc(clone.root, "remote", "modify", "storage", "verify", "true").returncode == 0
        handover.check_trainer(asking)


def test_how_the_training_ended_there_is_how_it_ends_here() -> None:
    handover.check_ended("train/train", SimpleNamespace(name="Trained", message=""))
    with pytest.raises(RefusedError, match="diverged"):
        handover.check_ended("train/train", SimpleNamespace(name="Refused", message="training diverged"))
    with pytest.raises(TandemError, match="ended as Crashed"):
        handover.check_ended("train/train", SimpleNamespace(name="Crashed", message="it died"))


def test_a_trainer_is_a_deployment_by_its_flow_and_name(clone: Settings) -> None:
    with tiny.inside(clone.root):
        assert read_settings({"TANDEM_TRAINER": "train/train"}).trainer == "train/train"
        with pytest.raises(InputError, match="FLOW/NAME"):
            read_settings({"TANDEM_TRAINER": "gpu"})
