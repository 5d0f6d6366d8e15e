"""The vector leg above `exact_below_rows`: two thousand clustered vectors in partitions of fifty, held whole or short."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hashing import DIMENSION, HashEmbedder, vector_of
from hypothesis import given
from hypothesis import strategies as st
from tiny import ROOT

import tasks.nearest
from tasks.embedding import Vectors
from tasks.index import bring_up_to_date, describe, settings
from tasks.nearest import (
    exact_thresholds,
    first,
    make_index,
    measure,
    nearest,
    partitions,
    queries_of,
    served_recall,
    shares_found,
    written_probes,
)
from tasks.params import IndexParams
from tasks.params_files import load
from tasks.records import Record, value_digest
from tasks.search import Index, open_version
from tasks.tables import connect

PARAMS = load(IndexParams, ROOT / "params").model_copy(update={"exact_below_rows": 100})
ROWS = 2000


class Spread(HashEmbedder):
    """A topic's word gives the direction, the others a noise around it."""

    def passages(self, texts: Any, batch_size: int = 32) -> Vectors:
        self.embedded += texts
        return np.stack([near(text) for text in texts]) if len(texts) else np.empty((0, DIMENSION), np.float32)


def near(text: str) -> Vectors:
    vector = vector_of(text.split()[0]) + 0.7 * vector_of(text)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


def corpus(count: int = ROWS) -> list[Record]:
    return [
        {"id": value_digest(number), "document": f"page-{number}", "heading": "H", "text": text, "embedded": text}
        for number in range(count)
        for text in [f"topic{number * number % 41} word{number}"]
    ]


def build(folder: Path, passages: list[Record]) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    model: Any = Spread()
    manifest = describe(passages, model.identity(), settings(PARAMS))
    table, work = bring_up_to_date(str(folder / "index"), manifest, passages, model, folder / "vectors.sqlite", PARAMS)
    return table, manifest, work


def built(folder: Path, monkeypatch: pytest.MonkeyPatch, slower: bool = False) -> tuple[Any, dict[str, Any], dict[str, Any]]:
    """What is faster is not left to the machine of the test."""
    monkeypatch.setattr(tasks.nearest, "PARTITION_ROWS", 50)
    monkeypatch.setattr(tasks.nearest, "slower_than_exact", lambda *given: slower)
    return build(folder, corpus())


@pytest.fixture(params=["IVF_FLAT", "IVF_RQ"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whole vectors in the index, or one bit of each coordinate."""
    monkeypatch.setattr(tasks.nearest, "SHORTENED_FROM", {"IVF_FLAT": 10**9, "IVF_RQ": ROWS}[request.param])
    return str(request.param)


def test_a_build_looks_into_few_partitions_and_finds_what_the_floor_asks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    table, manifest, work = built(tmp_path, monkeypatch)
    model: Any = Spread()
    assert table.index_stats("vector_idx").index_type == kind
    probes = written_probes(table)
    assert work["commits"] <= 4 and probes is not None and 1 <= probes < partitions(ROWS) == 40
    assert measure(table, model, model.identity(), 100).recall >= PARAMS.min_recall
    again = open_version(str(tmp_path / "index"), manifest)
    assert written_probes(again) == probes  # they are part of the version that the tag names


def test_fewer_probes_than_were_tuned_lose_more_than_was_allowed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, _, _ = built(tmp_path, monkeypatch)
    model: Any = Spread()
    queries = queries_of(table, model, model.identity(), 400)
    thresholds = exact_thresholds(table, queries, 10)
    ladder = (1, written_probes(table), 40)
    found = [float(shares_found(table, queries, thresholds, 10, probes).mean()) for probes in ladder]
    assert found == sorted(found) and found[0] < 0.995 <= found[1] and found[2] == 1.0


def test_an_index_that_is_slower_than_the_exact_scan_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table, manifest, _ = built(tmp_path, monkeypatch, slower=True)
    assert written_probes(table) == 0
    assert "KNNVectorDistance" in nearest(table, near("topic1 word1")).limit(3).explain_plan()
    assert "ANN" in nearest(table, near("topic1 word1"), 4).limit(3).explain_plan()
    model: Any = Spread()
    assert measure(table, model, model.identity(), 100).recall == 1.0
    assert len(Index(str(tmp_path / "index"), manifest, model).legs("topic1", 5)[1]) == 5


def test_a_score_is_the_same_by_the_exact_scan_and_by_the_index_whatever_its_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    first_table, _, _ = built(tmp_path, monkeypatch)
    table, _, work = build(tmp_path, corpus(ROWS + 60))  # sixty of them stand outside the index
    tuned_again = written_probes(table) != written_probes(
        first_table
    )  # partitions are drawn by chance; some lose more than was tuned
    assert work["commits"] == 2 + tuned_again and table.index_stats("vector_idx").num_unindexed_rows == 60
    question = near(corpus(ROWS + 60)[2041]["text"])
    exact, served = (
        {row["id"]: row["_distance"] for row in nearest(table, question, probes).limit(10).to_list()} for probes in (0, None)
    )
    assert value_digest(2041) in served
    assert {key: served[key] for key in served.keys() & exact.keys()} == pytest.approx(
        {key: exact[key] for key in served.keys() & exact.keys()}, abs=1e-5
    )


def served(table: Any, model: Any, floor: float, made: bool) -> float:
    identity = model.identity()
    return served_recall(table, model, identity, measure(table, model, identity, 100), floor, made)


def test_probes_are_tuned_again_when_an_index_was_made_or_those_in_use_lose_too_much(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built(tmp_path, monkeypatch)
    model: Any = Spread()
    table = connect(str(tmp_path / "index")).open_table(describe(corpus(), model.identity(), settings(PARAMS))["table"])
    before, tuned = table.version, written_probes(table)
    for made in (False, True):
        served(table, model, PARAMS.min_recall, made)
    served(table, model, 0.5, made=False)  # fewer would do; not worth a commit at every refresh
    assert (table.version, written_probes(table)) == (before, tuned)
    served(table, model, 0.5, made=True)
    assert (table.version, written_probes(table)) == (before + 1, 1)
    served(table, model, PARAMS.min_recall, made=False)
    assert written_probes(table) == tuned


def test_where_one_bit_of_each_coordinate_does_not_find_enough_the_index_holds_whole_vectors_from_then_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.nearest, "SHORTENED_FROM", ROWS)
    monkeypatch.setattr(tasks.nearest, "REFINE", 1)
    model: Any = Spread()
    _, _, work = built(tmp_path, monkeypatch)
    assert work["commits"] == 5  # rows, full text, one bit, whole, probes
    table, _, work = build(tmp_path, corpus(ROWS + ROWS // 5))  # so many outside that it is made anew
    assert table.index_stats("vector_idx").index_type == "IVF_FLAT" and work["commits"] <= 4  # it is not tried again
    assert measure(table, model, model.identity(), 100).recall >= PARAMS.min_recall


def test_vectors_whose_coordinates_do_not_come_in_eights_stay_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.nearest, "SHORTENED_FROM", 0)
    rows = [{"id": str(number), "vector": near(f"topic{number % 7} word{number}")[:12]} for number in range(300)]
    schema = pa.schema([("id", pa.string()), ("vector", pa.list_(pa.float32(), 12))])
    table = connect(str(tmp_path)).create_table("odd", rows, schema=schema)
    make_index(table)
    assert table.index_stats("vector_idx").index_type == "IVF_FLAT"


def test_a_table_of_one_partition_has_nothing_to_tune(tmp_path: Path) -> None:
    table, _, work = build(tmp_path, corpus(300))
    assert work["commits"] == 3 and written_probes(table) is None


@given(ladder=st.lists(st.integers(1, 100), min_size=1, unique=True).map(sorted), needed=st.integers(1, 120))
def test_bisection_finds_the_first_step_that_is_enough_or_the_last(ladder: list[int], needed: int) -> None:
    asked: list[int] = []
    found = first(ladder, lambda step: asked.append(step) is None and step >= needed)  # type: ignore[func-returns-value]
    assert found == next((step for step in ladder if step >= needed), ladder[-1])
    assert len(asked) <= len(ladder).bit_length()
