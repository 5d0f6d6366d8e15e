"""The model card of a release, in the form that Hugging Face uses: YAML for machines, Markdown for people; no text of a page."""

import html
from typing import Any

from tasks.headline import headline, scoring
from tasks.judged import WORDS, Judged
from tasks.page import TEMPLATES, visible
from tasks.page_parts import facts
from tasks.page_rows import TITLES, columns_of, interval, rights
from tasks.params import ARMS, uses_adapter, uses_passages
from tasks.records import Record
from tasks.reports import number

PROJECT = "tandem"
SHOWN = {"primary": "score", **TITLES}


def card(judged: Judged) -> str:
    """The same judgement gives the same text, whenever it is made."""
    from huggingface_hub import ModelCard

    text: str = ModelCard.from_template(
        metadata(judged), template_str=(TEMPLATES / "card.md").read_text(), **told(judged)
    ).content
    return text.rstrip() + "\n"


def metadata(judged: Judged) -> Any:
    """License and language are the house's to add: those of its documents and of the base model hold."""
    from huggingface_hub import ModelCardData

    base = judged.release["base"]
    return ModelCardData(
        model_name=f"{PROJECT}-{judged.identity[:12]}",
        base_model=base["id"] if base["source"] == "hub" else None,
        library_name="peft" if uses_adapter(judged.arm) else "transformers",
        pipeline_tag="question-answering",
        tags=[PROJECT, *(["lora"] if uses_adapter(judged.arm) else []),
              *(["retrieval-augmented-generation"] if uses_passages(judged.arm) else [])],
        eval_results=results(judged),
    )  # fmt: skip


def results(judged: Judged) -> list[Any]:
    from huggingface_hub import EvalResult

    questions, metrics = judged.report["questions"], served(judged)
    return [
        EvalResult(
            task_type="question-answering", dataset_type=PROJECT, dataset_name="test questions of the house",
            dataset_split="test", dataset_revision=questions["digest"][:12], metric_type=name,
            metric_value=round(value["mean"], 4),
        )
        for name in SHOWN if (value := metrics.get(name)) and number(value["mean"])
    ]  # fmt: skip


def told(judged: Judged) -> Record:
    report, release = judged.report, judged.release
    columns = columns_of(judged.answers, None, None, [])
    names = [name for name in SHOWN if any(name in report["arms"][arm]["metrics"] for arm in report["arms"])]
    return {
        "name": judged.name,
        "project": PROJECT,
        "identity": judged.identity,
        "headline": " ".join(headline(judged, rights(columns, list(report["arms"])))),
        "documents": release["corpus"]["documents"],
        "arm": judged.arm,
        "words": WORDS.get(judged.arm, judged.arm),
        "abstention": shown(served(judged).get("abstention")),
        "data": data(judged),
        "training": training(judged),
        "training_says": training_says(judged.training or {}),
        "untrained": "No training is known of: the arm that is served has no adapter, or one that was made elsewhere.",
        "count": report["questions"]["count"],
        "unanswerable": report["questions"].get("unanswerable", 0),
        "scoring": scoring(judged.verdict),
        "titles": [SHOWN[name] for name in names],
        "arms": [arm_row(arm, report["arms"][arm], names, judged.arm) for arm in ARMS if arm in report["arms"]],
        "reasons": list(map(plain, judged.verdict["reasons"])),
        "limits": limits(judged),
        "lineage": [(name, plain(value)) for name, value in facts(judged) if name != "release"],
    }


def plain(text: str) -> str:
    """A name of a page's folder must not be markup, nor end the cell of a table."""
    return html.escape(" ".join(str(visible(text)).split()), quote=False).replace("|", "&#124;").replace("[", "&#91;")


def arm_row(arm: str, values: Record, names: list[str], served: str) -> Record:
    cells = [shown(values["metrics"].get(name)) for name in names]
    return {
        "name": f"**{arm}** (served)" if arm == served else arm,
        "shown": cells,
        "cost": f"{values['cost']:.0f}" if number(values.get("cost")) else "–",
    }


def served(judged: Judged) -> Record:
    """The metrics of the arm to be served; none where a broken evaluation lacks it."""
    found: Record = judged.report["arms"].get(judged.arm, {}).get("metrics", {})
    return found


def shown(metric: Record | None) -> str:
    found = interval(metric)
    return f"{found['mean']} ({found['interval']})" if found["interval"] else "–"


def data(judged: Judged) -> list[tuple[str, str]]:
    examples = judged.examples.get("train", {})
    kinds = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in sorted(examples.items()) if name != "examples")
    rows = [
        ("documents", f"{judged.release['corpus']['documents']} (digest {judged.release['corpus']['digest'][:12]})"),
        ("passages", f"{judged.release['index']['rows']} (index {judged.release['index']['tag']})"),
        ("test questions", f"{judged.report['questions']['count']} (digest {judged.report['questions']['digest'][:12]})"),
    ]
    return [
        *rows,
        *([("training examples", f"{examples['examples']}: {kinds}")] if uses_adapter(judged.arm) and examples else []),
    ]


def training(judged: Judged) -> list[tuple[str, str]]:
    """Where the served arm has an adapter: the params that it was made with, and what was measured meanwhile."""
    if not uses_adapter(judged.arm) or not judged.training:
        return []
    measured = {name: value for name, value in judged.training.items() if isinstance(value, int | float)}
    rows = [
        (name.replace("_", " "), f"{value:.4g}" if isinstance(value, float) else str(value)) for name, value in measured.items()
    ]
    return [*((f"params: {key}", str(value)) for key, value in sorted(judged.training_params.items())), *rows]


def training_says(known: Record) -> str:
    first, best = known.get("validation_loss_first"), known.get("validation_loss_best")
    loss = f" The loss on validation examples went from {first:.3f} to {best:.3f}." if first and best else ""
    return f"A LoRA adapter of the base model, on examples in the very prompt format that is served.{loss}"


def limits(judged: Judged) -> list[str]:
    """What a reader would otherwise assume."""
    verdict, retrieval = judged.verdict, judged.report.get("retrieval") or {}
    found = [
        "It knows the documents as they were when this release was made; a page that changed since is answered as it was.",
        "The figures hold for questions like the test questions. Nothing was measured about other ones, about other languages, "
        "or about what somebody does who wants it to fail.",
        "It was not examined for bias or harm; its answers are as right and as fair as the documents and the base model.",
    ]
    if verdict.get("smallest_difference") is not None:
        found.append(f"These questions resolve differences of {verdict['smallest_difference']:.2f} or more in the score.")
    if uses_passages(judged.arm) and "recall@10" in retrieval:
        share = f"{retrieval['recall@10']:.0%}"
        found.append(f"The right page is among the ten that search ranks first for {share} of the questions that a page answers.")
    weak = weakest(judged)
    return [*found, *([f"It is weakest on: {weak}."] if weak else [])]


def weakest(judged: Judged, least: int = 5, most: int = 3) -> str:
    """The slices of enough questions with the lowest score of the served arm."""
    found = [(name, arms.get(judged.arm, {}).get("primary")) for name, arms in (judged.report.get("slices") or {}).items()]
    ranked = sorted(
        (value["mean"], plain(name)) for name, value in found if value and number(value["mean"]) and value.get("n", 0) >= least
    )
    return ", ".join(f"{name} ({mean:.2f})" for mean, name in ranked[:most]) if len(ranked) > most else ""
