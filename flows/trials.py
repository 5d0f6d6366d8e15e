"""Stages run aside, as dvc.yaml has them but for some of what they read: for whoever compares and changes nothing."""

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from flows import pipeline, tracking
from flows.children import watched
from flows.session import note_running, running_file
from flows.settings import Settings
from tasks.stage import OUTPUTS

WRITTEN = (*OUTPUTS, "checkpoints")


def run_aside(settings: Settings, run_id: str, stage: str, folder: Path, params: Path, given: Mapping[str, Path]) -> None:
    """A stage that writes into `folder`, its curve going to an MLflow run as it comes. params: the folder that holds params/."""

    def watch(line: str) -> None:
        point = pipeline.point(line)
        if point:
            tracking.log_metrics(settings, run_id, point[1], point[0])

    def started_as(pid: int) -> None:
        note_running(settings, pid)

    folder.mkdir(parents=True, exist_ok=True)
    try:
        list(watched(command(settings.root, stage, folder, given), settings, watch, started_as, params))
    finally:
        running_file(settings).unlink(missing_ok=True)


def command(root: Path, stage: str, folder: Path, given: Mapping[str, Path]) -> list[str]:
    """The stage as dvc.yaml has it, reading what it reads or what is `given` by flag, writing into `folder`."""
    launcher, module, flags = parts(root, stage)
    words = [f"{flag} {placed(flag[2:], place, root, folder, given)}" for flag, place in flags.items()]
    return ["/bin/sh", "-c", f"exec {launcher} {shlex.join(module)} {' '.join(words)}"]


def parts(root: Path, stage: str) -> tuple[str, list[str], dict[str, str]]:
    """(interpreter or launcher, ["-m", module], flag -> place) of a stage's command."""
    line = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"][stage]["cmd"]
    launcher, *words = shlex.split(line.replace("\\$", "$"))
    return launcher, words[:2], dict(zip(words[2::2], words[3::2], strict=True))


def placed(name: str, place: str, root: Path, folder: Path, given: Mapping[str, Path]) -> str:
    if name in given or name in WRITTEN:
        return shlex.quote(str(given.get(name, folder / name)))
    return f'"{place}"' if place.startswith("${") else shlex.quote(str(root / place))  # a store is named by the environment


def write_values(path: Path, values: Mapping[str, Any]) -> None:
    """Keys of a params file in a copy of params/."""
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text(encoding="utf-8")) | dict(values)), encoding="utf-8")
