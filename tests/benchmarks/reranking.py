"""What a cross-encoder adds to the retrieval of a corpus: `python tests/benchmarks/reranking.py CLONE`.

CLONE has a built index and questions (`make demo` leaves one). `--reranker FOLDER` names a cross-encoder; without, one is trained
from the built-in embedder's weights (a head of one output, binary cross-entropy; sentence-transformers' CrossEncoderTrainer) on
the training questions, each with the passage that holds its answer and `--negatives` of the first passages that do not, and kept
in `--out`. The stage's own function then chooses on the validation questions, with the reranker and without, and both choices are
scored on the test questions, whose pages had no part in anything. Intervals are 95 % bootstraps over pages.
"""

import argparse
import random
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))  # beside it
from retrieval_quality import SHOWN, difference, with_interval
from retriever_tuning import cell

from tasks.models import minilm_folder, write_reranker
from tasks.params import RerankerSource, RetrievalParams
from tasks.params_files import load
from tasks.records import Record, read_json, read_jsonl
from tasks.reranking import Reranker, as_read
from tasks.retrieval import Legs, Scores, choose, ranked_items, read_all
from tasks.scores import answers, named, retrieval_scores
from tasks.search import Index, fused, open_index
from tasks.stage import keep_freed_memory

ROOT = Path(__file__).parents[2]
SEED = 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("clone", type=Path)
    parser.add_argument("--reranker", type=Path, help="as a hub would hold it; without, one is trained")
    parser.add_argument("--backend", choices=("onnx-int8", "torch"), default="onnx-int8")
    parser.add_argument("--out", type=Path, help="where the trained one is kept")
    parser.add_argument("--negatives", type=int, default=7)
    parser.add_argument("--epochs", type=float, default=2.0)
    options = parser.parse_args()
    params = load(RetrievalParams, ROOT / "params")
    keep_freed_memory()
    with tempfile.TemporaryDirectory(prefix="tandem-reranking-") as scratch:
        data = options.clone / "data"
        searcher = open_index(str(options.clone / ".tandem/index"), data / "index", data / "models/embedder", data / "retriever")
        folder = options.reranker or options.out or Path(scratch) / "trained"
        if not options.reranker:
            train(folder, lessons(searcher, options, params), options.epochs)
        reranker = prepared(folder, Path(scratch) / "reranker", options.backend)
        print(report(searcher, reranker, options.clone, params))


def questions(clone: Path, split: str) -> list[Record]:
    return [record for record in read_jsonl(clone / f"data/questions/{split}.jsonl") if record["document"]]


def legs_of(searcher: Index, asked: Sequence[Record], params: RetrievalParams) -> dict[str, Legs]:
    searcher.expect([record["question"] for record in asked])
    return {record["id"]: searcher.legs(record["question"], params.candidates) for record in asked}


def lessons(searcher: Index, options: argparse.Namespace, params: RetrievalParams) -> list[tuple[str, str, float]]:
    """(question, passage, 1 if it holds the answer)"""
    settings, deal = read_json(options.clone / "data/retrieval/settings.json"), random.Random(SEED)
    asked, made = questions(options.clone, "train"), []
    legs = legs_of(searcher, asked, params)
    for record in asked:
        text, vector, passages = legs[record["id"]]
        first = [passages[key] for key, _ in fused(text, vector, settings)]
        right = [passage for passage in first if answers(passage, record)][:1]
        wrong = [passage for passage in first[: params.rerank] if not answers(passage, record)]
        chosen = deal.sample(wrong, min(options.negatives, len(wrong)))
        made += [(record["question"], as_read(each), float(each in right)) for each in [*right, *chosen] if right]
    deal.shuffle(made)
    return made


def train(folder: Path, made: Sequence[tuple[str, str, float]], epochs: float) -> None:
    import torch
    from datasets import Dataset
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder.losses import BinaryCrossEntropyLoss

    columns = dict(zip(("question", "passage", "label"), map(list, zip(*made, strict=True)), strict=True))
    right = sum(label for _, _, label in made)
    model = CrossEncoder(str(minilm_folder()), num_labels=1, max_length=256, local_files_only=True)
    weight = torch.tensor((len(made) - right) / right)
    arguments = CrossEncoderTrainingArguments(
        output_dir=str(folder.with_name(f"{folder.name}-checkpoints")), num_train_epochs=epochs, learning_rate=1e-4,
        per_device_train_batch_size=32, warmup_steps=0.1, save_strategy="no", report_to="none", seed=SEED, disable_tqdm=True,
        logging_steps=20,
    )  # fmt: skip
    started = time.monotonic()
    CrossEncoderTrainer(
        model=model,
        args=arguments,
        train_dataset=Dataset.from_dict(columns),
        loss=BinaryCrossEntropyLoss(model, pos_weight=weight),
    ).train()
    print(f"trained on {len(made)} pairs of {int(right)} questions in {time.monotonic() - started:.0f} s", flush=True)
    model.save_pretrained(str(folder), create_model_card=False)


def prepared(folder: Path, out: Path, backend: str) -> Reranker:
    source = {"source": "folder", "id": str(folder), "revision": "", "max_tokens": 256, "backend": backend}
    write_reranker(RerankerSource.model_validate(source), out)
    return Reranker(out)


def report(searcher: Index, reranker: Reranker, clone: Path, params: RetrievalParams) -> str:
    found: dict[str, tuple[dict[str, Legs], list[Record], Scores]] = {}
    for split in ("validation", "test"):
        asked = questions(clone, split)
        legs = legs_of(searcher, asked, params)
        started = time.monotonic()
        found[split] = legs, asked, read_all(reranker, asked, legs, params)
        pairs = sum(map(len, found[split][2].values()))
        print(f"{split}: {(time.monotonic() - started) / pairs * 1000:.2f} ms a pair, {pairs} pairs", flush=True)
    legs, asked, scores = found["validation"]
    by_id = {record["id"]: record for record in asked}
    plain, _ = choose(legs, by_id, params)
    chosen, curve = choose(legs, by_id, params, scores)
    best = max((point for point in curve if "rerank" in point), key=lambda point: point["ndcg@10"])
    read = chosen if "rerank" in chosen else {key: best[key] for key in ("fusion", "text_weight", "rerank")}
    lines = [f"chosen without: {plain}", f"chosen with: {chosen}"]
    for split in found:
        lines += ["", *table(*found[split], {"without": plain, "with the reranker": read}, split)]
    return "\n".join(lines)


def table(
    legs: Mapping[str, Legs], asked: Sequence[Record], scores: Scores, ways: Mapping[str, Mapping[str, Any]], split: str
) -> list[str]:
    items = {record["id"]: named(legs[record["id"]][2], record) for record in asked}
    pages = {record["id"]: record["document"] for record in asked}
    found = {name: retrieval_scores(ranked_items(legs, items, way, scores), pages) for name, way in ways.items()}
    head = f"| {split}: {len(asked)} questions, {len(set(pages.values()))} pages | {' | '.join(SHOWN)} |"
    rows = [
        f"| {name} | {' | '.join(cell(with_interval(values[metric], pages)) for metric in SHOWN)} |"
        for name, values in found.items()
    ]
    plain, read = found.values()
    gain = " | ".join(cell(difference(read[metric], plain[metric], pages), "+") for metric in SHOWN)
    return [head, "|---|---|---|---|---|", *rows, f"| difference | {gain} |"]


if __name__ == "__main__":
    main()
