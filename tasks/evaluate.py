"""Stage `evaluate`: the same test questions asked of the four arms, greedily, with everything that the gate needs."""

from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from tasks.answers import AnswerStore, answer_all, weights_digest
from tasks.energy import POWER, metered
from tasks.errors import InputError
from tasks.gate import cost
from tasks.generation import Generated, Generator, decoding, environment, resolved
from tasks.golden import golden_record
from tasks.lineage import learnt, lineage_of
from tasks.metrics import Embed
from tasks.params import ARMS, Arm, PromptParams, uses_adapter, uses_passages
from tasks.params_verdict import EvaluateParams, GateParams
from tasks.plots import arms_with_intervals, quality_against_cost
from tasks.prompts import Message, fitting, pinned, shot_messages
from tasks.records import Record, read_json, read_jsonl, value_digest, write_json, write_jsonl
from tasks.reported import of_metric, with_metrics
from tasks.reports import FORMAT
from tasks.scores import primary, retrieval_summary, score, scoring_rules
from tasks.search import Index, open_index, widened
from tasks.slices import pages_with_facts, slices
from tasks.spending import Timed, settled, spending, timed
from tasks.stage import fresh_folder, run_stage, say
from tasks.statistics import intervals
from tasks.vllm_engine import VllmGenerator, check_parity

SLICED = ("primary", "fact")  # the metrics of a slice
METRICS = ("primary", "fact", "citation", "style", "exact_match", "token_f1", "rouge_l", "abstained")


@dataclass(frozen=True)
class Subject:
    """What is measured: one set of weights, documents and settings."""

    searcher: Index
    settings: Mapping[str, Any]
    base: Path
    adapter: Path | None
    prompt: PromptParams
    shots: Mapping[str, list[Message]]
    decoding: Mapping[str, Any]
    answered: AnswerStore


def evaluate(
    index: Path, embedder: Path, retriever: Path, base: Path, adapter: Path, retrieval: Path, questions: Path, out: Path,
    metrics: Path, plots: Path, store: str, answers: Path, vectors: Path,
    params: EvaluateParams, prompt: PromptParams, gate: GateParams,
) -> None:  # fmt: skip
    """Write out/answers.jsonl, out/report.json, out/prompt.json, out/golden.json; pictures go to `plots`, means to `metrics`."""
    searcher = open_index(store, index, embedder, retriever, retrieval, vectors)
    settings = read_json(retrieval / "settings.json")
    used = resolved(prompt)
    shots = choose_shots(read_jsonl(questions / "train.jsonl"), searcher, settings, used)
    subject = Subject(searcher, settings, base, adapter, used, shots, decoding(used), AnswerStore(answers))
    asked = unseen_by((adapter, searcher.embedder.folder), read_jsonl(questions / "test.jsonl"))
    found, golden = measure_arms(subject, ARMS, asked, params)
    records = score_answers(found, used, params, gate, searcher.embedder.passages)
    report = summarise(records, yardstick(asked, params, used, gate), params, gate)
    fresh_folder(out)
    write_results(out, records, report, golden, pinned(used, shots))
    draw(report, fresh_folder(plots), gate)
    write_json(metrics, flat_metrics(report))


def unseen_by(trained: Sequence[Path | None], questions: list[Record]) -> list[Record]:
    """Test questions that can judge what was trained, adapter and embedder: where pages were renamed or dealt anew, an older one
    learnt some.

    Raises InputError where none is left.
    """
    seen = {record["id"] for model in trained for record in learnt(lineage_of(model), questions)}
    kept = [record for record in questions if record["id"] not in seen]
    if not kept:
        raise InputError(
            f"none of the {len(questions)} test questions can judge the adapter or the embedder: one was trained on them or on "
            "their pages. Put seed and shares back in params/questions.yaml, add questions about other pages, or train anew: "
            "tandem retrain"
        )
    if seen:
        say(f"{len(seen)} test questions left out: adapter or embedder was trained on them or on their pages")
    return kept


def yardstick(questions: list[Record], params: EvaluateParams, prompt: PromptParams, gate: GateParams) -> Record:
    """What was asked, and all that turns answers into scores. Reports with different yardsticks are never compared."""
    fields = ("question", "document", "answer", "fact")
    digest = value_digest({record["id"]: [record[field] for field in fields] for record in questions})
    engine = [params.engine] if params.engine != "transformers" else []
    rules = [digest, params.style, prompt.abstention_patterns, gate.primary.model_dump(), *engine]
    return {"questions": digest, "yardstick": value_digest(rules)}


def choose_shots(
    train: list[Record], searcher: Index, settings: Mapping[str, Any], prompt: PromptParams
) -> dict[str, list[Message]]:
    """Few-shot turns per arm, from the training split only; arms with retrieval see them with passages."""
    turns: dict[str, list[Message]] = {}
    for arm in ARMS:
        count = prompt.shots.get(arm, 0)  # an adapter learnt without shots, and is asked without
        needs_passages = count and uses_passages(arm)
        found = {record["id"]: searcher.search(record["question"], settings) for record in train} if needs_passages else {}
        turns[arm] = shot_messages(train, found, prompt, count)
    return turns


def measure_arms(
    subject: Subject, arms: Sequence[Arm], questions: list[Record], params: EvaluateParams
) -> tuple[list[Record], dict[str, Record]]:
    """Every arm's answers; and per arm a few answered alone and timed, to be asked again before a promotion.

    Scores are for the caller to give: a release of last year is measured by the rules of today.
    """
    subject.searcher.expect([record["question"] for record in questions])
    ranked = {record["id"]: subject.searcher.search(record["question"], widened(subject.settings)) for record in questions}
    holding = pages_with_facts(subject.searcher.passages(), questions)
    questions = [record | {"holding": holding.get(record["id"])} for record in questions]
    answers: list[Record] = []
    golden: dict[str, Record] = {}
    make = VllmGenerator if params.engine == "vllm" else Generator
    with metered() as energy:
        for adapted, alike in groupby(sorted(arms, key=uses_adapter), key=uses_adapter):  # each set of weights is loaded once
            with closing(make(subject.base, subject.adapter if adapted else None, subject.decoding)) as generator, settled():
                for arm in alike:
                    found, alone = measure_arm(subject, arm, generator, questions, ranked, params)
                    answers += found
                    golden[arm] = golden_record(environment(), alone)
    watt = energy().get(POWER)
    return [record | ({POWER: watt} if record["latency_seconds"] else {}) for record in answers], golden


def measure_arm(
    subject: Subject, arm: Arm, generator: Generator, questions: list[Record], ranked: Mapping[str, list[Record]],
    params: EvaluateParams,
) -> tuple[list[Record], list[Record]]:  # fmt: skip
    k = subject.settings["k"] if uses_passages(arm) else 0
    built = [
        fitting(generator.tokenizer, record["question"], ranked[record["id"]][:k], subject.prompt, subject.shots[arm])
        for record in questions
    ]
    prompts = [generator.render(messages) for messages, _ in built]
    weights = weights_digest(subject.base, subject.adapter if uses_adapter(arm) else None)
    generated = answer_all(generator, subject.answered, weights, prompts, params.batch_tokens, arm)
    sample = range(0, len(questions), -(-len(questions) // params.latency_sample))
    alone = {position: ask_alone(subject, arm, generator, questions[position], built[position][0]) for position in sample}
    if isinstance(generator, VllmGenerator):
        check_parity(arm, [(found.text, generated[position].text) for position, (found, _) in alone.items()])
    golden = [{"question": questions[position]["question"], "answer": found.text} for position, (found, _) in alone.items()]
    records = [
        answer_record(record, arm, passages, ranked[record["id"]], made)
        | (alone[position][1] if position in alone else {"latency_seconds": None})
        for position, (record, (_, passages), made) in enumerate(zip(questions, built, generated, strict=True))
    ]  # fmt: skip
    return records, golden


def ask_alone(
    subject: Subject, arm: Arm, generator: Generator, record: Record, messages: list[Message]
) -> tuple[Generated, Timed]:
    """As a person asks: the search counts, though what it finds is known."""

    def work() -> Generated:
        if uses_passages(arm):
            subject.searcher.search(record["question"], subject.settings)
        return generator.answer(messages)

    subject.searcher.forget(record["question"])
    return timed(work)


def answer_record(record: Record, arm: Arm, passages: list[Record], ranked: list[Record], made: Generated) -> Record:
    return {
        "question": record["id"],
        "text": record["question"],
        "document": record["document"],
        "arm": arm,
        "answer": made.text,
        "reference": record["answer"],
        "fact": record["fact"],
        "slices": slices(record),
        "passages": passages,
        "ranked_pages": [passage["document"] for passage in ranked] if uses_passages(arm) else [],
        "prompt_tokens": made.prompt_tokens,
        "completion_tokens": made.completion_tokens,
    }


def score_answers(
    answers: list[Record], prompt: PromptParams, params: EvaluateParams, gate: GateParams, embed: Embed | None = None,
    root: Path = Path(),
) -> list[Record]:  # fmt: skip
    """With the scores that the gate weighs, and the metrics and rules that are reported. embed: for semantic similarity;
    root: the project, whose functions can be rules."""
    rules = scoring_rules(prompt.abstention_patterns, params.style)
    weights = gate.primary.model_dump()
    scored = []
    for record in answers:
        found = score(record["answer"], record["reference"], record["fact"], record["document"], record["passages"], rules)
        scored.append(record | {"scores": found | {"primary": primary(found, weights)}})
    return with_metrics(scored, params, embed, root)


def summarise(answers: list[Record], mark: Record, params: EvaluateParams, gate: GateParams) -> Record:
    """The report: per arm means with intervals, cost, latency; retrieval; which questions these were."""
    arms = {arm: [record for record in answers if record["arm"] == arm] for arm in ARMS}
    arms = {arm: records for arm, records in arms.items() if records}
    first = next(iter(arms.values()))
    unanswerable = sum(record["document"] is None for record in first)
    return {
        "format": FORMAT,
        "yardstick": mark["yardstick"],
        "questions": {"digest": mark["questions"], "count": len(first), "unanswerable": unanswerable},
        "currency": params.prices.currency,
        "arms": {arm: arm_summary(arm, records, params, gate) for arm, records in arms.items()},
        "slices": {name: slice_summary(arms, name, params) for name in slice_names(first)},
        "retrieval": retrieval_summary(answers),
    }


def cluster(record: Record) -> str:
    """Questions on one page stand or fall together; one that no page answers stands alone."""
    return str(record["document"] or record["question"])


def arm_summary(arm: str, records: list[Record], params: EvaluateParams, gate: GateParams) -> Record:
    tokens = {name: float(np.mean([record[name] for record in records])) for name in ("prompt_tokens", "completion_tokens")}
    answerable = [record for record in records if record["document"]]
    without = [record for record in records if not record["document"]]
    metrics = {name: interval(records, name, params) for name in METRICS}
    metrics["fact_answerable"] = interval(answerable, "fact", params)
    metrics["abstention"] = interval(without, "abstained", params)
    metrics["false_abstention"] = interval(answerable, "abstained", params)
    metrics |= {name: interval(of_metric(records, name), name, params) for name in records[0].get("metrics", {})}
    return {
        "metrics": {name: values for name, values in metrics.items() if values},
        "cost": cost(arm, tokens["prompt_tokens"], tokens["completion_tokens"], gate.cost),
        **spending(records, params.prices),
        **tokens,
    }


def slice_names(records: list[Record]) -> list[str]:
    return sorted({name for record in records for name in record["slices"]})


def slice_summary(arms: Mapping[Arm, list[Record]], name: str, params: EvaluateParams) -> Record:
    """Per arm what it scores on one slice, with `n`: a mean over all can hide a topic that got worse."""
    within = {arm: [record for record in records if name in record["slices"]] for arm, records in arms.items()}
    return {arm: dict(zip(SLICED, sliced_intervals(records, params), strict=True)) for arm, records in within.items()}


def sliced_intervals(records: list[Record], params: EvaluateParams) -> list[Record]:
    """Of SLICED at once, which every answer has: resampling the pages is what takes time."""
    values = np.array([[record["scores"][name] for name in SLICED] for record in records])
    pages = [cluster(record) for record in records]
    return [asdict(found) for found in intervals(values, pages, params.confidence, params.resamples, params.seed)]


def interval(records: list[Record], name: str, params: EvaluateParams) -> Record | None:
    values = [record["scores"][name] for record in records]
    if not records or any(value is None for value in values):
        return None
    pages = [cluster(record) for record in records]
    found = intervals(np.array(values), pages, params.confidence, params.resamples, params.seed)[0]
    return {"mean": found.mean, "low": found.low, "high": found.high, "n": found.n}


def write_results(out: Path, answers: list[Record], report: Record, golden: Mapping[str, Any], prompt: Mapping[str, Any]) -> None:
    """The report last: a folder with a report is whole. `prompt` is what was asked with, for a release to pin."""
    write_jsonl(out / "answers.jsonl", sorted(answers, key=lambda record: (record["question"], record["arm"])))
    write_json(out / "prompt.json", prompt)
    write_json(out / "golden.json", golden)
    write_json(out / "report.json", report)


def draw(report: Record, out: Path, gate: GateParams) -> None:
    arms = report["arms"]
    floors = {"primary": gate.floors.primary, "fact_answerable": gate.floors.fact}
    arms_with_intervals({arm: values["metrics"] for arm, values in arms.items()}, out / "arms.png", floors)
    quality_against_cost({arm: (values["cost"], values["metrics"]["primary"]) for arm, values in arms.items()}, out / "cost.png")


def flat_metrics(report: Record) -> Record:
    """What `dvc metrics show` and MLflow list: means only."""
    arms = {
        arm: {name: round(metric["mean"], 4) for name, metric in values["metrics"].items()} | {"cost": round(values["cost"], 1)}
        for arm, values in report["arms"].items()
    }
    for arm, values in arms.items():
        say(f"{arm:9} " + "  ".join(f"{name} {values[name]:.3f}" for name in ("primary", "fact", "citation", "style")))
    return {"arms": arms, "retrieval": {name: round(value, 4) for name, value in report["retrieval"].items()}}


if __name__ == "__main__":
    run_stage(evaluate)
