"""The embedder's fine-tuning, on a planted corpus: questions in one language, passages in another, word for word. A random
embedder finds nothing there, and one that learnt the dictionary from some pages finds the others."""

import shutil
import subprocess
import sys
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from tasks.contrastive import check_finite
from tasks.embedding import Embedder
from tasks.encoders import ENCODER, PINNED, passage_encoder, query_encoder
from tasks.errors import InputError, IntegrityError, RefusedError
from tasks.index import index
from tasks.lineage import learnt, lineage_of
from tasks.params import IndexParams, QuestionsParams, RetrievalParams, RetrieverParams
from tasks.params_files import load
from tasks.records import Record, read_json, write_json, write_jsonl
from tasks.retriever import kept_out, mined, retriever
from tasks.search import Index, open_index

DICTIONARY = {
    "shop": "oven", "weekdays": "bread", "loaf": "van", "voucher": "flour", "cake": "driver", "market": "shift",
    "customer": "rye", "discount": "key", "receipt": "cold", "kiosk": "hot",
}  # fmt: skip
PAIRS = list(combinations(DICTIONARY, 2))  # 45
# transformers renamed a method that PEFT asks by its old name
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")
SHIPPED = load(RetrieverParams, tiny.ROOT / "params")
PARAMS = SHIPPED.model_copy(
    update={"sides": "query", "learning_rate": 0.01, "epochs": 40.0, "batch_size": 15, "threads": 1, "resamples": 300}
)
INDEX = load(IndexParams, tiny.ROOT / "params").model_copy(update={"recall_sample": 10})
DEALT = load(QuestionsParams, tiny.ROOT / "params")
SERVING = load(RetrievalParams, tiny.ROOT / "params").model_copy(update={"resamples": 200})


def passage(pair: tuple[str, str]) -> Record:
    text = " ".join(DICTIONARY[word] for word in pair)
    page = "-".join(pair)
    return {"id": page, "document": page, "heading": "", "text": text, "embedded": text}


def question(pair: tuple[str, str], words: str = "") -> Record:
    page = "-".join(pair)
    return {"id": page, "question": words or " ".join(pair), "answer": "", "document": page, "fact": None}


class World:
    """The stage's inputs and outputs in one folder; every third page is held out."""

    def __init__(self, folder: Path, embedder: Path, backend: str = "torch") -> None:
        from tasks.models import write_embedder
        from tasks.params import EmbedderSource

        self.folder, self.embedder, self.out = folder, folder / "embedder", folder / "retriever"
        source = {"source": "folder", "id": str(embedder), "revision": "", "query_prompt": "", "passage_prompt": ""}
        write_embedder(EmbedderSource.model_validate(source | {"max_tokens": 64, "backend": backend}), self.embedder)
        write_jsonl(folder / "chunks/passages.jsonl", [passage(pair) for pair in PAIRS])
        self.train = [question(pair) for place, pair in enumerate(PAIRS) if place % 3]
        self.validation = [question(pair) for place, pair in enumerate(PAIRS) if not place % 3]
        self.never: list[str] = []
        self.store, self.vectors = str(folder / "lance"), folder / "vectors.sqlite"

    def run(self, **changes: Any) -> Record:
        """The metrics."""
        for name in ("train", "validation"):
            write_jsonl(self.folder / f"{name}.jsonl", getattr(self, name))
        retriever(
            self.embedder, self.folder / "chunks", self.folder / "train.jsonl", self.folder / "validation.jsonl", self.out,
            self.folder / "metrics.json", self.vectors, PARAMS.model_copy(update=changes), INDEX, SERVING,
            DEALT.model_copy(update={"train_never": self.never}),
        )  # fmt: skip
        return dict(read_json(self.folder / "metrics.json"))

    def build(self) -> Record:
        """The index's manifest, and how many passages it had to embed."""
        out, metrics = self.folder / "index", self.folder / "index.json"
        index(self.folder / "chunks", self.embedder, self.out, out, metrics, self.store, self.vectors, INDEX)
        return dict(read_json(out / "manifest.json")) | {"embedded": read_json(metrics)["embedded"]}

    def open(self) -> Index:
        return open_index(self.store, self.folder / "index", self.embedder, self.out)


@pytest.fixture(scope="module")
def tuned(tmp_path_factory: pytest.TempPathFactory, tiny_embedder: Path) -> World:
    """The query side, adopted, and the index built."""
    world = World(tmp_path_factory.mktemp("query"), tiny_embedder)
    assert world.run()["adopted"]
    world.build()
    return world


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory, tiny_embedder: Path) -> World:
    world = World(tmp_path_factory.mktemp("both"), tiny_embedder, "onnx-int8")
    figures = world.run(sides="both")
    assert figures["adopted"] and figures["embedded_again"] == len(PAIRS)
    return world


def test_switched_off_it_pins_nothing_and_loads_nothing(tmp_path: Path, tiny_embedder: Path) -> None:
    world = World(tmp_path, tiny_embedder)
    assert world.run(sides="none") == {"sides": "none"}
    assert read_json(world.out / PINNED) == {"sides": "none"} and len(list(world.out.iterdir())) == 1
    assert passage_encoder(world.embedder, world.out) == query_encoder(world.embedder, world.out) == world.embedder
    assert not world.vectors.exists()
    heavy = "{'torch', 'sentence_transformers', 'onnxruntime', 'lancedb'}"
    code = f"import sys, tasks.retriever; print(sorted({heavy} & set(sys.modules)))"
    assert (
        subprocess.run([sys.executable, "-c", code], cwd=tiny.ROOT, capture_output=True, text=True, check=True).stdout == "[]\n"
    )


def test_switched_off_the_index_has_the_manifest_that_it_had_before_there_was_such_a_stage(
    tmp_path: Path, tiny_embedder: Path
) -> None:
    world = World(tmp_path, tiny_embedder)
    world.run(sides="none")
    manifest = world.build()
    del manifest["embedded"]
    assert manifest["embedder"] == Embedder(world.embedder).identity()
    assert set(manifest["embedder"]) == {
        "source", "id", "revision", "query_prompt", "passage_prompt", "backend", "digest", "dimension", "max_tokens", "pooling",
        "normalised", "fingerprint",
    }  # fmt: skip
    assert set(manifest) == {"format", "table", "tag", "rows", "digest", "documents", "embedder"}


def test_a_dictionary_learnt_from_some_pages_is_adopted_for_it_finds_the_others(tuned: World) -> None:
    found = read_json(tuned.folder / "metrics.json")
    assert found["adopted"] and found["tuned"]["ndcg@10"] > found["plain"]["ndcg@10"] + 0.1
    assert 0 < found["difference"]["low"] < found["difference"]["mean"]
    assert (found["lessons"], found["negatives"], found["questions"]) == (30, SHIPPED.negatives, 15)
    assert found["embedded"] == len(PAIRS) and found["embedded_again"] == 0


def test_the_tuned_side_is_that_of_the_questions_and_no_passage_is_embedded_again(tuned: World) -> None:
    plain = Embedder(tuned.embedder)
    again = tuned.build()
    assert again["embedded"] == 0 and again["embedder"] == plain.identity()
    searcher = tuned.open()
    assert searcher.embedder.folder == tuned.out / ENCODER
    settings = {"text_weight": 0.0, "k": 10, "candidates": 50}
    asked = {record["id"]: record["question"] for record in tuned.validation}
    found = {page: [hit["document"] for hit in searcher.search(text, settings)] for page, text in asked.items()}
    bare = Index(tuned.store, read_json(tuned.folder / "index/manifest.json"), plain)
    before = {page: [hit["document"] for hit in bare.search(text, settings)] for page, text in asked.items()}
    assert sum(page in pages for page, pages in found.items()) > sum(page in pages for page, pages in before.items())


def test_both_sides_are_another_embedder_whose_vectors_the_index_finds_already_made(both: World) -> None:
    plain, manifest = Embedder(both.embedder), both.build()
    assert manifest["embedded"] == 0  # the judgement needed them, and kept them
    assert manifest["embedder"]["digest"] != plain.digest
    assert manifest["embedder"]["tuned"] == {"sides": "both", "of": plain.digest}
    assert manifest["embedder"]["backend"] == "onnx-int8" and (both.out / ENCODER / "model_int8.onnx").exists()
    assert both.open().embedder.digest == manifest["embedder"]["digest"]


def test_a_question_is_never_embedded_by_another_model_than_the_index_expects(tuned: World, both: World) -> None:
    manifest, pinned = read_json(tuned.folder / "index/manifest.json"), read_json(tuned.out / PINNED)["encoder"]
    expecting = manifest | {"query_encoder": pinned}
    plain, encoder = Embedder(tuned.embedder), Embedder(tuned.out / ENCODER)
    assert Index(tuned.store, expecting, encoder)
    with pytest.raises(IntegrityError, match=r"questions are embedded by .*digest.*dvc repro retriever"):
        Index(tuned.store, expecting, plain)
    with pytest.raises(IntegrityError, match=r"the index was built with .*digest"):
        Index(tuned.store, manifest, encoder)
    moved = pinned | {"fingerprint": [value + 0.1 for value in pinned["fingerprint"]]}
    with pytest.raises(IntegrityError, match=r"questions are embedded by .*fingerprint differs"):
        Index(tuned.store, expecting | {"query_encoder": moved}, encoder)
    with pytest.raises(IntegrityError, match="was tuned for passages embedded by"):
        Index(tuned.store, expecting | {"embedder": manifest["embedder"] | {"digest": "e" * 64}}, encoder)
    both.build()
    with pytest.raises(IntegrityError, match=r"the index was built with .*digest"):
        Index(both.store, read_json(both.folder / "index/manifest.json"), Embedder(both.embedder))


def test_another_embedder_under_a_tuned_one_is_refused_before_anything_is_opened(tuned: World, tmp_path: Path) -> None:
    shutil.copytree(tuned.embedder, tmp_path / "other")
    write_json(tmp_path / "other/README.md", "of another embedder")
    with pytest.raises(IntegrityError, match=r"tuned from an embedder with digest .*dvc repro retriever"):
        query_encoder(tmp_path / "other", tuned.out)


def test_what_does_not_help_on_validation_is_not_adopted_and_leaves_no_trace(tmp_path: Path, tiny_embedder: Path) -> None:
    """The held-out questions are the passages word for word: the plain embedder finds all of them."""
    world = World(tmp_path, tiny_embedder)
    pairs = [pair for place, pair in enumerate(PAIRS) if not place % 3]
    world.validation = [question(pair, passage(pair)["text"]) for pair in pairs]
    figures = world.run()
    assert not figures["adopted"] and figures["plain"]["ndcg@10"] == 1.0
    assert read_json(world.out / PINNED) == {"sides": "none"} and not (world.out / ENCODER).exists()
    assert query_encoder(world.embedder, world.out) == world.embedder


def test_an_encoder_says_what_it_learnt_from_so_that_no_test_question_of_it_is_asked(tuned: World) -> None:
    known = lineage_of(tuned.out / ENCODER)
    assert learnt(known, tuned.train) == tuned.train and learnt(known, tuned.validation) == []


def test_training_questions_among_those_that_judge_are_refused(tmp_path: Path, tiny_embedder: Path) -> None:
    world = World(tmp_path, tiny_embedder)
    world.validation = [*world.validation, question(PAIRS[1], "what is it?")]
    with pytest.raises(InputError, match=r"1 validation questions .* stand in the training split"):
        world.run()


def test_a_training_that_learns_nothing_or_diverges_is_refused(tmp_path: Path, tiny_embedder: Path) -> None:
    world = World(tmp_path, tiny_embedder)
    with pytest.raises(RefusedError, match="learnt nothing"):
        world.run(learning_rate=0.0, epochs=1.0)
    with pytest.raises(RefusedError, match=r"no numbers|diverged"):
        world.run(learning_rate=1e38)
    with pytest.raises(RefusedError, match="the loss is nan at step 3"):
        check_finite(float("nan"), 3)
    with pytest.raises(InputError, match=r"targets in params/retriever.yaml"):
        world.run(targets=["no_such_layer"])


def test_questions_without_a_page_or_without_a_passage_cannot_tune(tmp_path: Path, tiny_embedder: Path) -> None:
    world = World(tmp_path, tiny_embedder)
    train, world.train = world.train, [record | {"fact": "4 o'clock"} for record in world.train]
    with pytest.raises(InputError, match="fewer than two training questions"):
        world.run()
    world.train, world.validation = train, [record | {"document": None} for record in world.validation]
    with pytest.raises(InputError, match=r"no question in validation.jsonl names a page"):
        world.run()


def test_wrong_passages_are_the_nearest_that_are_surely_wrong() -> None:
    import numpy as np

    nearness = np.array([0.9, 0.8, 0.79, 0.5, 0.1], np.float32)
    assert mined(nearness, 1, {1}, None, 2) == [0, 2]  # a fact told which passage is right
    assert mined(nearness, 1, {1}, 0.95, 2) == [3, 4]
    assert mined(nearness, 1, {1}, 0.95, 4) == [3, 4, 2, 0]  # rather a doubtful one than lessons of different length


def test_a_page_that_must_not_be_learnt_from_is_no_wrong_passage_either() -> None:
    passages = [{"document": page} for page in ("hr/pay", "it/vpn", "it/wifi", "hr/pay")]
    never = kept_out(passages, ["hr/"])
    assert never == {0, 3} and kept_out(passages, []) == set()
    nearness = np.array([0.9, 0.5, 0.3, 0.8], np.float32)
    assert mined(nearness, 1, {1, *never}, None, 3) == [2]
