"""Stage `examples`: training examples as the served assistant would see them.

Each question of the training and validation splits comes with the passages that the index as built retrieves for it, shuffled,
the wrong ones being the hard distractors. A share comes without the right passage, as does a question whose fact no passage
states (the right answer is then to say so), and a share with no passages at all.
"""

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.composition import composition
from tasks.contamination import refuse_contaminated
from tasks.errors import InputError
from tasks.exclusion import may_train
from tasks.params import ExamplesParams, PromptParams, QuestionsParams
from tasks.prompts import fitting, right_passage, target
from tasks.records import Record, read_json, read_jsonl, value_digest, write_json, write_jsonl
from tasks.replay import general
from tasks.screening import Screen
from tasks.search import Index, open_index, widened
from tasks.stage import fresh_folder, run_stage, say


def examples(
    index: Path, embedder: Path, retriever: Path, base: Path, retrieval: Path, questions: Path, replay: Path, out: Path,
    metrics: Path, store: str, vectors: Path, params: ExamplesParams, prompt: PromptParams, dealt: QuestionsParams,
) -> None:  # fmt: skip
    """Write out/train.jsonl and out/validation.jsonl: {"id", "prompt": messages, "completion": messages, ...}."""
    asked = {split: read_jsonl(questions / f"{split}.jsonl") for split in ("train", "validation", "test")}
    refuse_contaminated(asked, dealt.near_duplicate)  # the files may come from another hand than our own dealing
    searcher = open_index(store, index, embedder, retriever, retrieval, vectors)
    settings = read_json(retrieval / "settings.json")
    tokenizer = load_tokenizer(base)
    screen = Screen(params.secrets, params.personal_data, params.phone_regions)
    fresh_folder(out)
    counts: dict[str, Any] = {}
    for split in ("train", "validation"):
        allowed = [record for record in asked[split] if may_train(record["document"], dealt.train_never)]
        records = chosen(allowed, getattr(params, f"max_{split}"), params.seed)
        found = retrieved(searcher, records, settings, dealt.train_never)
        made, dropped = make(records, found, settings["k"], tokenizer, screen, params, prompt)
        if split == "train":
            others, unfit = general(replay, params.replay_share, len(made), params.seed, screen)
            refuse_contaminated({"replay": others, "test": asked["test"]}, dealt.near_duplicate)
            made, dropped = [*made, *others], [*dropped, *unfit]
        write_jsonl(out / f"{split}.jsonl", made)
        counts[split] = count(made) | composition(made, dropped, tokenizer, prompt.abstention)
        say(f"examples: {split}: {count(made)}; dropped: {counts[split]['dropped'] or 'none'}")
    write_json(metrics, counts)


def retrieved(searcher: Index, records: list[Record], settings: Mapping[str, Any], never: Sequence[str]) -> list[list[Record]]:
    """For every question the passages that may be learnt from, best first."""
    searcher.expect([record["question"] for record in records])
    reach = reaching(settings, never)
    return [learnable(searcher.search(record["question"], reach), never) for record in records]


def reaching(settings: Mapping[str, Any], never: Sequence[str]) -> dict[str, Any]:
    """Where passages are left out, others of what the legs propose stand in for them."""
    return {**widened(settings), "k": settings["candidates"] * 2} if never else widened(settings)


def learnable(hits: list[Record], never: Sequence[str]) -> list[Record]:
    return [hit for hit in hits if may_train(hit["document"], never)]


def make(
    records: list[Record], found: list[list[Record]], k: int, tokenizer: Any, screen: Screen, params: ExamplesParams,
    prompt: PromptParams,
) -> tuple[list[Record], list[str]]:  # fmt: skip
    """(examples, why each of the other questions makes none)"""
    screen.read(text for record, hits in zip(records, found, strict=True) for text in learnt_texts(record, hits))
    made, dropped = [], []
    for record, hits in zip(records, found, strict=True):
        if not hits and draw(record["id"], params) != "bare":
            dropped.append("no passage that may be trained on")  # the true answer from nothing teaches to invent
            continue
        each = example(redacted(record, screen), [redacted(hit, screen) for hit in hits], k, tokenizer, params, prompt)
        shown = [hit for hit in hits if hit["id"] in each["passages"]]
        if kind := screen.refused(learnt_texts(record, shown)):
            dropped.append(f"holds a {kind}")
        else:
            made.append(each)
    return made, dropped


LEARNT = ("question", "answer", "fact", "heading", "text")  # the fields of a question or a passage that come into an example


def learnt_texts(record: Record, hits: list[Record]) -> list[str]:
    return [each[field] for each in (record, *hits) for field in LEARNT if each.get(field)]


def redacted(record: Record, screen: Screen) -> Record:
    return record | {field: screen.redacted(record[field]) for field in LEARNT if record.get(field)}


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
    return {"examples": len(made)} | {kind: kinds.count(kind) for kind in ("with_right", "without_right", "bare", "replay")}


if __name__ == "__main__":
    run_stage(examples)
