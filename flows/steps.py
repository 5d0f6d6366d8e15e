"""The Prefect tasks: one per stage that executes and one per step of a promotion. They call plain functions, which tests call."""

from pathlib import Path
from typing import Any

from prefect import task
from prefect.client.schemas import State
from prefect.states import Completed

from flows import indexes, judging, measuring, pipeline, promotion, tracking
from flows.candidate import Candidate
from flows.handover import is_elsewhere, train_elsewhere
from flows.ledger import Entry
from flows.pipeline import StageRun
from flows.promotion import Judgement
from flows.session import Session, note_running, running_file, say


@task(task_run_name="{stage}")
def execute_stage(session: Session, stage: str, reasons: list[str]) -> StageRun:
    """Run one stale stage by DVC, its output in the log as it comes, its curve and metrics in an MLflow child run."""
    settings = session.settings
    say(f"{stage}: {'; '.join(reasons[:3])}{' ...' if len(reasons) > 3 else ''}")
    with tracking.stage_run(settings, session.run_id, stage) as run_id:

        def watch(line: str) -> None:
            point = pipeline.point(line)
            if point:
                tracking.log_metrics(settings, run_id, point[1], point[0])
            elif line and not line.startswith(("Running stage", "> ", "Updating lock", "Use `dvc push`", "Generating lock")):
                say(f"  {line}")

        def started_as(pid: int) -> None:
            note_running(settings, pid)

        if is_elsewhere(settings, stage):
            run = train_elsewhere(settings, session.run_id, reasons, watch, started_as)
        else:
            run = pipeline.run_stage(settings, stage, reasons, watch, started_as)
        running_file(settings).unlink(missing_ok=True)
        tracking.log_stage(settings, run_id, stage)
    say(f"{stage}: {run.outcome} in {run.seconds} s")
    return run


@task(task_run_name="{stage}")
def cached_stage(stage: str) -> State[Any]:
    """A stage that is up to date is shown, and shown as what it is."""
    return Completed(name="Cached", message="up to date by dvc.lock", data=None)


def fresh(stage: str) -> StageRun:
    cached_stage(stage, return_state=True)
    return StageRun(stage, "cached")


def reproduce(session: Session, target: str, leave: tuple[str, ...] = ()) -> list[StageRun]:
    """`dvc repro TARGET`, a task run for every stage of it. Those to `leave` stay as they are."""
    return pipeline.reproduce(
        session.settings, target, lambda stage, reasons: execute_stage(session, stage, reasons), fresh, leave, session.look
    )


def reproduce_only(session: Session, stages: list[str]) -> list[StageRun]:
    return pipeline.reproduce_only(session.settings, stages, lambda stage, reasons: execute_stage(session, stage, reasons), fresh)


@task(task_run_name="measure champion")
def measure_champion(session: Session, entries: list[Entry], champion: Entry, candidate: Candidate) -> Path:
    """The champion's answers to the candidate's questions: the sealed ones where they are the same, else asked again today."""
    settings = session.settings
    if measuring.has_same_yardstick(settings, entries, champion, candidate):
        return promotion.champion_evaluation(settings, entries, champion, promotion.scratch(settings, "champion"))
    say(f"the questions changed since release {champion.number} was measured; it is asked them now")
    return measuring.remeasure_champion(settings, champion, candidate)


@task(task_run_name="measure challenger")
def measure_challenger(session: Session, candidate: Candidate, adapter: Path) -> Candidate:
    return measuring.challenge(session.settings, candidate, adapter)


@task(task_run_name="ask the language model")
def ask_judge(session: Session, candidate: Candidate) -> Candidate:
    """What params/judge.yaml names, if anything."""
    return judging.with_opinion(session.settings, candidate)


@task(task_run_name="judge")
def judge(session: Session, candidate: Candidate, entries: list[Entry], champion_evaluation: Path | None) -> Judgement:
    return promotion.judge(session.settings, candidate, entries, champion_evaluation)


@task(task_run_name="seal")
def seal(session: Session, candidate: Candidate, judgement: Judgement) -> dict[str, str]:
    indexes.seal_rows(session.settings, judgement.release)
    return promotion.seal(session.settings, candidate, judgement)


@task(task_run_name="verify")
def verify(session: Session, release: str, golden: str) -> None:
    """In a fresh process: what it cannot load, a server could not either."""
    promotion.verify(session.settings, release, golden)


@task(task_run_name="register")
def register(session: Session, judgement: Judgement) -> int:
    return promotion.register(session.settings, judgement, session.run_id)


@task(task_run_name="commit")
def commit(session: Session, judgement: Judgement, version: int, evidence: dict[str, str]) -> Entry:
    """The ledger entry, then the alias that follows it."""
    entry = promotion.commit(session.settings, judgement, version, evidence, {"mlflow": session.run_id})
    promotion.follow_ledger(session.settings)
    return entry


@task(task_run_name="record the refusal")
def refuse(session: Session, judgement: Judgement, reasons: list[str], evidence: dict[str, str]) -> Entry:
    return promotion.refuse(session.settings, judgement, reasons, evidence, {"mlflow": session.run_id})
