from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import tiny

from tasks.embedding import Embedder, Vectors, VectorStore, check_vectors, embed_missing, same_fingerprint
from tasks.errors import InputError
from tasks.records import read_json, write_json


@pytest.fixture(scope="module")
def embedder(tiny_embedder: Path, tmp_path_factory: pytest.TempPathFactory) -> Embedder:
    return Embedder(tiny.identified(tiny_embedder, tmp_path_factory.mktemp("embedder") / "plain"))


class Counting:
    """An embedder that counts, and stops after so many texts: one number per text, its length."""

    def __init__(self, stop_after: int = 10**9) -> None:
        self.seen: list[str] = []
        self.stop_after = stop_after

    def passages(self, texts: Sequence[str], batch_tokens: int = 1024) -> Vectors:
        if len(self.seen) + len(texts) > self.stop_after:
            raise KeyboardInterrupt
        self.seen += texts
        return np.array([[len(text), 1.0] for text in texts], dtype=np.float32)


def test_vectors_are_of_length_one_and_do_not_depend_on_the_batch(embedder: Embedder) -> None:
    texts = ["How warm is the proofer?", "The van leaves at 5:45.", "x", "bread " * 200]
    together, alone = embedder.passages(texts, batch_tokens=40), np.concatenate([embedder.passages([text]) for text in texts])
    assert together.shape == (4, 64) and together.dtype == np.float32
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-5)
    assert np.allclose(together, alone, atol=1e-5)
    assert embedder.passages([]).shape[0] == 0


def test_prompts_are_part_of_the_vectors_and_of_the_identity(tiny_embedder: Path, embedder: Embedder, tmp_path: Path) -> None:
    prompted = Embedder(tiny.identified(tiny_embedder, tmp_path / "prompted", query_prompt="query: "))
    plain, other = embedder.identity(), prompted.identity()
    assert not np.allclose(embedder.queries(["bread"]), prompted.queries(["bread"]))
    assert np.allclose(embedder.passages(["bread"]), prompted.passages(["bread"]))
    assert plain["digest"] != other["digest"]
    assert (plain["dimension"], plain["pooling"], plain["normalised"], plain["max_tokens"]) == (64, "mean", True, 64)
    assert not same_fingerprint(plain["fingerprint"], other["fingerprint"])


@pytest.mark.parametrize("passage_name", ["document", "passage"])
def test_without_prompts_in_params_those_of_the_model_itself_apply(
    tiny_embedder: Path, embedder: Embedder, tmp_path: Path, passage_name: str
) -> None:
    folder = tiny.identified(tiny_embedder, tmp_path / "own")
    path = folder / "config_sentence_transformers.json"
    write_json(path, read_json(path) | {"prompts": {"query": "query: ", passage_name: "passage: "}})
    own = Embedder(folder)
    assert np.allclose(own.queries(["bread"]), embedder.passages(["query: bread"]), atol=1e-6)
    assert np.allclose(own.passages(["bread"]), embedder.passages(["passage: bread"]), atol=1e-6)
    assert (own.identity()["query_prompt"], own.identity()["passage_prompt"]) == ("query: ", "passage: ")
    write_json(folder / "tandem.json", read_json(folder / "tandem.json") | {"query_prompt": "ours: "})
    assert np.allclose(Embedder(folder).queries(["bread"]), embedder.passages(["ours: bread"]), atol=1e-6)


def test_a_fingerprint_forgives_another_processor_and_no_other_model() -> None:
    found = [0.11, -0.2, 0.3]
    assert same_fingerprint(found, [value + 0.01 for value in found])
    assert not same_fingerprint(found, [0.21, -0.2, 0.3])
    assert not same_fingerprint(found, found[:2])
    assert not same_fingerprint(found, [float("nan")] * 3)


@pytest.mark.parametrize("bad", [[0.0, 0.0], [float("nan"), 1.0], [float("inf"), 0.0], [1e-9, 0.0]])
def test_a_vector_that_can_find_nothing_stops_the_build_and_names_its_text(bad: list[float]) -> None:
    with pytest.raises(InputError, match="zero or NaN vector for: 'the culprit'"):
        check_vectors(["fine", "the culprit"], np.array([[1.0, 0.0], bad], dtype=np.float32))


def test_the_store_gives_back_what_was_put_in_the_order_asked_for(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "new/vectors.sqlite", "model a")
    vectors = np.array([[1, 2], [3, 4]], dtype=np.float32)
    store.put(["one", "two"], vectors)
    again = VectorStore(tmp_path / "new/vectors.sqlite", "model a")
    assert np.array_equal(again.get(["two", "one", "two"]), vectors[[1, 0, 1]])
    assert again.missing(["three", "one", "three", "four"]) == ["three", "four"]


def test_another_embedder_finds_none_of_them(tmp_path: Path) -> None:
    VectorStore(tmp_path / "v.sqlite", "model a").put(["one"], np.ones((1, 2), dtype=np.float32))
    assert VectorStore(tmp_path / "v.sqlite", "model b").missing(["one"]) == ["one"]


def test_equal_texts_are_embedded_once_and_known_ones_never(tmp_path: Path) -> None:
    store, embedder = VectorStore(tmp_path / "v.sqlite", "m"), Counting()
    assert embed_missing(embedder, store, ["aa", "b", "aa"], 100, 10) == 2  # type: ignore[arg-type]
    assert embedder.seen == ["b", "aa"]  # shortest first
    assert embed_missing(embedder, store, ["b", "ccc", "aa"], 100, 10) == 1  # type: ignore[arg-type]
    assert embedder.seen == ["b", "aa", "ccc"]


def test_an_interrupted_build_goes_on_from_its_last_commit(tmp_path: Path) -> None:
    texts = [f"{'x' * number}" for number in range(1, 11)]
    store = VectorStore(tmp_path / "v.sqlite", "m")
    with pytest.raises(KeyboardInterrupt):
        embed_missing(Counting(stop_after=7), store, texts, 100, 3)  # type: ignore[arg-type]
    again = Counting()
    assert embed_missing(again, VectorStore(tmp_path / "v.sqlite", "m"), texts, 100, 3) == 4  # type: ignore[arg-type]
    assert again.seen == texts[6:]


def test_two_writers_of_one_store_wait_for_each_other(tmp_path: Path) -> None:
    one, two = VectorStore(tmp_path / "v.sqlite", "m"), VectorStore(tmp_path / "v.sqlite", "m")
    one.put(["a"], np.ones((1, 2), dtype=np.float32))
    two.put(["a", "b"], np.full((2, 2), 2, dtype=np.float32))
    assert np.array_equal(one.get(["a", "b"]), np.full((2, 2), 2, dtype=np.float32))
