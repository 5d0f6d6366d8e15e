"""What stays after upkeep reads and ranks as before, whoever has it open; the rest is gone from the disk."""

import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dying import die_in, returncode_of
from hashing import vectors_of
from test_index_faults import Place, corpus, passage

import tasks.upkeep
from tasks.embedding import VectorStore
from tasks.errors import IntegrityError
from tasks.records import Record
from tasks.search import Index, open_version
from tasks.tables import connect, open_table, tags
from tasks.upkeep import check_answers, keep_versions, texts_of

GRACE = 0.1  # seconds; longer on real days, for the sake of clocks


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def days(place: Place, count: int) -> list[dict[str, Any]]:
    """One manifest a day; each day two passages come and two go."""
    return [place.build(corpus(2 * day, 2 * day + 60))[0] for day in range(count)]


def size(folder: Path | str) -> int:
    return sum(path.stat().st_size for path in Path(folder).rglob("*") if path.is_file())


def rows(place: Place, manifest: dict[str, Any]) -> list[Record]:
    return list(open_version(place.store, manifest).search().limit(1000).to_arrow().sort_by("id").to_pylist())


def answers(place: Place, manifest: dict[str, Any]) -> list[Any]:
    searcher = Index(place.store, manifest, place.model)
    questions = ("van number 31", "leaves at 40 past", corpus(33, 34)[0]["text"])
    return [[(hit["id"], hit["score"]) for hit in searcher.search(q, settings_of(w))] for q in questions for w in (0.0, 0.5, 1.0)]


def settings_of(weight: float) -> dict[str, Any]:
    return {"candidates": 10, "k": 5, "text_weight": weight}


def keep(place: Place, kept: list[dict[str, Any]]) -> None:
    time.sleep(2 * GRACE)
    keep_versions(place.store, {kept[0]["table"]: [each["tag"] for each in kept]} if kept else {}, GRACE)


def test_what_is_kept_reads_and_ranks_as_before_and_the_rest_is_freed(place: Place) -> None:
    made = days(place, 12)
    kept = [made[0], made[7], made[11]]
    before = [(rows(place, each), answers(place, each)) for each in kept]
    readers = [Index(place.store, each, place.model) for each in kept]
    held = size(place.store)
    keep(place, kept)
    assert size(place.store) < 0.6 * held
    assert [(rows(place, each), answers(place, each)) for each in kept] == before
    for reader, each, (_, said) in zip(readers, kept, before, strict=True):  # opened long ago, and never told
        assert [hit["id"] for hit in reader.search("van number 31", settings_of(0.5))] == [key for key, _ in said[1]]
        check_answers(open_version(place.store, each))
    table = open_table(connect(place.store), made[0]["table"])
    assert set(tags(table)) == {each["tag"] for each in kept}
    assert len(table.list_versions()) <= len(kept) + 2  # type: ignore[union-attr]


def test_disk_held_is_little_more_than_what_the_kept_versions_need(place: Place, tmp_path: Path) -> None:
    """Against a store that never held anything else. A passage is a few hundred bytes here, so the small files count most."""
    many = [place.build([*corpus(0, 2000), *corpus(5000 + day, 5020 + day)])[0] for day in range(8)]
    keep(place, [many[0], many[7]])
    needed = Place(tmp_path / "needed")
    for day in (0, 7):
        needed.build([*corpus(0, 2000), *corpus(5000 + day, 5020 + day)])
    assert size(place.store) <= 1.5 * size(needed.store)


def test_the_next_build_goes_on_from_what_was_kept(place: Place) -> None:
    made = days(place, 4)
    keep(place, [made[3]])
    manifest, work = place.build(corpus(8, 68))
    assert (work["embedded"], work["inserted"], work["deleted"]) == (2, 2, 2)
    fresh = Place(place.vectors.parent / "fresh")
    assert fresh.build(corpus(8, 68))[0] == manifest
    assert answers(fresh, manifest) == answers(place, manifest)
    assert len(rows(place, made[3])) == 60
    again, work = place.build(corpus(2, 62))  # a day that was dropped
    assert again == made[1] and work["embedded"] == 0 and len(rows(place, again)) == 60


def test_many_fragments_are_merged_and_the_version_still_is_what_it_was(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.upkeep, "MOST_FRAGMENTS", 5)
    made = days(place, 9)
    before = rows(place, made[8]), answers(place, made[8]), rows(place, made[2])
    assert fragments(place, made[8]) > 5
    keep(place, [made[2], made[8]])
    assert fragments(place, made[8]) == 1
    assert (rows(place, made[8]), answers(place, made[8]), rows(place, made[2])) == before
    assert place.build(corpus(18, 78))[1]["embedded"] == 2


def fragments(place: Place, manifest: dict[str, Any]) -> int:
    return int(open_version(place.store, manifest).stats()["fragment_stats"]["num_fragments"])


def test_a_table_that_nobody_needs_is_dropped_and_a_foreign_one_stays(place: Place) -> None:
    made = days(place, 2)
    connect(place.store).create_table("customers", [{"name": "Ada"}])
    (Path(place.store) / "passages-half.lance/data").mkdir(parents=True)
    keep(place, [])
    assert open_table(connect(place.store), made[0]["table"]) is None
    assert connect(place.store).open_table("customers").count_rows() == 1
    assert place.build(corpus(2, 62))[1]["embedded"] == 0


def test_a_table_that_is_being_made_elsewhere_is_left_alone(place: Place) -> None:
    """On object storage there is no lock: what is younger than the grace is somebody's."""
    made = days(place, 1)
    keep_versions(place.store, {}, grace=3600)
    table = open_table(connect(place.store), made[0]["table"])
    assert table is not None and table.count_rows() == 60


def test_files_that_a_killed_writer_left_are_removed_after_a_week(place: Place) -> None:
    made = days(place, 2)
    data = Path(place.store) / f"{made[0]['table']}.lance/data"
    old, new = data / "old.lance", data / "new.lance"
    for path in (old, new):
        path.write_bytes(b"half of it")
    os.utime(old, (time.time() - 8 * 86400,) * 2)
    keep(place, made)
    assert not old.exists() and new.exists()


def keep_and_die(store: str, wanted: dict[str, list[str]], name: str, call: int) -> None:
    die_in(tasks.upkeep, name, call=call)
    keep_versions(store, wanted, 0.1)


@pytest.mark.parametrize(("name", "call"), [("same_rows", 2), ("compact", 1), ("prune", 1), ("restore_newest_tag", 1)])
def test_upkeep_that_was_killed_loses_nothing_and_the_next_finishes_it(place: Place, name: str, call: int) -> None:
    made = days(place, 5)
    kept = [made[1], made[4]]
    before = [(rows(place, each), answers(place, each)) for each in kept]
    wanted = {made[0]["table"]: [each["tag"] for each in kept]}
    assert returncode_of(keep_and_die, place.store, wanted, name, call) == -9
    assert [(rows(place, each), answers(place, each)) for each in kept] == before
    copy = Place(place.vectors.parent / "copy")  # one world goes on with a build, the other with upkeep
    shutil.copytree(place.store, copy.store)
    if name == "same_rows":  # which left an older day as the newest version
        copy.vectors = place.vectors  # else without one: what the table holds is not embedded again, even where it was emptied
    assert copy.build(corpus(10, 70))[1]["embedded"] == 2
    keep(place, kept)
    assert [(rows(place, each), answers(place, each)) for each in kept] == before


def test_another_writer_in_the_middle_stops_upkeep_before_anything_is_freed(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = days(place, 3)
    real = tasks.upkeep.checkout
    calls: list[str] = []

    def between(table: Any, tag: str) -> None:
        real(table, tag)
        calls.append(tag)
        if len(calls) == 2:
            place.build(corpus(50, 90))

            def restore() -> None:
                type(table).restore(table)
                place.build(corpus(51, 91))

            table.restore = restore

    monkeypatch.setattr(tasks.upkeep, "checkout", between)
    with pytest.raises(IntegrityError, match="somebody else writes"):
        keep(place, [made[0], made[2]])
    assert [len(rows(place, each)) for each in (made[0], made[2])] == [60, 60]


def test_a_table_that_does_not_find_its_own_passages_does_not_pass(place: Place) -> None:
    class Other:
        def __init__(self, table: Any) -> None:
            self.table, self.name, self.schema, self.index_stats = table, "other", table.schema, table.index_stats

        def search(self, query: Any = None, **more: Any) -> Any:
            return self.table.search(-np.asarray(query) if isinstance(query, list) else query, **more)

    table = open_version(place.store, days(place, 1)[0])
    with pytest.raises(IntegrityError, match="does not find its own passages"):
        check_answers(Other(table))


def test_vectors_that_no_kept_text_needs_are_forgotten_and_the_file_shrinks(place: Place) -> None:
    manifest, _ = place.build(corpus(0, 300))
    store = VectorStore(place.vectors, place.model.digest)
    other = VectorStore(place.vectors, "another embedder")
    texts = [passage(f"gone {number}")["embedded"] for number in range(3000)]
    other.put(texts, vectors_of(texts))
    store.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    held = place.vectors.stat().st_size
    kept = list(texts_of(open_version(place.store, manifest)))
    assert store.forget_all_but(store.key(text) for text in kept) == 3000
    assert store.missing(kept) == [] and other.missing(texts) == texts
    assert place.vectors.stat().st_size < 0.5 * held
    assert store.forget_all_but(store.key(text) for text in kept) == 0
