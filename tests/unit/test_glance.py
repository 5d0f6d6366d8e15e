import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
import yaml

from flows import glance
from flows.planning import plan
from flows.settings import Settings, child_environment, prepare, read_settings
from tasks.records import read_json

GRAPH = {
    "stages": {
        "chunks": {"cmd": "cp -r raw cut", "deps": ["raw"], "params": [{"params/chunks.yaml": None}], "outs": ["cut"]},
        "evaluate": {"cmd": "cat cut/*/*.md > report", "deps": ["cut"], "outs": ["report"]},
    }
}


@pytest.fixture
def project(tmp_path: Path) -> Settings:
    """A small chain of two stages that has run, and of which a plan has been made."""
    shutil.copytree(tiny.ROOT / "params", tmp_path / "params")
    (tmp_path / ".dvc").mkdir()
    shutil.copyfile(tiny.ROOT / ".dvc/config", tmp_path / ".dvc/config")
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump(GRAPH))
    for number in range(3):
        (tmp_path / "raw" / str(number)).mkdir(parents=True)
        (tmp_path / f"raw/{number}/page.md").write_text(f"page {number}")
    with tiny.inside(tmp_path):
        settings = read_settings({})
        prepare(settings)
    done = subprocess.run([sys.executable, "-m", "dvc", "repro"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert plan(settings)["stale"] == {}
    return settings


def other_text(root: Path) -> None:
    (root / "raw/1/page.md").write_text("PAGE 1")


def same_size_and_time(root: Path) -> None:
    """Written aside and renamed, its time set back: only the inode tells."""
    before = (root / "raw/1/page.md").stat()
    (root / "aside").write_text("PAGE 1")
    os.utime(root / "aside", ns=(before.st_atime_ns, before.st_mtime_ns))
    (root / "aside").replace(root / "raw/1/page.md")


def new_page(root: Path) -> None:
    (root / "raw/2/deeper").mkdir()
    (root / "raw/2/deeper/new.md").write_text("new")


def page_gone(root: Path) -> None:
    (root / "raw/2/page.md").unlink()


def output_gone(root: Path) -> None:
    (root / "report").unlink()


def copy_gone(root: Path) -> None:
    shutil.rmtree(root / ".dvc/cache/files/md5")


def other_params(root: Path) -> None:
    tiny.change_params(root, "chunks.yaml", {"max_words": 61})


def other_graph(root: Path) -> None:
    (root / "dvc.yaml").write_text((root / "dvc.yaml").read_text().replace("cat cut", "cat  cut"))


def lock_gone(root: Path) -> None:
    (root / "dvc.lock").unlink()


CHANGES = [other_text, same_size_and_time, new_page, page_gone, output_gone, copy_gone, other_params, other_graph, lock_gone]


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_makes_a_stage_stale_is_seen_at_a_glance(project: Settings, change: Callable[[Path], None]) -> None:
    assert glance.nothing_touched(project)
    change(project.root)
    assert not glance.nothing_touched(project)
    assert plan(project)["stale"]


def test_files_that_were_only_touched_are_looked_into_once(project: Settings) -> None:
    (project.root / "raw/1/page.md").touch()
    assert not glance.nothing_touched(project)
    assert plan(project)["stale"] == {}
    assert glance.nothing_touched(project)


def test_a_change_while_dvc_is_looking_shows_in_the_next_plan(project: Settings) -> None:
    paths = read_json(glance.kept(project))["paths"]
    seen = glance.look(paths)
    other_text(project.root)
    glance.keep(project, paths, seen)  # as a plan does whose look came before, and whose DVC found nothing
    assert not glance.nothing_touched(project)


def test_where_nothing_changed_a_plan_does_not_open_dvc(project: Settings) -> None:
    code = "import sys; from flows import planning; from flows.settings import read_settings\n"
    code += "assert planning.plan(read_settings({}))['stale'] == {}; assert not {'dvc', 'networkx'} & set(sys.modules)"
    environment = {**os.environ, **child_environment(project), "PYTHONPATH": str(tiny.ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=project.root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_links_and_what_cannot_be_seen_are_looked_at_without_being_followed(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path)
    (tmp_path / "broken").symlink_to(tmp_path / "nothing")
    assert [Path(name).name for name, _ in glance.files(str(tmp_path))] == ["broken", "loop"]
    assert list(glance.files(str(tmp_path / "missing"))) == [(str(tmp_path / "missing"), None)]


def test_a_folder_within_a_folder_is_looked_at_once() -> None:
    paths = ["/a/raw/documents", "/a/raw-2", "/a/raw", "/a/raw.dvc", "/a/data"]
    assert glance.outermost(paths) == ["/a/data", "/a/raw", "/a/raw-2", "/a/raw.dvc"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"seen": "x"}'])
def test_a_damaged_note_of_the_last_glance_asks_dvc_again(project: Settings, content: str) -> None:
    glance.kept(project).write_text(content)
    assert not glance.nothing_touched(project)
    assert plan(project)["stale"] == {} and glance.nothing_touched(project)
