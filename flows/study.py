"""Flow `study`: adapters on shares of the training examples and on other base models, asked the validation questions.

Changes nothing; says in words what would help: retrieval, an adapter, pairs, pages, another base model. The newest one stands in
the reports of releases with its base model.
"""

import shutil
from pathlib import Path
from typing import Any, NamedTuple

from prefect import flow, task

from flows import steps, tracking
from flows.presenting import conclude
from flows.promotion import now
from flows.reporting import STUDY
from flows.session import Session, say, session
from flows.settings import Settings
from flows.trials import parts, run_aside, write_values
from tasks.errors import InputError, RefusedError
from tasks.models import IDENTITY, identity, materialise
from tasks.params import ModelSource, StudyParams
from tasks.params_files import load
from tasks.params_verdict import GateParams
from tasks.records import Record, folder_digest, read_json, read_jsonl, write_json, write_jsonl
from tasks.study import Point, drawn, summary

UNWEIGHED: Record = {"metrics": [], "rules": {}, "latency_sample": 1}  # what is only reported is not looked at here
NAMED = 40  # characters of a base model's name


class Base(NamedTuple):
    name: str
    folder: Path
    parameters: int
    examples: Path  # for its tokenizer


@flow(name="study", flow_run_name="study")
def study() -> dict[str, Any]:
    with session("study") as opened:
        steps.reproduce(opened, "examples")
        settings, scratch = opened.settings, opened.settings.home / "scratch/study"
        params = load(StudyParams, settings.root / "params")
        prepare(settings, scratch, params)
        own, *others = [base(opened, scratch, place, source) for place, source in enumerate([None, *params.bases])]
        check_names([own, *others])
        wanted = [*((own, share) for share in params.shares), *((other, 1.0) for other in others)]
        points = [point for each, share in wanted if (point := measure(opened, scratch, params, each, share)) is not None]
        if not points or points[0].base != own.name:
            raise RefusedError("every adapter of the base model in use was refused; what each one lacked stands above")
        found = summary(points, load(GateParams, settings.root / "params")) | {"at": now(), "base": folder_digest(own.folder)}
        keep(opened, found)
        shutil.rmtree(scratch, ignore_errors=True)
        conclude(opened, f"{len(points)} adapters measured", {"outcome": "studied"})
        return found


def keep(session: Session, found: Record) -> None:
    """Where reports look for it, and on the flow's own run: the curve of each arm by the number of examples."""
    write_json(session.settings.home / STUDY, found)
    client = tracking.client(session.settings.tracking_uri)
    client.log_dict(session.run_id, found, "study.json")
    client.set_tag(session.run_id, "mlflow.note.content", "\n".join(f"- {each['says']}" for each in found["advice"]))
    first = found["points"][0]["base"]
    for point in (point for point in found["points"] if point["base"] == first):
        means = {f"{arm}.primary": values["mean"] for arm, values in point["arms"].items()}
        tracking.log_metrics(session.settings, session.run_id, means, point["pairs"])
    for each in found["advice"]:
        say(each["says"])


def prepare(settings: Settings, scratch: Path, params: StudyParams) -> None:
    """Params of its own, and the validation questions where the stage `evaluate` looks for those of the test."""
    shutil.rmtree(scratch, ignore_errors=True)
    shutil.copytree(settings.root / "params", scratch / "params")
    write_values(scratch / "params/evaluate.yaml", UNWEIGHED)
    dealt = settings.root / "data/questions"
    write_jsonl(scratch / "questions/train.jsonl", read_jsonl(dealt / "train.jsonl"))
    write_jsonl(scratch / "questions/test.jsonl", drawn(read_jsonl(dealt / "validation.jsonl"), params.questions, params.seed))


@task(task_run_name="base model {place}")
def base(session: Session, scratch: Path, place: int, source: ModelSource | None) -> Base:
    """The one in use, or another with examples of its own: how many passages fit is for its tokenizer to say."""
    root, folder = session.settings.root, scratch / f"base-{place}"
    if source is None:
        known = root / "data/models/base"
        return Base(name_of(read_json(known / IDENTITY)), known, parameters(known), root / "data/examples")
    builtin = root / parts(root, "models")[2]["--builtin"]
    materialise(source, builtin, folder / "model")
    write_json(folder / "model" / IDENTITY, identity(source))
    with tracking.stage_run(session.settings, session.run_id, f"examples for {name_of(source.model_dump())}") as run_id:
        run_aside(session.settings, run_id, "examples", folder / "examples", scratch, {"base": folder / "model"})
    return Base(name_of(source.model_dump()), folder / "model", parameters(folder / "model"), folder / "examples/out")


def check_names(bases: list[Base]) -> None:
    names = [each.name for each in bases]
    double = next((name for name in names if names.count(name) > 1), None)
    if double is not None:
        raise InputError(
            f"params/study.yaml: bases: two base models are called {double}; name each once, not the one of params/models.yaml"
        )


def name_of(source: Record) -> str:
    return str(source["id"] or source["source"])[-NAMED:]


def parameters(folder: Path) -> int:
    """By the headers of its weights."""
    from math import prod

    from safetensors import safe_open

    count = 0
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, "np") as weights:
            count += sum(prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118  no dict
    return count


@task(task_run_name="{base.name}, {share:.0%}")
def measure(session: Session, scratch: Path, params: StudyParams, base: Base, share: float) -> Point | None:
    """One adapter and what the arms answer with it; None where its training was refused, as one that diverged is."""
    settings, folder = session.settings, scratch / "point"
    shutil.rmtree(folder, ignore_errors=True)
    name, pairs = f"{base.name}, {share:.0%} of the examples", write_share(base.examples, folder / "examples", share, params.seed)
    try:
        with tracking.stage_run(settings, session.run_id, name) as run_id:
            given = {"base": base.folder, "examples": folder / "examples"}
            run_aside(settings, run_id, "adapter", folder / "adapter", scratch, given)
            given = {"base": base.folder, "adapter": folder / "adapter/out", "questions": scratch / "questions"}
            run_aside(settings, run_id, "evaluate", folder / "evaluate", scratch, given)
            arms = read_json(folder / "evaluate/out/report.json")["arms"]
            means = {f"{arm}.primary": values["metrics"]["primary"]["mean"] for arm, values in arms.items()}
            tracking.log_metrics(settings, run_id, means | {"pairs": pairs, "share": share, "parameters": base.parameters})
    except RefusedError as error:
        say(f"{name}: refused: {str(error).splitlines()[-1]}")
        return None
    say(f"{name}: " + ", ".join(f"{arm} {values['metrics']['primary']['mean']:.3f}" for arm, values in arms.items()))
    answers = read_jsonl(folder / "evaluate/out/answers.jsonl")
    return Point(base.name, base.parameters, share, pairs, answers, {arm: values["cost"] for arm, values in arms.items()})


def write_share(examples: Path, out: Path, share: float, seed: int) -> int:
    """At least one; the validation examples stay whole, or losses would not compare."""
    records = read_jsonl(examples / "train.jsonl")
    chosen = drawn(records, max(1, round(share * len(records))), seed)
    write_jsonl(out / "train.jsonl", chosen)
    shutil.copyfile(examples / "validation.jsonl", out / "validation.jsonl")
    return len(chosen)
