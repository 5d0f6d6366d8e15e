import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny

import tasks.index
from tasks.embedding import Embedder
from tasks.encoders import PINNED
from tasks.errors import InputError, IntegrityError, RefusedError
from tasks.index import bring_up_to_date, check_content, describe, index, settings
from tasks.params import IndexParams
from tasks.params_files import load
from tasks.records import Record, read_json, value_digest, write_json, write_jsonl
from tasks.search import Index, open_version
from tasks.tables import check_store, connect

PARAMS = load(IndexParams, tiny.ROOT / "params").model_copy(update={"recall_sample": 5, "passages_per_commit": 4})
TEXTS = (
    "The van leaves at 5:45.",
    "The proofer is kept at 34 degrees.",
    "Wages are paid on the 26th.",
    "Hair nets are blue.",
    "The deck oven takes 55 minutes.",
    "A rye loaf costs 4.20 pounds.",
    "Vouchers are valid for three years.",
    "Aprons are washed daily.",
)


def passage(document: str, text: str, occurrence: int = 0) -> Record:
    heading = document.capitalize()
    key = value_digest([document, heading, text, occurrence])
    return {
        "id": key,
        "document": document,
        "heading": heading,
        "text": text,
        "occurrence": occurrence,
        "embedded": f"{heading}\n{text}",
    }


def corpus(texts: tuple[str, ...] = TEXTS) -> list[Record]:
    return [passage(f"page-{number}", text) for number, text in enumerate(texts)]


class Place:
    """Stores and inputs of the stage in one folder."""

    def __init__(self, folder: Path, embedder: Path) -> None:
        self.folder = folder
        self.embedder = tiny.identified(embedder, folder / "embedder")
        self.retriever = folder / "retriever"
        write_json(self.retriever / PINNED, {"sides": "none"})
        self.store, self.vectors = str(folder / "lance"), folder / "vectors.sqlite"

    def build(self, passages: list[Record], params: IndexParams = PARAMS) -> tuple[dict[str, Any], dict[str, Any]]:
        """(manifest, metrics)"""
        write_jsonl(self.folder / "chunks/passages.jsonl", passages)
        out, metrics = self.folder / "out", self.folder / "metrics.json"
        index(self.folder / "chunks", self.embedder, self.retriever, out, metrics, self.store, self.vectors, params)
        return read_json(out / "manifest.json"), read_json(metrics)

    def open(self, manifest: dict[str, Any]) -> Index:
        return Index(self.store, manifest, Embedder(self.embedder))


@pytest.fixture
def place(tmp_path: Path, tiny_embedder: Path) -> Place:
    return Place(tmp_path, tiny_embedder)


def work(metrics: dict[str, Any]) -> tuple[int, int, int]:
    return metrics["embedded"], metrics["inserted"], metrics["deleted"]


def test_a_build_that_finds_less_than_the_floor_is_refused_and_leaves_no_manifest(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.nearest, "recall_of", lambda *given: 0.93)
    with pytest.raises(RefusedError, match=r"finds 0\.930 of what .*; min_recall in params/index\.yaml is 0\.99"):
        place.build(corpus())
    assert not (place.folder / "out").exists()
    assert place.build(corpus(), PARAMS.model_copy(update={"min_recall": 0.9}))[1]["recall@10"] == 0.93


def test_a_build_holds_the_passages_and_finds_what_an_exact_scan_finds(place: Place) -> None:
    manifest, metrics = place.build(corpus())
    assert (manifest["rows"], manifest["documents"]) == (8, 8)
    assert metrics["recall@10"] == 1.0
    assert work(metrics) == (8, 8, 0)
    assert open_version(place.store, manifest).count_rows() == 8


def test_equal_content_gives_an_equal_manifest_in_any_order_and_embeds_nothing(place: Place) -> None:
    manifest, _ = place.build(corpus())
    again, metrics = place.build(corpus()[::-1])
    assert again == manifest
    assert work(metrics) == (0, 0, 0)
    assert not {"seconds", "uri", "time"} & manifest.keys()


def test_one_changed_passage_is_one_embedding_and_the_old_version_stays_as_it_was(place: Place) -> None:
    old, _ = place.build(corpus())
    new, metrics = place.build(corpus(("The van leaves at 5:20.", *TEXTS[1:])))
    assert work(metrics) == (1, 1, 1)
    assert (old["table"], old["rows"]) == (new["table"], new["rows"]) and old["tag"] != new["tag"]
    settings = {"candidates": 10, "k": 1, "text_weight": 1.0}
    assert place.open(old).search("When does the van leave?", settings)[0]["text"] == "The van leaves at 5:45."
    assert place.open(new).search("When does the van leave?", settings)[0]["text"] == "The van leaves at 5:20."
    back, metrics = place.build(corpus())
    assert back == old and work(metrics) == (0, 0, 0)


def test_the_same_text_under_another_name_is_not_embedded_again(place: Place) -> None:
    place.build(corpus())
    moved = [*corpus()[1:], passage("page-0", TEXTS[0]) | {"document": "elsewhere", "id": value_digest("moved")}]
    _, metrics = place.build(moved)
    assert work(metrics) == (0, 1, 1)


def test_equal_passages_on_two_pages_stay_two(place: Place) -> None:
    manifest, metrics = place.build([*corpus(), passage("page-0", TEXTS[0], occurrence=1)])
    assert manifest["rows"] == 9
    assert work(metrics) == (8, 9, 0)


def test_a_table_that_is_gone_is_built_again_from_the_stored_vectors(place: Place) -> None:
    manifest, _ = place.build(corpus())
    shutil.rmtree(place.store)
    with pytest.raises(IntegrityError, match="has no table"):
        open_version(place.store, manifest)
    again, metrics = place.build(corpus())
    assert again == manifest and work(metrics) == (0, 8, 0)


def test_another_table_setting_is_another_table(place: Place) -> None:
    first, _ = place.build(corpus())
    second, metrics = place.build(corpus(), PARAMS.model_copy(update={"stem": False}))
    assert first["table"] != second["table"] and first["digest"] == second["digest"]
    assert work(metrics) == (0, 8, 0)
    third = describe(
        corpus(), Embedder(place.embedder).identity(), settings(PARAMS.model_copy(update={"batch_tokens": 1, "engine": "ray"}))
    )
    assert third == first  # how it is made is not what it is


def test_a_build_that_died_before_its_structures_were_made_is_finished_by_the_next(place: Place) -> None:
    """kill -9 between the rows and the full-text index leaves a table without a tag and without the index."""
    model = Embedder(place.embedder)
    manifest = describe(corpus(), model.identity(), settings(PARAMS))
    bring_up_to_date(place.store, manifest, corpus(), model, place.vectors, PARAMS)
    whole = connect(place.store).open_table(manifest["table"])
    rows = whole.search().limit(20).to_arrow().select(["id", "document", "heading", "text", "embedded", "vector"])
    shutil.rmtree(place.store)
    connect(place.store).create_table(manifest["table"], rows.slice(0, 5))
    again, _ = place.build(corpus())
    assert again == manifest
    assert [each.index_type for each in place.open(again).table.list_indices()] == ["FTS"]
    assert place.open(again).search("blue hair nets", {"candidates": 10, "k": 1, "text_weight": 1.0})[0]["text"] == TEXTS[3]


def test_another_engine_finds_the_index_as_it_is_and_without_ray_says_what_to_install(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)  # as where it is not installed
    on_ray = PARAMS.model_copy(update={"engine": "ray"})
    manifest, _ = place.build(corpus())
    assert place.build(corpus(), on_ray)[0] == manifest
    with pytest.raises(InputError, match=r"engine: ray, and Ray is not installed: pip install 'tandem\[ray\]'"):
        place.build([*corpus(), passage("page-9", "The oven is new.")], on_ray)
    assert place.build(corpus())[0] == manifest


def test_a_corpus_without_passages_is_refused(place: Place) -> None:
    with pytest.raises(InputError, match="the corpus has no passages"):
        place.build([])


def test_rows_that_nobody_wrote_are_found(place: Place) -> None:
    manifest, _ = place.build(corpus())
    table = connect(place.store).open_table(manifest["table"])
    ids = [passage["id"] for passage in corpus()]
    with pytest.raises(IntegrityError, match="holds 8 rows where 7 were written"):
        check_content(table, ids[:7])
    with pytest.raises(IntegrityError, match="another writer"):
        check_content(table, [*ids[:7], "0" * 64])


@pytest.mark.parametrize("store", ["s3://bucket/index", "gs://b/i", "az://b/i", "/a/folder", "relative/folder"])
def test_a_store_with_a_safe_commit_is_accepted(store: str) -> None:
    check_store(store)


@pytest.mark.parametrize(
    "store", ["", "hdfs://host/x", "http://host/x", "s3+ddb://bucket/x", "file:///x", "memory://", "s3:/b/i"]
)
def test_a_store_on_which_two_writers_could_overwrite_each_other_is_refused(store: str) -> None:
    with pytest.raises(InputError, match="TANDEM_INDEX_URI"):
        check_store(store)
