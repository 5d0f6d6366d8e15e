"""The tables of the report's page: arms, slices, and every question with the answers of all arms."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.params import ARMS
from tasks.prompts import cited_passages
from tasks.records import Record
from tasks.reports import number, read_answer

Columns = dict[str, dict[str, Record]]  # title of a column -> question -> the answer there
TITLES = {"fact_answerable": "facts", "citation": "citations", "style": "style", "abstention": "abstains"}
HIDDEN = ("primary",)  # stands first in a question's scores


def columns_of(answers: Sequence[Record], champion: str | None, arm: str | None, live: Sequence[Record]) -> Columns:
    """The arms in the order of params, then what the champion answered with the arm that it serves."""
    found = {name: {record["question"]: record for record in answers if record["arm"] == name} for name in ARMS}
    columns = {name: records for name, records in found.items() if records}
    served = {record["question"]: record for record in live if record["arm"] == arm}
    return columns | ({f"{champion} ({arm})": served} if served else {})


def right(record: Record) -> bool:
    """A score that is no number is none: the gate refuses such a report, and its page says so too."""
    return number(record["scores"].get("fact")) and read_answer(Path("answers.jsonl"), 0, record).right


def interval(metric: Mapping[str, float] | None) -> Record:
    if not metric or not all(number(metric.get(side)) for side in ("mean", "low", "high")):
        return {"mean": "–", "interval": ""}
    return {"mean": f"{metric['mean']:.2f}", "interval": f"{metric['low']:.2f} to {metric['high']:.2f}"}


# --- Arms and slices


def arm_table(report: Record, verdict: Record, columns: Columns) -> list[Record]:
    """A row per figure that the report has, with a cell per arm."""
    arms = {arm: report["arms"][arm] for arm in ARMS if arm in report["arms"]}
    above = {row["arm"]: "yes" if row["above_floors"] else "no" for row in verdict.get("arms") or []}
    rows = {"right": [plain(str(count)) for count in rights(columns, list(arms)).values()]}
    for name, title in {"primary": "score", **TITLES}.items():
        rows[title] = [interval(values["metrics"].get(name)) for values in arms.values()]
    rows["cost"] = [plain(f"{values['cost']:.0f}" if number(values.get("cost")) else "–") for values in arms.values()]
    rows["above the floors"] = [plain(above.get(arm, "–")) for arm in arms]
    return [{"title": title, "shown": cells} for title, cells in rows.items() if any(cell["mean"] != "–" for cell in cells)]


def more_figures(report: Record) -> list[Record]:
    """The metrics beside those of the table: the rules of the house, and whatever else an evaluation measured."""
    arms = {arm: report["arms"][arm]["metrics"] for arm in ARMS if arm in report["arms"]}
    names = sorted({name for metrics in arms.values() for name in metrics} - {"primary", *TITLES})
    return [
        {"title": name.replace("_", " "), "shown": [interval(metrics.get(name)) for metrics in arms.values()]} for name in names
    ]


def rights(columns: Columns, arms: Sequence[str]) -> dict[str, int]:
    return {arm: sum(map(right, columns.get(arm, {}).values())) for arm in arms}


def plain(text: str) -> Record:
    return {"mean": text, "interval": ""}


def slice_rows(report: Record, served: str, names: Sequence[str]) -> list[Record]:
    """The weakest of the served arm first. A metric that a slice does not have is a dash."""
    rows = []
    for name, arms in (report.get("slices") or {}).items():
        found: dict[str, Any] = {arm: (arms.get(arm) or {}).get("primary") for arm in ARMS if arm in report["arms"]}
        counts = [metric.get("n", 0) for metric in found.values() if metric]
        rows.append(
            {
                "name": name,
                "number": names.index(name) if name in names else None,
                "count": counts[0] if counts else 0,
                "means": [
                    interval(metric) | {"share": f"{metric['mean']:.2f}" if metric and number(metric["mean"]) else None}
                    for metric in found.values()
                ],
                "rank": (found.get(served) or {}).get("mean", 2.0),
            }
        )
    return sorted(rows, key=lambda row: (row["rank"], row["name"]))


def slice_names(rows: Sequence[Record]) -> list[str]:
    return sorted({name for row in rows for name in row["slice_names"]})


# --- Questions


def question_rows(columns: Columns, report: Record, verdict: Record) -> tuple[list[Record], list[Record]]:
    """A row per question, and every passage that was given to an arm once, numbered: a row names it by its number."""
    turned = verdict.get("changes") or {}
    change = {question: side for side in ("lost", "won") for question in turned.get(side, ())}
    passages: dict[str, Record] = {}
    questions = list(dict.fromkeys(question for records in columns.values() for question in records))
    asked = [{title: records[name] for title, records in columns.items() if name in records} for name in questions]
    names = sorted({name for records in asked for record in records.values() for name in record.get("slices") or []})
    rows = [question_row(records, list(columns), change, names, passages) for records in asked]
    return rows, list(passages.values())


def question_row(
    records: dict[str, Record], titles: list[str], change: Mapping[str, str], names: list[str], passages: dict[str, Record]
) -> Record:
    first = next(iter(records.values()))
    cells = [cell(title, records[title]) if title in records else None for title in titles]
    score_names = list(dict.fromkeys(name for record in records.values() for name in values_of(record)))
    slices = first.get("slices") or []
    return {
        "text": first.get("text") or first["question"],
        "page": first["document"],
        "reference": first.get("reference"),
        "cells": cells,
        "right": "".join("-" if each is None else str(int(each["right"])) for each in cells),
        "slices": " ".join(str(names.index(name)) for name in slices),
        "slice_names": slices,
        "change": change.get(first["question"], ""),
        "score_names": ["score", *(name.replace("_", " ") for name in score_names if name not in HIDDEN), "tokens"],
        "scores": [
            {"column": title, "shown": scores_of(record, [name for name in score_names if name not in HIDDEN])}
            for title, record in records.items()
        ],
        "given": given(records, passages),
    }


def cell(title: str, record: Record) -> Record:
    return {"column": title, "answer": record.get("answer", ""), "right": right(record)}


def values_of(record: Record) -> Record:
    """What the gate weighs, then what is only reported."""
    return {**(record.get("metrics") or {}), **record["scores"]}


def scores_of(record: Record, names: Sequence[str]) -> list[str]:
    tokens = f"{record['prompt_tokens']} + {record['completion_tokens']}"
    values = [values_of(record).get(name) for name in ("primary", *names)]
    return [*(f"{value:.2f}" if number(value) else "–" for value in values), tokens]


def given(records: dict[str, Record], passages: dict[str, Record]) -> list[Record]:
    """Columns that were given the same passages share them; cited is said of each."""
    groups: dict[tuple[str, ...], dict[str, Record]] = {}
    for title, record in records.items():
        if record.get("passages"):
            groups.setdefault(tuple(passage["id"] for passage in record["passages"]), {})[title] = record
    return [
        {"arms": ", ".join(group), "passages": [told(place, group, passages) for place in range(len(key))]}
        for key, group in groups.items()
    ]


def told(place: int, group: dict[str, Record], passages: dict[str, Record]) -> Record:
    passage: Any = next(iter(group.values()))["passages"][place]
    known = {"number": len(passages) + 1, "page": passage["document"], "heading": passage["heading"], "text": passage["text"]}
    entry = passages.setdefault(passage["id"], known)
    cited = [title for title, record in group.items() if passage["id"] in cited_ids(record)]
    return {
        "number": entry["number"],
        "page": passage["document"],
        "score": f"{passage['score']:.3f}" if isinstance(passage.get("score"), int | float) else "–",
        "cited": ", ".join(cited),
    }


def cited_ids(record: Record) -> set[str]:
    return {passage["id"] for passage in cited_passages(record.get("answer", ""), record["passages"])}
