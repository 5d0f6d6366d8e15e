"""A language model as judge, by MLflow's scorer `Correctness`: reported, never weighed, never needed.

Where params/judge.yaml names none, nothing happens; where it cannot be asked, the report says so and the flow goes on. What it
said of the same answers is kept, so that nobody pays twice.
"""

import os
import socket
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows.candidate import Candidate
from flows.settings import Settings
from tasks.agreement import agreement
from tasks.errors import InputError
from tasks.page_rows import right
from tasks.params_files import load
from tasks.params_verdict import EvaluateParams, JudgeParams
from tasks.records import Record, iterate_jsonl, read_json, read_jsonl, value_digest, write_json
from tasks.statistics import intervals
from tasks.study import drawn

PATIENCE = 10  # seconds for the endpoint to answer at all: MLflow itself tries for minutes
Opinions = dict[tuple[str, str], bool]  # (question, answer) -> right


def with_opinion(settings: Settings, candidate: Candidate) -> Candidate:
    """The candidate with what the judge says of its answers among its curves."""
    params = load(JudgeParams, settings.root / "params")
    if not params.model:
        return candidate
    answers = chosen(read_jsonl(candidate.evaluation / "answers.jsonl"), params)
    labels = read_labels(settings.root, params)
    said = [[record["question"], record["arm"], record["answer"], record["reference"]] for record in answers]
    path = settings.home / "judge" / f"{value_digest([params.model_dump(), said, labels])[:16]}.json"
    if not path.exists() or "error" in read_json(path):
        write_json(path, opinion(params, load(EvaluateParams, settings.root / "params"), answers, labels))
    return replace(candidate, curves={**candidate.curves, "judge": path})


def chosen(answers: list[Record], params: JudgeParams) -> list[Record]:
    asked = [{"id": question} for question in dict.fromkeys(record["question"] for record in answers)]
    kept = {record["id"] for record in drawn(asked, params.questions, params.seed)}
    return [record for record in answers if record["question"] in kept]


def read_labels(root: Path, params: JudgeParams) -> list[Record]:
    """Raises InputError naming file and line where it is not what people's judgements look like."""
    if not params.labels:
        return []
    path = root / params.labels
    if not path.is_file():
        raise InputError(f'params/judge.yaml: labels: there is no file {path}; write one, or set it to ""')
    found = []
    for number, record in enumerate(iterate_jsonl(path), start=1):
        texts = all(isinstance(record.get(name), str) and record[name] for name in ("question", "answer", "reference"))
        if not texts or not isinstance(record.get("right"), bool):
            raise InputError(f"{path}: label {number}: question, answer and reference have to be texts, and right true or false")
        found.append({name: record[name] for name in ("question", "answer", "reference", "right")})
    return found


def opinion(params: JudgeParams, statistics: EvaluateParams, answers: Sequence[Record], labels: Sequence[Record]) -> Record:
    """Per arm the share that it finds right, and how far it agrees with people and with the fact score."""
    from mlflow.exceptions import MlflowException

    asked = [(record["text"], record["answer"], record["reference"]) for record in answers if record["reference"]]
    asked += [(record["question"], record["answer"], record["reference"]) for record in labels]
    try:
        check_reachable(os.environ.get("OPENAI_API_BASE", "") if params.model.startswith("openai:/") else "")
        opinions = ask(params.model, asked)
    except (MlflowException, OSError) as error:
        return {"model": params.model, "error": str(error).splitlines()[0][:300]}
    draws = (statistics.confidence, statistics.resamples, statistics.seed)
    judged = [record for record in answers if record["reference"]]
    ours = [opinions[record["text"], record["answer"]] for record in judged]
    pages = [str(record["document"] or record["question"]) for record in judged]
    people = [opinions[record["question"], record["answer"]] for record in labels]
    return {
        "model": params.model,
        "questions": len({record["question"] for record in judged}),
        "arms": {arm: share(judged, ours, pages, arm, draws) for arm in dict.fromkeys(record["arm"] for record in judged)},
        "facts": agreement(ours, [right(record) for record in judged], pages, *draws),
        "people": agreement(people, [record["right"] for record in labels], [record["question"] for record in labels], *draws)
        if labels
        else None,
    }


def share(
    judged: Sequence[Record], ours: Sequence[bool], pages: Sequence[str], arm: str, draws: tuple[float, int, int]
) -> Record:
    import numpy as np

    places = [place for place, record in enumerate(judged) if record["arm"] == arm]
    found = intervals(np.array([float(ours[place]) for place in places]), [pages[place] for place in places], *draws)[0]
    return {"mean": found.mean, "low": found.low, "high": found.high, "n": found.n}


def check_reachable(address: str) -> None:
    """Raises OSError at once where nobody listens there."""
    parsed = urlsplit(address)
    if parsed.hostname:
        socket.create_connection((parsed.hostname, parsed.port or (443 if parsed.scheme == "https" else 80)), PATIENCE).close()


def ask(model: str, asked: Sequence[tuple[str, str, str]]) -> Opinions:
    """(question, answer, reference), each question and answer once. Raises MlflowException where it gives no opinion."""
    from mlflow.exceptions import MlflowException
    from mlflow.genai.scorers import Correctness

    scorer: Any = Correctness(model=model)
    found: Opinions = {}
    for question, answer, reference in asked:
        if (question, answer) in found:
            continue
        said = scorer(inputs={"question": question}, outputs=answer, expectations={"expected_response": reference})
        verdict = str(getattr(said.value, "value", said.value))
        if verdict not in ("yes", "no"):
            raise MlflowException(f"{model} was asked for yes or no and said {verdict!r} ({said.error or 'without an error'})")
        found[question, answer] = verdict == "yes"
    return found
