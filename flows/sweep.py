"""Flow `sweep`: adapters by other params, compared on the validation questions. Changes nothing, and says which won and why."""

import shutil
from pathlib import Path
from typing import Any

from prefect import flow, task

from flows import steps, tracking
from flows.presenting import conclude
from flows.session import Session, say, session
from flows.settings import Settings
from flows.trials import run_aside, write_values
from tasks.errors import RefusedError
from tasks.params import AdapterParams, SweepParams
from tasks.params_files import load
from tasks.records import read_json
from tasks.sweep import Trial, Values, choose, combinations, name

STAGE = "adapter"


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
        shutil.rmtree(folder, ignore_errors=True)
    say(f"{name(values)}: validation loss {trial.loss:.4f}, {trial.parameters:,} parameters, {trial.seconds:.0f} s")
    return trial


def trained(settings: Settings, run_id: str, values: Values, folder: Path) -> Trial:
    tracking.log_params(settings, run_id, load(AdapterParams, folder / "params").model_dump())
    run_aside(settings, run_id, STAGE, folder, folder, {})
    found = read_json(folder / "metrics")
    tracking.log_metrics(settings, run_id, tracking.numbers(found))
    return Trial(values, found["validation_loss_best"], int(found["trainable_parameters"]), found["seconds"])
