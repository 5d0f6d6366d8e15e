"""What the chosen retrieval finds on questions without part in the choice: `python tests/benchmarks/retrieval_quality.py CLONE`.

CLONE has a built index and questions (tests/benchmarks/real_data.py makes one). All questions that name a page go into five
folds, whole pages each. On four folds fusion, weight and k are chosen by the function that the stage `retrieval` uses, and scored
on the fifth; the folds are pooled. Beside it stand both legs and reciprocal ranks, which are not chosen. Where facts are known
there is a table for the passages that state them, as the stage counts, and in any case one for the pages. Intervals
are 95 % bootstraps over pages. `--params FOLDER` takes another retrieval.yaml, `--json` prints all figures.
"""

import argparse
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tasks.embedding import Embedder
from tasks.params import RetrievalParams
from tasks.params_files import load
from tasks.records import Record, read_json, read_jsonl
from tasks.retrieval import Legs, choose, ranked_items
from tasks.scores import named, retrieval_scores
from tasks.search import Index
from tasks.statistics import by_page, intervals, resampled_means

ROOT = Path(__file__).parents[2]
FOLDS, SEED, RESAMPLES = 5, 1, 5000
SHOWN = ("ndcg@10", "recall@1", "recall@5", "recall@10")
TEXT, VECTOR = {"fusion": "none", "text_weight": 1.0}, {"fusion": "none", "text_weight": 0.0}
FIXED = {"text alone": TEXT, "vector alone": VECTOR, "reciprocal ranks": {"fusion": "rrf", "text_weight": 0.5}}
Scores = dict[str, dict[str, float]]  # of one way of retrieval: name -> question -> value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path)
    parser.add_argument("--params", type=Path, default=ROOT / "params")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    params = load(RetrievalParams, options.params)
    asked = {record["id"]: record for record in questions(options.clone)}
    legs = search(options.clone, list(asked.values()), params.candidates)
    found = report(legs, asked, params)
    print(json.dumps(found, indent=2) if options.json else written(found))


def questions(clone: Path) -> list[Record]:
    splits = [read_jsonl(clone / f"data/questions/{split}.jsonl") for split in ("train", "validation", "test")]
    return [record for split in splits for record in split if record["document"]]


def search(clone: Path, asked: Sequence[Record], candidates: int) -> dict[str, Legs]:
    manifest = read_json(clone / "data/index/manifest.json")
    index = Index(str(clone / ".tandem/index"), manifest, Embedder(clone / "data/models/embedder"))
    index.expect([record["question"] for record in asked])
    return {record["id"]: index.legs(record["question"], candidates) for record in asked}


def report(legs: Mapping[str, Legs], asked: Mapping[str, Record], params: RetrievalParams) -> dict[str, Any]:
    """All tables; in the first a question without a fact counts by its page."""
    chosen = chosen_by_fold(legs, asked, params)
    names = Counter(f"{choice['fusion']} {choice['text_weight']}, k {choice['k']}" for choice in chosen.values())
    ways: dict[str, Callable[[str], Mapping[str, Any]]] = {"chosen on the other folds": lambda question: chosen[question]}
    ways |= {name: lambda question, fixed=fixed: fixed for name, fixed in FIXED.items()}  # type: ignore[misc]
    pages = {question: record["document"] for question, record in asked.items()}
    bare = {question: record | {"fact": None} for question, record in asked.items()}
    tables = {"passages that state the fact": asked, "pages": bare}
    if not any(record["fact"] for record in asked.values()):
        del tables["passages that state the fact"]
    return {
        "questions": len(asked),
        "pages": len(set(pages.values())),
        "chosen": {name: f"{count} questions" for name, count in names.items()},
        "tables": {title: table(ways, legs, records, pages) for title, records in tables.items()},
        "among passages": {name: among_passages(way, legs, bare, pages) for name, way in ways.items()},
    }


def chosen_by_fold(
    legs: Mapping[str, Legs], asked: Mapping[str, Record], params: RetrievalParams
) -> dict[str, Mapping[str, Any]]:
    """Question -> the settings that were chosen without it and without the other questions on its page."""
    fold = folds([record["document"] for record in asked.values()])
    settings = {}
    for number in range(FOLDS):
        others = {question: record for question, record in asked.items() if fold[record["document"]] != number}
        settings[number] = choose({question: legs[question] for question in others}, others, params)[0]
    return {question: settings[fold[record["document"]]] for question, record in asked.items()}


def folds(documents: Sequence[str]) -> dict[str, int]:
    """Page -> fold. Pages with most questions first, each to the fold that has fewest, so that folds are of a size."""
    counts, filled, fold = Counter(documents), [0] * FOLDS, {}
    for page in sorted(counts, key=lambda page: (-counts[page], hashlib.sha256(f"{SEED}{page}".encode()).hexdigest())):
        fold[page] = min(range(FOLDS), key=lambda number: filled[number])
        filled[fold[page]] += counts[page]
    return fold


def table(
    ways: Mapping[str, Callable[[str], Mapping[str, Any]]],
    legs: Mapping[str, Legs],
    asked: Mapping[str, Record],
    pages: Mapping[str, str],
) -> dict[str, Any]:
    scores = {name: scored(way, legs, asked, pages) for name, way in ways.items()}
    rows = {name: {metric: with_interval(found[metric], pages) for metric in SHOWN} for name, found in scores.items()}
    better = max(("text alone", "vector alone"), key=lambda name: rows[name]["ndcg@10"]["mean"])
    lead = {metric: difference(scores["chosen on the other folds"][metric], scores[better][metric], pages) for metric in SHOWN}
    return {"ways": rows, "better leg": better, "chosen minus better leg": lead}


def scored(
    way: Callable[[str], Mapping[str, Any]], legs: Mapping[str, Legs], asked: Mapping[str, Record], pages: Mapping[str, str]
) -> Scores:
    return retrieval_scores(ranking(way, legs, asked), pages)


def ranking(
    way: Callable[[str], Mapping[str, Any]], legs: Mapping[str, Legs], asked: Mapping[str, Record]
) -> dict[str, list[str]]:
    """Question -> what each passage counts as, best first."""
    ranked: dict[str, list[str]] = {}
    for question, record in asked.items():
        items = {question: named(legs[question][2], record)}
        ranked |= ranked_items(legs, items, way(question))
    return ranked


def among_passages(
    way: Callable[[str], Mapping[str, Any]], legs: Mapping[str, Legs], asked: Mapping[str, Record], pages: Mapping[str, str]
) -> dict[str, dict[str, float]]:
    """Whether a passage of the page is among the first 1, 5, 10 passages, of which several may be of one wrong page."""
    ranked = ranking(way, legs, asked)
    return {
        f"recall@{k}": with_interval({question: float(pages[question] in ranked[question][:k]) for question in asked}, pages)
        for k in (1, 5, 10)
    }


def with_interval(values: Mapping[str, float], pages: Mapping[str, str]) -> dict[str, float]:
    order = sorted(values)
    found = intervals(np.array([values[key] for key in order]), [pages[key] for key in order], 0.95, RESAMPLES, SEED)[0]
    return {"mean": found.mean, "low": found.low, "high": found.high}


def difference(values: Mapping[str, float], others: Mapping[str, float], pages: Mapping[str, str]) -> dict[str, float]:
    """Paired: questions are resampled, by page, not systems."""
    order = sorted(values)
    groups = by_page(np.array([values[key] - others[key] for key in order]), [pages[key] for key in order])
    low, high = np.quantile(resampled_means(groups, RESAMPLES, SEED), [0.025, 0.975])
    return {"mean": float(groups.mean[0]), "low": float(low), "high": float(high)}


def written(found: Mapping[str, Any]) -> str:
    lines = [f"{found['questions']} questions on {found['pages']} pages; chosen: {json.dumps(found['chosen'])}"]
    for title, part in found["tables"].items():
        lines += ["", f"| {title} | {' | '.join(SHOWN)} |", "|---" * (len(SHOWN) + 1) + "|"]
        lines += [f"| {name} | {' | '.join(cell(row[metric]) for metric in SHOWN)} |" for name, row in part["ways"].items()]
        lead = part["chosen minus better leg"]
        lines.append(f"| chosen minus {part['better leg']} | {' | '.join(cell(lead[metric], '+') for metric in SHOWN)} |")
    lines += ["", "| right page among the first 1, 5, 10 passages | @1 | @5 | @10 |", "|---|---|---|---|"]
    lines += [
        f"| {name} | {' | '.join(cell(value) for value in row.values())} |" for name, row in found["among passages"].items()
    ]
    return "\n".join(lines)


def cell(value: Mapping[str, float], sign: str = "") -> str:
    return f"{value['mean']:{sign}.3f} ({value['low']:{sign}.3f} to {value['high']:{sign}.3f})"


if __name__ == "__main__":
    main()
