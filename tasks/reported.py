"""What params/evaluate.yaml asks to be reported of every answer, beside what the gate weighs."""

from pathlib import Path

from tasks.errors import InputError
from tasks.metrics import METRICS, SIMILARITY, Answered, Embed, measured, no_personal_data, safety, similarities
from tasks.params_verdict import EvaluateParams
from tasks.records import Record
from tasks.rules import own_rules

FIELDS = ("text", "answer", "reference", "fact", "document", "passages", "scores")  # of a record, as Answered has them


def with_metrics(answers: list[Record], params: EvaluateParams, embed: Embed | None, root: Path) -> list[Record]:
    """Every answer with its `metrics`. Raises InputError for a rule that is unusable, and for a value that is none."""
    seen = [Answered(*(record[field] for field in FIELDS)) for record in answers]
    known = {**METRICS, "safety": safety(params.forbidden), "no_personal_data": no_personal_data(params.phone_regions)}
    chosen = {name: known[name] for name in params.metrics if name in known} | own_rules(params.rules, root)
    found = measured(chosen, seen)
    if SIMILARITY in params.metrics:
        if embed is None:
            raise InputError(f"the metric {SIMILARITY} needs the embedder, and none is at hand; take it off params/evaluate.yaml")
        for values, near in zip(found, similarities(seen, embed), strict=True):
            values[SIMILARITY] = near
    return [record | {"metrics": values} for record, values in zip(answers, found, strict=True)]


def of_metric(records: list[Record], name: str) -> list[Record]:
    """Those to which a metric applies, its value as a score."""
    kept = [record for record in records if record["metrics"][name] is not None]
    return [record | {"scores": {name: record["metrics"][name]}} for record in kept]
