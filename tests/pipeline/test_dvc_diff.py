"""Two releases compared by DVC itself, where a project keeps its state in git, as the README says how."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from looking import World, entries, settings

from flows.store import open_file

pytestmark = pytest.mark.slow

HIDDEN = ("/dvc.lock", "/data/raw.dvc")


def git(clone: Path, *words: str) -> None:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "core.autocrlf=false"]
    subprocess.run(["git", *identity, *words], cwd=clone, check=True, capture_output=True)


def test_metrics_and_pictures_of_two_releases(world: World, copy: Callable[[Path], Path]) -> None:
    clone = copy(world.second)
    locks = [open_file(settings().store, entry.evidence["dvc.lock"]) for entry in entries()[:2]]
    ignored = (tiny.ROOT / ".gitignore").read_text(encoding="utf-8").splitlines()
    (clone / ".gitignore").write_text("\n".join(line for line in ignored if line not in HIDDEN), encoding="utf-8")
    config = clone / ".dvc/config"
    config.write_text(config.read_text(encoding="utf-8").replace("no_scm = true", ""), encoding="utf-8")
    git(clone, "init", "--quiet")
    for number, lock in enumerate(locks, start=1):
        (clone / "dvc.lock").write_bytes(lock)
        git(clone, "add", ".")
        git(clone, "commit", "--quiet", "--message", f"release {number}")
        git(clone, "tag", f"release-{number}")

    metrics = tiny.dvc(clone, "metrics", "diff", "release-1", "release-2")
    assert metrics.returncode == 0, metrics.stderr
    assert "data/metrics/index.json" in metrics.stdout and "release-2" in metrics.stdout
    plots = tiny.dvc(clone, "plots", "diff", "release-1", "release-2", "--out", "compared")
    assert plots.returncode == 0, plots.stderr
    assert {path.name for path in (clone / "compared/static").iterdir()} >= {
        "release-1_data_plots_evaluate_arms.png",
        "release-2_data_plots_evaluate_arms.png",
    }


def test_without_git_dvc_says_that_it_has_no_revisions(world: World, copy: Callable[[Path], Path]) -> None:
    found = tiny.dvc(copy(world.first), "metrics", "diff")
    assert found.returncode != 0
    assert "Only supported for Git repositories" in found.stderr
