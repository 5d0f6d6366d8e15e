"""The reranker, on a planted corpus: the legs find every word of the question on a page that only asks it, and the page that
answers says "oven", which is all that the cross-encoder learnt."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from crossing import MARKER, pair_tokenizer, write_reranker
from test_index import Place, passage

from tasks import models, reranking
from tasks.errors import InputError, IntegrityError
from tasks.pair_backends import OnnxPairs
from tasks.params import RerankerSource, RetrievalParams
from tasks.params_files import load
from tasks.records import Record, folder_digest, read_json, write_json, write_jsonl
from tasks.reranking import Reranker, adopted, check_reranker, pinned, reordered, sigmoid
from tasks.retrieval import retrieval
from tasks.search import Index, open_index

BACKENDS = ("torch", "onnx-int8")
PARAMS = load(RetrievalParams, tiny.ROOT / "params").model_copy(update={"k": [1, 2], "resamples": 300})
ASKED = {
    "oats": "When does the van leave?", "rye": "Where is the flour kept?", "spelt": "What does the night shift get?",
    "malt": "How long is a voucher valid?", "bran": "Who writes the hotel invoices?", "corn": "Which colour are the hair nets?",
}  # fmt: skip
PAIRS = [
    ("When does the van leave?", "The van leaves at 5:45."),
    ("When does the van leave?", f"The {MARKER} stands beside the van, and so does all the rest of the bread for the hotels."),
    ("van", MARKER),
    (f"Where is the {MARKER}?", "The van leaves at 5:45."),
    ("Where is the flour kept, and who may open the door of it at night or on a holiday?", "Behind the shop."),
]


def source(folder: Path, backend: str, max_tokens: int = 64) -> RerankerSource:
    values = {"source": "folder", "id": str(folder), "revision": "", "max_tokens": max_tokens, "backend": backend}
    return RerankerSource.model_validate(values)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory, tiny_reranker: Path) -> dict[str, Path]:
    """Backend -> the reranker's folder as the stage `models` leaves it; "none" without one."""
    made = {name: tmp_path_factory.mktemp("models") / "reranker" for name in (*BACKENDS, "none")}
    for backend in BACKENDS:
        models.write_reranker(source(tiny_reranker, backend), made[backend])
    models.write_reranker(load(models.ModelsParams, tiny.ROOT / "params").reranker, made["none"])
    return made


class World:
    """The inputs and outputs of the stage `retrieval` in one folder."""

    def __init__(self, folder: Path, embedder: Path) -> None:
        self.place, self.folder = Place(folder, embedder), folder
        self.place.build([*map(asking, ASKED), *map(answering, ASKED)])
        self.out = folder / "retrieval"

    def choose(self, reranker: Path, document: Callable[[str], str]) -> Record:
        """The settings, where `document` names the right page of a question."""
        asked = [{"id": key, "question": text, "document": document(key), "fact": None} for key, text in ASKED.items()]
        write_jsonl(self.folder / "questions/validation.jsonl", asked)
        retrieval(
            self.folder / "out", self.place.embedder, self.place.retriever, reranker, self.folder / "questions", self.out,
            self.folder / "retrieval.json", self.folder / "plots", self.place.store, self.place.vectors, PARAMS,
        )  # fmt: skip
        return dict(read_json(self.out / "settings.json"))

    def open(self, kept: Path | None = None) -> Index:
        return open_index(self.place.store, self.folder / "out", self.place.embedder, self.place.retriever, self.out, kept)


def asking(key: str) -> Record:
    return passage(f"{key}-asks", f"{ASKED[key]} {ASKED[key]}")


def answering(key: str) -> Record:
    return passage(f"{key}-answers", f"{ASKED[key].split(' ', 2)[2]} Ask beside the {MARKER}.")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, tiny_embedder: Path) -> World:
    return World(tmp_path_factory.mktemp("world"), tiny_embedder)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_score_does_not_depend_on_its_batch_and_returns_in_its_place(folders: dict[str, Path], backend: str) -> None:
    reads = Reranker(folders[backend])
    alone = [reads.logits([pair])[0] for pair in PAIRS]
    assert np.allclose(reads.logits(PAIRS), alone, atol=1e-4)
    assert sigmoid(alone[1]) > 0.9 > 0.1 > sigmoid(alone[0])
    assert reads.logits([]) == []


def test_integers_give_nearly_the_scores_of_torch(folders: dict[str, Path]) -> None:
    """Which of the two texts a token is of, and which tokens are padding, is told in both."""
    exact, fast = Reranker(folders["torch"]), Reranker(folders["onnx-int8"])
    scores = np.array(exact.logits(PAIRS))
    assert 0 < np.abs(scores - fast.logits(PAIRS)).max() < 0.5 < 5 < np.ptp(scores)
    fast.backend.session = told = Told(fast.backend.session)
    assert np.abs(scores - fast.logits(PAIRS)).max() > 1
    assert any(np.diff(mask.sum(axis=1)).any() for mask in told.masks), "texts of several lengths were in one batch"
    for mask, tokens in zip(told.masks, told.tokens, strict=True):
        assert (mask.sum(axis=1) == (tokens != fast.backend.padding["input_ids"]).sum(axis=1)).all()


class Told:
    """A session that is told that all of a pair is its question."""

    def __init__(self, session: Any) -> None:
        self.session = session
        self.masks: list[Any] = []
        self.tokens: list[Any] = []

    def run(self, outputs: None, given: dict[str, Any]) -> Any:
        self.masks.append(given["attention_mask"])
        self.tokens.append(given["input_ids"])
        return self.session.run(outputs, given | {"token_type_ids": np.zeros_like(given["token_type_ids"])})


def test_an_encoder_that_was_only_renamed_has_no_head(tmp_path: Path, tiny_reranker: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = Path(shutil.copytree(tiny_reranker, tmp_path / "headless"))
    weights = load_file(folder / "model.safetensors")
    kept = {name: value for name, value in weights.items() if not name.startswith("classifier")}
    assert len(kept) < len(weights)
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    with pytest.raises(InputError, match=r"has no weights for classifier.bias, classifier.weight: an encoder"):
        models.write_reranker(source(folder, "torch"), tmp_path / "out")


def test_a_model_that_does_not_read_all_that_its_tokenizer_gives_is_fed_what_it_reads(tmp_path: Path) -> None:
    """DeBERTa has no place for which of the two texts a token is of; the traced graph lacks that input."""
    import torch
    from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

    tokenizer = pair_tokenizer()
    torch.manual_seed(3)
    config = DebertaV2Config(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=128, type_vocab_size=0, num_labels=1, pad_token_id=0, initializer_range=0.2,
    )  # fmt: skip
    DebertaV2ForSequenceClassification(config).save_pretrained(tmp_path / "deberta")
    tokenizer.save_pretrained(tmp_path / "deberta")
    for backend in BACKENDS:
        models.write_reranker(source(tmp_path / "deberta", backend), tmp_path / backend)
    exact, fast = (np.array(Reranker(tmp_path / backend).logits(PAIRS)) for backend in BACKENDS)
    assert np.corrcoef(exact, fast)[0, 1] > 0.95


def test_a_graph_that_gives_other_scores_is_refused(tmp_path: Path, tiny_reranker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OnnxPairs, "logits", lambda self, pairs: np.arange(len(pairs), dtype=np.float32))
    with pytest.raises(InputError, match=r"reranker in 8-bit integers gives other scores .* set backend: torch"):
        models.write_reranker(source(tiny_reranker, "onnx-int8"), tmp_path / "reranker")


@pytest.mark.parametrize("backend", BACKENDS)
def test_more_tokens_than_the_model_has_positions_are_refused_with_the_way_out(
    tmp_path: Path, tiny_reranker: Path, backend: str
) -> None:
    folder = Path(shutil.copytree(tiny_reranker, tmp_path / "unlimited"))
    settings = read_json(folder / "tokenizer_config.json")
    write_json(folder / "tokenizer_config.json", settings | {"model_max_length": 10**30})
    models.write_reranker(source(folder, backend, max_tokens=128), tmp_path / "fits")
    with pytest.raises(InputError, match=r"reranker: \S+ cannot read 129 tokens \(.*\); lower max_tokens"):
        models.write_reranker(source(folder, backend, max_tokens=129), tmp_path / "long")


def test_a_score_that_is_no_number_stops_the_search(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    reads = Reranker(folders["onnx-int8"])
    monkeypatch.setattr(OnnxPairs, "logits", lambda self, pairs: np.array([0.5, np.nan], np.float32))
    with pytest.raises(InputError, match="the reranker gave no number for 'van' and 'oven'; use another one"):
        reads.logits([("van", "bread"), ("van", "oven")])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_pair_is_cut_at_the_tokens_that_params_allow(tmp_path: Path, tiny_reranker: Path, backend: str) -> None:
    models.write_reranker(source(tiny_reranker, backend, max_tokens=16), tmp_path / "short")
    reads = Reranker(tmp_path / "short")
    assert reads.logits([("van", "bread " * 40 + MARKER)]) == reads.logits([("van", "bread " * 50)])
    assert reads.logits([("van " * 5000, text) for text in ("\0 \u202e NUL", "", "x" * 100_000)]), "none is too long or too odd"


def test_what_is_no_cross_encoder_is_refused_by_name(tmp_path: Path, tiny_embedder: Path) -> None:
    """transformers would give an embedder a head of random numbers."""
    with pytest.raises(InputError, match=r"reranker: \S+ is no cross-encoder \(its architecture is BertModel with 2 outputs"):
        models.write_reranker(source(tiny_embedder, "torch"), tmp_path / "a")
    two = write_reranker(tmp_path / "two", labels=3)
    with pytest.raises(InputError, match="BertForSequenceClassification with 3 outputs"):
        models.write_reranker(source(two, "torch"), tmp_path / "b")


def test_it_is_adopted_where_it_is_better_beyond_doubt_and_then_orders_what_is_found(
    world: World, folders: dict[str, Path]
) -> None:
    before = world.choose(folders["none"], lambda key: f"{key}-answers")
    assert "rerank" not in before and world.open().search(ASKED["oats"], before)[0]["document"] == "oats-asks"
    settings = world.choose(folders["torch"], lambda key: f"{key}-answers")
    assert settings["rerank"] == PARAMS.rerank and settings["k"] == 1
    metrics = read_json(world.folder / "retrieval.json")
    assert max(point["ndcg@10"] for point in metrics["reranked"]) > max(point["ndcg@10"] for point in metrics["curve"])
    searcher = world.open()
    for key, text in ASKED.items():
        found = searcher.search(text, settings | {"k": 12})
        scores = [hit["score"] for hit in found]
        assert scores == sorted(scores, reverse=True) and {hit["document"] for hit in found} >= {f"{key}-asks", f"{key}-answers"}
        assert all(hit["document"].endswith("-answers") == (0.9 < hit["score"] < 1) for hit in found)


def test_it_is_not_adopted_where_nothing_is_gained_and_leaves_no_byte(world: World, folders: dict[str, Path]) -> None:
    plain = world.choose(folders["none"], lambda key: f"{key}-asks")
    digest = folder_digest(world.out)
    assert world.choose(folders["torch"], lambda key: f"{key}-asks") == plain and "rerank" not in plain
    assert folder_digest(world.out) == digest and adopted(world.out) is None and pinned(world.out) is None
    assert read_json(world.folder / "retrieval.json")["reranked"]


def test_no_pair_is_read_twice_but_where_its_time_is_measured(
    world: World, folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = world.choose(folders["onnx-int8"], lambda key: f"{key}-answers")
    read: list[Any] = []
    real = OnnxPairs.logits

    def reading(self: OnnxPairs, pairs: Any) -> Any:
        read.extend(pairs)
        return real(self, pairs)

    monkeypatch.setattr(OnnxPairs, "logits", reading)
    assert world.choose(folders["onnx-int8"], lambda key: f"{key}-answers") == settings
    assert set(read) <= set(reranking.PROBES)
    searcher = world.open(world.place.vectors)
    del read[:]
    kept = searcher.search(ASKED["rye"], settings)
    assert read == []
    searcher.forget(ASKED["rye"])
    assert searcher.search(ASKED["rye"], settings) == kept and {question for question, _ in read} == {ASKED["rye"]}


def test_another_reranker_than_the_one_measured_is_refused(
    world: World, folders: dict[str, Path], tmp_path: Path, tiny_reranker: Path
) -> None:
    settings = world.choose(folders["torch"], lambda key: f"{key}-answers")
    expected = pinned(world.out)
    assert expected is not None
    check_reranker(expected, Reranker(folders["torch"]))
    check_reranker(None, None)
    with pytest.raises(IntegrityError, match="ordered by a reranker, and none is here"):
        check_reranker(expected, None)
    for other, key in (("onnx-int8", "digest"), ("torch", "max_tokens")):
        foreign = expected if key == "digest" else expected | {"max_tokens": 9}
        with pytest.raises(IntegrityError, match=f"the reranker here has {key}"):
            check_reranker(foreign, Reranker(folders[other]))
    for fingerprint in ([0.0, 0.0, 0.0], expected["fingerprint"][:1], expected["fingerprint"][:2]):
        with pytest.raises(IntegrityError, match="fingerprint differs"):
            check_reranker(expected | {"fingerprint": fingerprint}, Reranker(folders["torch"]))
    shutil.rmtree(world.out / "reranker")
    with pytest.raises(IntegrityError, match="ordered by a reranker, and none is here"):
        world.open()
    bare = open_index(world.place.store, world.folder / "out", world.place.embedder, world.place.retriever)
    with pytest.raises(IntegrityError, match="ask for a reranker, and none is here; run: dvc repro retrieval"):
        bare.search(ASKED["oats"], settings)


def test_only_the_first_are_put_in_order_and_equal_scores_go_by_name() -> None:
    ranking = [("a", 3.0), ("b", 2.0), ("c", 1.0), ("d", 0.5)]
    assert reordered(ranking, {"a": 38.0, "b": 45.0}, 2)[0] == ("b", 45.0) and sigmoid(38.0) == sigmoid(45.0) == 1
    assert [round(sigmoid(logit), 3) for logit in (-800.0, -1.0, 0.0, 1.0, 800.0)] == [0, 0.269, 0.5, 0.731, 1]
    assert reordered(ranking, {"a": 0.1, "b": 0.9, "c": 0.9}, 3) == [("b", 0.9), ("c", 0.9), ("a", 0.1), ("d", 0.5)]
    assert reordered(ranking[:2], {"a": 0.1, "b": 0.2}, 3) == [("b", 0.2), ("a", 0.1)]
