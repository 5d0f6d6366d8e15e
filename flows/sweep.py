"""Flow `sweep`: adapters by other params, compared on the validation questions. Changes nothing, and says which won and why."""

import shlex
import shutil
from pathlib import Path
from typing import Any

import yaml
from prefect import flow, task

from flows import pipeline, steps, tracking
from flows.children import watched
from flows.presenting import conclude
from flows.session import Session, note_running, running_file, say, session
from flows.settings import Settings
from tasks.errors import RefusedError
from tasks.params import AdapterParams, SweepParams
from tasks.params_files import load
from tasks.records import read_json
from tasks.stage import OUTPUTS
from tasks.sweep import Trial, Values, choose, combinations, name

STAGE = "adapter"
WRITTEN = (*OUTPUTS, "checkpoints")


@flow(name="sweep", flow_run_name="sweep")
def sweep() -> dict[str, Any]:
    with session("sweep") as opened:
        steps.reproduce(opened, "examples")
        folder = opened.settings.root / "params"
        params = load(SweepParams, folder)
        wanted = combinations(params, load(AdapterParams, folder))
        trials = [found for values in wanted if (found := train_trial(opened, values)) is not None]
        if not trials:
            raise RefusedError("every adapter was refused; what each one lacked stands above")
        winner = choose(trials, params.tolerance)
        say(winner.reason)
        tags = {"outcome": "swept", "winner": name(winner.trial.values), "why": winner.reason}
        conclude(opened, f"{len(trials)} adapters compared", tags)
        return {
            "winner": winner.trial.values,
            "reason": winner.reason,
            "trials": [trial._asdict() for trial in sorted(trials, key=lambda trial: trial.loss)],
        }


@task(task_run_name="train {values}")
def train_trial(session: Session, values: Values) -> Trial | None:
    """One adapter aside, in an MLflow child run; None where its training was refused, as one that diverged is."""
    settings, folder = session.settings, session.settings.home / "scratch/sweep"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(settings.root / "params", folder / "params")
    write_values(folder / "params/adapter.yaml", values)
    try:
        with tracking.stage_run(settings, session.run_id, name(values)) as run_id:
            trial = trained(settings, run_id, values, folder)
    except RefusedError as error:
        say(f"{name(values)}: refused: {str(error).splitlines()[-1]}")
        return None
    finally:
        running_file(settings).unlink(missing_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    say(f"{name(values)}: validation loss {trial.loss:.4f}, {trial.parameters:,} parameters, {trial.seconds:.0f} s")
    return trial


def trained(settings: Settings, run_id: str, values: Values, folder: Path) -> Trial:
    """Runs the stage in `folder`, its curve going to MLflow as it comes."""
    tracking.log_params(settings, run_id, load(AdapterParams, folder / "params").model_dump())

    def watch(line: str) -> None:
        point = pipeline.point(line)
        if point:
            tracking.log_metrics(settings, run_id, point[1], point[0])

    def started_as(pid: int) -> None:
        note_running(settings, pid)

    list(watched(command(settings.root, folder), settings, watch, started_as, folder))
    found = read_json(folder / "metrics")
    tracking.log_metrics(settings, run_id, tracking.numbers(found))
    return Trial(values, found["validation_loss_best"], int(found["trainable_parameters"]), found["seconds"])


def write_values(path: Path, values: Values) -> None:
    path.write_text(yaml.safe_dump(yaml.safe_load(path.read_text(encoding="utf-8")) | values), encoding="utf-8")


def command(root: Path, folder: Path) -> list[str]:
    """The stage as dvc.yaml has it, reading what it reads, writing into `folder`."""
    line = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"][STAGE]["cmd"]
    launcher, *words = shlex.split(line.replace("\\$", "$"))
    flags = dict(zip(words[2::2], words[3::2], strict=True))
    places = {flag: folder / flag[2:] if flag[2:] in WRITTEN else root / place for flag, place in flags.items()}
    rest = shlex.join([*words[:2], *(str(word) for pair in places.items() for word in pair)])
    return ["/bin/sh", "-c", f"exec {launcher} {rest}"]
