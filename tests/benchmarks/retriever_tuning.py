"""What a tuned embedder finds on questions that had no part in it: `python tests/benchmarks/retriever_tuning.py CLONE`.

CLONE has passages, questions and an embedder (`make corpus; dvc repro retriever`). With `--encoder FOLDER --sides query|both` it
is an embedder that the stage `retriever` made of the training questions. Without, five folds of whole pages over all questions
that name one: tuned on four by the stage's own functions, scored on the fifth, the folds pooled; nothing is chosen there. Fused:
`ratio` with `--weight` for the full text. 95 % bootstraps over pages.
"""

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # beside it
from retrieval_quality import FOLDS, difference, folds, with_interval

from tasks.backends import Vectors
from tasks.contrastive import tune
from tasks.embedding import Embedder
from tasks.params import IndexParams, RetrieverParams
from tasks.params_files import load
from tasks.records import Record, read_jsonl
from tasks.retrieval import Legs
from tasks.retriever import chosen_passages, embed, finish, lesson, scored, text_leg, with_vectors
from tasks.search import Ranking

ROOT = Path(__file__).parents[2]
CANDIDATES = 50
SHOWN = ("ndcg@10", "recall@1", "recall@5", "recall@10")
WAYS = ("full text alone", "plain, vectors", "tuned, vectors", "plain, fused", "tuned, fused")
LEADS = (("tuned, vectors", "plain, vectors"), ("tuned, fused", "plain, fused"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path)
    parser.add_argument("--encoder", type=Path)
    parser.add_argument("--sides", choices=("query", "both"), default="query")
    parser.add_argument("--splits", nargs="+", default=["validation", "test"], help="questions that are asked, with --encoder")
    parser.add_argument("--vectors", type=Path, help="a vector store to take from and to add to")
    parser.add_argument("--weight", type=float, default=0.5)
    parser.add_argument("--epochs", type=float, default=load(RetrieverParams, ROOT / "params").epochs)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tandem-tuning-") as scratch:
        print(written(*measure(options, Path(scratch))))


def measure(options: argparse.Namespace, scratch: Path) -> tuple[dict[str, Any], dict[str, str]]:
    """Scores of every way, name -> question -> value, and the page of every question."""
    passages = read_jsonl(options.clone / "data/chunks/passages.jsonl")
    plain, store = Embedder(options.clone / "data/models/embedder"), options.vectors or scratch / "vectors.sqlite"
    matrix, _ = embed(plain, passages, store)
    splits = options.splits if options.encoder else ["train", "validation", "test"]
    asked = [record for split in splits for record in read_jsonl(options.clone / f"data/questions/{split}.jsonl")]
    asked = [record for record in asked if record["document"]]
    text = text_leg(passages, asked, load(IndexParams, ROOT / "params"), CANDIDATES)
    before = with_vectors(text, plain, matrix, passages, asked, CANDIDATES)
    if options.encoder:
        tuned = Embedder(options.encoder)
        rows = embed(tuned, passages, store)[0] if options.sides == "both" else matrix
        after = with_vectors(text, tuned, rows, passages, asked, CANDIDATES)
    else:
        after = folded(options, plain, passages, matrix, asked, text, scratch, store)
    return scores(before, after, asked, options.weight)


def folded(
    options: argparse.Namespace, plain: Embedder, passages: list[Record], matrix: Vectors, asked: list[Record],
    text: Mapping[str, Ranking], scratch: Path, store: Path,
) -> dict[str, Legs]:  # fmt: skip
    """Every question by the embedder that was tuned without it and without the others about its page."""
    params = load(RetrieverParams, ROOT / "params").model_copy(update={"sides": options.sides, "epochs": options.epochs})
    fold = folds([record["document"] for record in asked])
    found: dict[str, Legs] = {}
    for number in range(FOLDS):
        records, places = chosen_passages(
            plain, passages, matrix, [record for record in asked if fold[record["document"]] != number], params, frozenset()
        )
        rows = zip(records, places, strict=True)
        lessons = [lesson(record, [passages[place]["embedded"] for place in row]) for record, row in rows]
        fixed = matrix[places] if options.sides == "query" else None
        folder = scratch / f"fold-{number}"
        tune(plain.folder, folder, lessons, fixed, (plain.query_prompt, plain.passage_prompt), plain.max_tokens, params)
        finish(plain, folder, records, options.sides)
        tuned = Embedder(folder)
        held_out = [record for record in asked if fold[record["document"]] == number]
        vectors = embed(tuned, passages, store)[0] if options.sides == "both" else matrix
        found |= with_vectors(text, tuned, vectors, passages, held_out, CANDIDATES)
    return found


def scores(
    plain: Mapping[str, Legs], tuned: Mapping[str, Legs], asked: Sequence[Record], weight: float
) -> tuple[dict[str, Any], dict[str, str]]:
    records = {record["id"]: record for record in asked}
    choices = {"vectors": {"fusion": "none", "text_weight": 0.0}, "fused": {"fusion": "ratio", "text_weight": weight}}
    found = {"full text alone": scored(plain, records, {"fusion": "none", "text_weight": 1.0})}
    for name, choice in choices.items():
        found |= {f"{which}, {name}": scored(legs, records, choice) for which, legs in (("plain", plain), ("tuned", tuned))}
    return found, {key: record["document"] for key, record in records.items()}


def written(found: Mapping[str, Any], pages: Mapping[str, str]) -> str:
    lines = [
        f"{len(pages)} questions on {len(set(pages.values()))} pages",
        "",
        f"| | {' | '.join(SHOWN)} |",
        "|---|---|---|---|---|",
    ]
    for way in WAYS:
        lines.append(f"| {way} | {' | '.join(cell(with_interval(found[way][name], pages)) for name in SHOWN)} |")
    for high, low in LEADS:
        cells = [cell(difference(found[high][name], found[low][name], pages), "+") for name in SHOWN]
        lines.append(f"| {high} minus {low} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(value: Mapping[str, float], sign: str = "") -> str:
    return f"{value['mean']:{sign}.3f} ({value['low']:{sign}.3f} to {value['high']:{sign}.3f})"


if __name__ == "__main__":
    main()
