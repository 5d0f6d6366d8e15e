"""Stage `examples`: training examples as the served assistant would see them.

Each question of the training and validation splits comes with the passages that the index as built retrieves for it, shuffled,
the wrong ones being the hard distractors. A share comes without the right passage, as does a question whose fact no passage
states (the right answer is then to say so), and a share with no passages at all.
"""

import hashlib
from pathlib import Path
from typing import Any

from tasks.errors import InputError
from tasks.params import ExamplesParams, PromptParams
from tasks.prompts import fitting, right_passage, target
from tasks.records import Record, read_json, read_jsonl, value_digest, write_json, write_jsonl
from tasks.search import open_index, widened
from tasks.stage import fresh_folder, run_stage, say


def examples(
    index: Path, embedder: Path, retriever: Path, base: Path, retrieval: Path, questions: Path, out: Path, metrics: Path,
    store: str, params: ExamplesParams, prompt: PromptParams,
) -> None:  # fmt: skip
    """Write out/train.jsonl and out/validation.jsonl: {"id", "prompt": messages, "completion": messages, ...}."""
    searcher = open_index(store, index, embedder, retriever)
    settings = read_json(retrieval / "settings.json")
    tokenizer = load_tokenizer(base)
    fresh_folder(out)
    counts: dict[str, Any] = {}
    for split in ("train", "validation"):
        records = chosen(read_jsonl(questions / f"{split}.jsonl"), getattr(params, f"max_{split}"), params.seed)
        searcher.expect([record["question"] for record in records])
        found = [searcher.search(record["question"], widened(settings)) for record in records]
        made = [
            example(record, hits, settings["k"], tokenizer, params, prompt) for record, hits in zip(records, found, strict=True)
        ]
        write_jsonl(out / f"{split}.jsonl", made)
        counts[split] = count(made)
        say(f"examples: {split}: {counts[split]}")
    write_json(metrics, counts)


def chosen(records: list[Record], most: int, seed: int) -> list[Record]:
    """At most `most` questions, by a hash of their ids: a new question displaces one at most. Those that the corpus does not
    answer are few, and the best lesson in saying so: they come first, up to a quarter."""
    ranked = sorted(records, key=lambda record: value_digest([seed, record["id"]]))
    silent = [record for record in ranked if not record["document"]][: most // 4]
    answered = [record for record in ranked if record["document"]][: most - len(silent)]
    return sorted([*silent, *answered], key=lambda record: str(record["id"]))


def load_tokenizer(base: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base, local_files_only=True)


def example(
    record: Record, hits: list[Record], k: int, tokenizer: Any, params: ExamplesParams, prompt: PromptParams
) -> Record:  # fmt: skip
    """One question -> one example of one of three kinds, chosen by a hash of its id so that adding questions moves none."""
    kind = draw(record["id"], params)
    if kind == "without_right" and record["document"]:  # the next best stand in: with none at all it would teach to guess
        hits = [hit for hit in hits if hit["document"] != record["document"]]
    passages = [] if kind == "bare" else hits[:k]
    messages, order = fitting(tokenizer, record["question"], passages, prompt, shots=[])
    answer = target(record, order, prompt)
    right = right_passage(order, record["document"], record.get("fact")) if record["document"] else None
    return {
        "id": record["id"],
        "question": record["question"],
        "document": record["document"],
        "kind": "bare" if not order else "with_right" if right is not None else "without_right",
        "passages": [passage["id"] for passage in order],
        "prompt": messages,
        "completion": [{"role": "assistant", "content": answer}],
    }


def draw(question_id: str, params: ExamplesParams) -> str:
    point = int(hashlib.sha256(f"{params.seed}:{question_id}".encode()).hexdigest()[:12], 16) / 16**12
    if point < params.bare_share:
        return "bare"
    return "without_right" if point < params.bare_share + params.without_right_share else "as_retrieved"


def count(made: list[Record]) -> dict[str, int]:
    if not made:
        raise InputError("there are no training questions; add pairs: tandem ingest --documents ... --questions FILE")
    kinds = [record["kind"] for record in made]
    return {"examples": len(made)} | {kind: kinds.count(kind) for kind in ("with_right", "without_right", "bare")}


if __name__ == "__main__":
    run_stage(examples)
