"""What an adapter is trained on, measured on and served with is the same tokens: whatever is cut, templated or numbered."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import tiny
from test_index import Place, passage

from tasks.adapter import make_trainer
from tasks.answers import AnswerStore
from tasks.assistant import Assistant, Pieces
from tasks.batches import IGNORED, by_length, tensors
from tasks.evaluate import Subject, measure_arm
from tasks.examples import examples
from tasks.generation import Generator, decoding, resolved
from tasks.manifest import Release
from tasks.pairs import placed_questions
from tasks.params import ARMS, AdapterParams, Arm, ExamplesParams, PromptParams, QuestionsParams
from tasks.params_files import load
from tasks.params_verdict import EvaluateParams
from tasks.prompts import pinned
from tasks.records import Record, read_jsonl, write_json, write_jsonl
from tasks.search import widened

PARAMS = tiny.ROOT / "params"
REPLAY = tiny.ROOT / "infra/replay/general.jsonl"
SETTINGS = {"text_weight": 0.5, "k": 3, "candidates": 10, "mode": "hybrid", "fusion": "ratio"}
SEALED = "0" * 64

pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")


@dataclass
class World:
    """An index of the tiny corpus with ten questions, some with characters that a tokenizer may treat in its own way."""

    place: Place
    manifest: dict[str, Any]
    base: Path
    asked: list[Record]


def questions(folder: Path) -> list[Record]:
    """As an ingest reads them from a person's file; the assistant is asked what stands in that file."""
    odd = ("  What does  a “plum”\tcake cost?\n", "Wie heiß ist der Ofen – 260 °C?", "<|end|> What is\x00the night bonus? [1]")
    rows = tiny.rows()
    asked = [*[row[2] for row in rows[:7]], *odd]
    written = [
        {"id": f"q{number}", "question": question, "answer": tiny.HOUSE.format(row[3]), "document": row[0], "fact": row[3]}
        for number, (question, row) in enumerate(zip(asked, rows, strict=False))
    ]
    write_jsonl(folder / "questions.jsonl", written)
    read = placed_questions(folder / "questions.jsonl", {})
    return [record | {"typed": raw["question"]} for (_, record), raw in zip(read, written, strict=True)]


@pytest.fixture
def world(base: str, tmp_path: Path, tiny_embedder: Path, tiny_base: Path) -> World:
    place = Place(tmp_path, tiny_embedder)
    manifest, _ = place.build([passage(row[0], row[4]) for row in tiny.rows()])
    return World(place, manifest, tiny_base if base == "tiny" else tiny.ROOT / base, questions(tmp_path))


def prompt_of(max_prompt_tokens: int) -> PromptParams:
    found = load(PromptParams, PARAMS).model_copy(update={"max_prompt_tokens": max_prompt_tokens, "max_new_tokens": 2})
    return resolved(found)


def trained(world: World, folder: Path, prompt: PromptParams, bare: float) -> tuple[list[list[int]], Any]:
    """The prompt part of every training example as the trainer's batches hold it: what carries no label. And the trainer."""
    write_json(folder / "retrieval/settings.json", SETTINGS)
    other = {"id": "v", "question": "Who has the key?", "answer": "Me.", "document": "elsewhere", "fact": None}
    for split, asked in (("train", world.asked), ("validation", [other]), ("test", [])):
        write_jsonl(folder / f"questions/{split}.jsonl", asked)
    params = load(ExamplesParams, PARAMS).model_copy(update={"bare_share": bare, "without_right_share": 0.0})
    examples(
        folder / "out", world.place.embedder, world.place.retriever, world.base, folder / "retrieval", folder / "questions",
        REPLAY, folder / "examples",
        folder / "metrics.json", world.place.store, world.place.vectors, params, prompt, load(QuestionsParams, PARAMS),
    )  # fmt: skip
    made = read_jsonl(folder / "examples/train.jsonl")
    adapter = load(AdapterParams, PARAMS).model_copy(update={"batch_size": 4, "rank": 2})
    trainer, _ = make_trainer(world.base, {"train": made, "validation": made}, adapter)
    batches = [tensors(batch, trainer.padding, "cpu") for batch in by_length(trainer.train, adapter.batch_tokens)]
    return [row for batch in batches for row in unlabelled(batch)], trainer


def unlabelled(batch: Any) -> list[list[int]]:
    rows = zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True)
    return [ids[mask == 1].tolist()[: -int((labels != IGNORED).sum())] for ids, labels, mask in rows]


@contextmanager
def overheard(generator: Generator) -> Iterator[list[list[int]]]:
    """The token ids of every prompt that is decoded meanwhile. What `greedy` makes of them is compared with `generate` in
    tests/unit/test_decoding.py."""
    heard: list[list[int]] = []
    decoder = generator.decoder

    def listen(model: Any, prompts: Any, rows: int) -> Any:
        heard.extend(prompts)
        return decoder(model, prompts, rows)

    generator.decoder = generator.alone = listen
    yield heard
    generator.decoder = generator.alone = decoder


def measured(world: World, adapter: Path, prompt: PromptParams, arm: Arm, folder: Path) -> list[list[int]]:
    searcher = world.place.open(world.manifest)
    shots: dict[str, Any] = {arm: []}
    store = AnswerStore(folder / "answers.sqlite")
    subject = Subject(searcher, SETTINGS, world.base, adapter, prompt, shots, decoding(prompt), store)
    ranked = {record["id"]: searcher.search(record["question"], widened(SETTINGS)) for record in world.asked}
    generator = Generator(world.base, adapter, subject.decoding)
    asked = [record | {"fact": None} for record in world.asked]
    params = load(EvaluateParams, PARAMS).model_copy(update={"batch_tokens": 400, "latency_sample": 1})
    with overheard(generator) as heard:
        measure_arm(subject, arm, generator, asked, ranked, params)
    return heard[: len(world.asked)]  # and one once more, to be timed


def served(world: World, adapter: Path, prompt: PromptParams, arm: Arm) -> list[list[int]]:
    digests = {name: {"source": "folder", "id": "", "revision": "", "digest": SEALED} for name in ("base", "adapter")}
    release = Release.model_validate(
        {
            "format": 1, "corpus": {"digest": SEALED, "documents": 10}, "base": digests["base"], "adapter": {"digest": SEALED},
            "index": {key: world.manifest[key] for key in ("table", "tag", "rows", "digest")},
            "embedder": world.manifest["embedder"], "tokenizer": {"tokenizer.json": SEALED}, "chat_template": SEALED,
            "prompt": pinned(prompt, {name: [] for name in ARMS}), "retrieval": SETTINGS,
            "decoding": decoding(prompt), "arm": arm,
        }
    )  # fmt: skip
    assistant = Assistant(release, "r", Pieces(world.base, world.place.embedder, adapter, world.place.store))
    with overheard(assistant.adapted) as heard:
        for record in world.asked:
            assistant.ask(record["typed"])
    return heard


@pytest.mark.parametrize(
    ("base", "arm", "most"),
    [("tiny", "rag+lora", 2000), ("tiny", "rag+lora", 90), ("tiny", "lora", 2000), ("infra/base_model/model", "rag+lora", 90)],
)
def test_training_evaluation_and_serving_give_the_model_the_same_token_ids(
    world: World, tmp_path: Path, arm: Arm, most: int
) -> None:
    prompt, bare = prompt_of(most), float(arm == "lora")
    learnt, trainer = trained(world, tmp_path, prompt, bare)
    trainer.model.save_pretrained(tmp_path / "adapter")
    asked = measured(world, tmp_path / "adapter", prompt, arm, tmp_path)
    answered = served(world, tmp_path / "adapter", prompt, arm)
    assert sorted(learnt) == sorted(asked) == sorted(answered)
    assert len(learnt) == len(world.asked) == 10
    whole = max(map(len, trained(world, tmp_path, prompt_of(2000), bare)[0])) if most < 2000 else most
    assert max(map(len, learnt)) <= most <= whole  # something was cut
