"""What must not go wrong: odd ids and texts, bad vectors, torn files, a process that dies, two at once."""

import sqlite3
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lancedb
import numpy as np
import pytest
import tiny
from dying import at_once, die_in, returncode_of
from hashing import HashEmbedder, vectors_of

import tasks.index
from tasks.embedding import Vectors, VectorStore
from tasks.errors import InputError, IntegrityError, TandemError
from tasks.index import bring_up_to_date, describe, write_rows
from tasks.index import settings as table_settings
from tasks.params import IndexParams
from tasks.params_files import load
from tasks.records import Record, value_digest
from tasks.search import Index, open_version
from tasks.tables import connect, only_writer, open_table

PARAMS = load(IndexParams, tiny.ROOT / "params")
MANIFESTS = "_versions/*.manifest"


def passage(text: str, key: str | None = None) -> Record:
    row = {"document": "page", "heading": "Page", "text": text, "embedded": f"Page\n{text}"}
    return row | {"id": key if key is not None else value_digest(["page", "Page", text, 0])}


def corpus(start: int, stop: int) -> list[Record]:
    return [passage(f"The van number {number} leaves at {number} past five.") for number in range(start, stop)]


class Place:
    def __init__(self, folder: Path, model: Any = None) -> None:
        self.store, self.vectors, self.model = str(folder / "lance"), folder / "vectors.sqlite", model or HashEmbedder()

    def manifest(self, passages: list[Record]) -> dict[str, Any]:
        return describe(passages, self.model.identity(), table_settings(PARAMS))

    def build(self, passages: list[Record]) -> tuple[dict[str, Any], dict[str, Any]]:
        manifest = self.manifest(passages)
        with only_writer(self.store):
            _, work = bring_up_to_date(self.store, manifest, passages, self.model, self.vectors, PARAMS)
        return manifest, work

    def ids(self, manifest: dict[str, Any]) -> list[str]:
        return sorted(open_version(self.store, manifest).search().limit(10_000).to_arrow()["id"].to_pylist())

    def files(self, manifest: dict[str, Any], pattern: str) -> list[Path]:
        """The newest first: Lance counts its manifests downwards."""
        return sorted((Path(self.store) / f"{manifest['table']}.lance").glob(pattern))


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


# --- Content

ODD_IDS = ("it's", 'say "x"', "100%", "a_b%c", "two\nlines", "x' OR '1'='1", "a;b\\", "--", "ü\u202ex", "", " ")


def test_ids_of_any_kind_are_deleted_alone(place: Place) -> None:
    """Ids are digests as the chunker makes them; the delete path does not rely on it."""
    rows = [passage(f"Text of number {number}.", key) for number, key in enumerate(ODD_IDS)]
    place.build(rows)
    while len(rows) > 1:
        rows = rows[1:]
        manifest, work = place.build(rows)
        assert work["deleted"] == 1
        assert place.ids(manifest) == sorted(row["id"] for row in rows)


ODD_TEXTS = (
    "NUL \x00 in the middle", "bell \x07 and escape \x1b[31m", "right \u202eto left", "\ufeffbom", "\u2028",
    "''; DROP TABLE passages; --",
    "emoji 👩‍👩‍👧 and 漢字", "word " * 40_000, "x" * 300_000, "%s %d {} ${x}", "- + ! ( ) { } [ ] ^ \" ~ * ? : \\ / AND OR NOT",
)  # fmt: skip


def test_texts_of_any_kind_come_back_as_they_were(place: Place) -> None:
    rows = [passage(text) for text in ODD_TEXTS]
    manifest, _ = place.build(rows)
    found = open_version(place.store, manifest).search().limit(100).to_arrow()
    assert dict(zip(found["id"].to_pylist(), found["text"].to_pylist(), strict=True)) == {row["id"]: row["text"] for row in rows}


QUESTIONS = (
    "???", "the of and", "'", '"', '"unclosed', "van AND", "NOT", "van*", "-van", "van:", "text:van", "(", "\\", "x' OR '1'='1",
    "a\udcffb",    "\u202e", "漢字", "van " * 1999, "%", "\n van \r\n", "^2", "~", "+", "[1 TO 2]",
)  # fmt: skip


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Index:
    place = Place(tmp_path_factory.mktemp("searched"))
    manifest, _ = place.build(corpus(0, 12))
    return Index(place.store, manifest, place.model)


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_of_any_kind_is_answered_by_the_nearest_passages(searcher: Index, question: str) -> None:
    found = [searcher.search(question, {"candidates": 5, "k": 2, "text_weight": weight}) for weight in (0.0, 0.5, 1.0)]
    assert [len(found[0]), len(found[1])] == [2, 2] and 1 <= len(found[2]) <= 2


@pytest.mark.parametrize("question", ["", " \n", "\x00", "x" * 1_000_000, "word " * 200_000])
def test_an_empty_or_endless_question_is_refused_by_what_it_is(searcher: Index, question: str) -> None:
    with pytest.raises(InputError, match=r"the question (is empty|has 1000000 characters|has 999999 characters)"):
        searcher.search(question, {"candidates": 5, "k": 2, "text_weight": 0.5})


@pytest.mark.parametrize(
    ("vector", "said"),
    [
        (np.ones(15, np.float32), r"a vector of shape \(15,\)"),
        (np.full(16, np.nan, np.float32), "NaN"),
        (np.ones((2, 16), np.float32), "shape"),
    ],
)
def test_a_question_that_became_no_vector_of_the_index_is_refused(searcher: Index, vector: Vectors, said: str) -> None:
    class Wrong(HashEmbedder):
        def queries(self, texts: Sequence[str], batch_tokens: int = 1024) -> Vectors:
            return np.stack([vector] * len(texts))

    right, searcher.embedder = searcher.embedder, Wrong()  # type: ignore[assignment]
    with pytest.raises(IntegrityError, match=said):
        searcher.legs("When does the van leave?", 3)
    searcher.embedder = right


@pytest.mark.parametrize("value", [0.0, float("nan"), float("inf")])
def test_a_vector_that_finds_nothing_stops_the_build_before_it_is_kept_anywhere(tmp_path: Path, value: float) -> None:
    class Broken(HashEmbedder):
        def passages(self, texts: Sequence[str], batch_tokens: int = 1024) -> Vectors:
            vectors = vectors_of(texts)
            vectors[-1] = value
            return vectors

    broken = Place(tmp_path, Broken())
    with pytest.raises(InputError, match="zero or NaN vector for: 'Page"):
        broken.build(corpus(0, 3))
    assert open_table(connect(broken.store), broken.manifest([])["table"]) is None
    broken.model = HashEmbedder()
    assert broken.build(corpus(0, 3))[1]["embedded"] == 3


def test_a_corpus_replaced_as_a_whole_is_one_delete_of_all_its_ids(place: Place) -> None:
    place.build(corpus(0, 3000))
    manifest, work = place.build(corpus(3000, 3100))
    assert (work["deleted"], work["inserted"], work["commits"]) == (3000, 100, 2)
    assert len(place.ids(manifest)) == 100


# --- The vector store


def test_a_table_goes_on_without_the_vector_store_and_embeds_only_what_is_new(place: Place) -> None:
    place.build(corpus(0, 8))
    place.vectors.unlink()
    manifest, work = place.build(corpus(2, 10))
    assert (work["embedded"], work["inserted"], work["deleted"]) == (2, 2, 2)
    assert len(place.ids(manifest)) == 8


def test_a_damaged_vector_store_says_that_it_can_be_deleted(place: Place) -> None:
    place.vectors.write_bytes(b"this is no database" * 100)
    with pytest.raises(IntegrityError, match=r"is damaged .*delete it"):
        place.build(corpus(0, 3))


@pytest.mark.parametrize("blob", [b"", b"\x00" * 60, b"\x00" * 128])
def test_a_vector_that_was_cut_is_found_before_it_is_used(place: Place, blob: bytes) -> None:
    store = VectorStore(place.vectors, place.model.digest)
    texts = [row["embedded"] for row in corpus(0, 3)]
    store.put(texts, vectors_of(texts))
    with sqlite3.connect(place.vectors) as connection:
        connection.execute("UPDATE vectors SET vector = ? WHERE key = ?", (blob, store.key(texts[1])))
    with pytest.raises(IntegrityError, match="no whole vector for"):
        place.build(corpus(0, 3))


def test_the_store_knows_how_fast_its_embedder_was_here(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "v.sqlite", "one")
    assert store.pace() is None
    store.put(["a", "b"], vectors_of(["a", "b"]), 0.5)
    store.put(["c"], vectors_of(["c"]), 1.0)
    store.put(["d"], vectors_of(["d"]))
    assert store.pace() == 2.0
    assert VectorStore(tmp_path / "v.sqlite", "another").pace() is None


def test_many_texts_are_looked_up_in_groups_and_keep_their_order(tmp_path: Path) -> None:
    store = VectorStore(tmp_path / "v.sqlite", "m")
    texts = [f"text {number}" for number in range(1234)]
    store.put(texts[::2], vectors_of(texts[::2]))
    assert store.missing(texts + texts[:3]) == texts[1::2]
    wanted = [*texts[1000::-2], texts[1000]]
    assert np.array_equal(store.get(wanted), vectors_of(wanted))


# --- Torn files


def newest_manifest(place: Place, manifest: dict[str, Any]) -> Path:
    return place.files(manifest, MANIFESTS)[0]


@pytest.mark.parametrize("kept", [0, 200])
def test_a_newest_version_that_a_crash_tore_is_named_and_can_be_moved_away(place: Place, kept: int) -> None:
    old, _ = place.build(corpus(0, 5))
    new, _ = place.build(corpus(0, 6))
    torn = newest_manifest(place, new)
    torn.write_bytes(torn.read_bytes()[:kept])
    for attempt in (lambda: open_version(place.store, old), lambda: place.build(corpus(0, 7))):
        with pytest.raises(IntegrityError, match=r"cannot be read .*move the newest file of passages-\w+\.lance/_versions away"):
            attempt()
    torn.unlink()
    assert len(place.ids(old)) == 5
    with pytest.raises(IntegrityError):
        open_version(place.store, new)  # its tag names the version that was torn


def test_a_torn_tag_is_named(place: Place) -> None:
    manifest, _ = place.build(corpus(0, 5))
    place.files(manifest, "_refs/tags/*")[0].write_bytes(b'{"ver')
    with pytest.raises(IntegrityError, match=r"_refs/tags away"):
        open_version(place.store, manifest)
    place.files(manifest, "_refs/tags/*")[0].unlink()
    again, work = place.build(corpus(0, 5))
    assert again == manifest and work["embedded"] == 0 and len(place.ids(again)) == 5


def test_a_table_of_a_newer_lance_asks_for_an_upgrade(place: Place) -> None:
    manifest, _ = place.build(corpus(0, 5))
    newest = newest_manifest(place, manifest)
    newest.write_bytes(with_reader_flag(newest.read_bytes()))
    for attempt in (lambda: open_version(place.store, manifest), lambda: place.build(corpus(0, 6))):
        with pytest.raises(IntegrityError, match=r"was made by a newer LanceDB .*make setup"):
            attempt()


def with_reader_flag(data: bytes) -> bytes:
    """A Lance manifest that says that its reader must know feature 2^20: a field appended to its protobuf message."""
    position = struct.unpack("<Q", data[-16:-8])[0]
    length = struct.unpack("<I", data[position : position + 4])[0]
    end = position + 4 + length
    message = data[position + 4 : end] + bytes([9 << 3, 0x80, 0x80, 0x40])
    return data[:position] + struct.pack("<I", len(message)) + message + data[end:]


# --- A process that dies, and two at once


def build_and_die(folder: Path, name: str, before: bool) -> None:
    die_in(tasks.index, name, before)
    Place(folder).build(corpus(3, 9))


@pytest.mark.parametrize(
    ("name", "before"), [("write_rows", False), ("build_structures", False), ("check_content", False), ("write_rows", True)]
)
def test_a_build_that_was_killed_is_finished_by_the_next(tmp_path: Path, name: str, before: bool) -> None:
    place = Place(tmp_path)
    old, _ = place.build(corpus(0, 6))

    assert returncode_of(build_and_die, tmp_path, name, before) == -9
    assert place.ids(old) == sorted(row["id"] for row in corpus(0, 6))
    new, work = place.build(corpus(3, 9))
    assert work["embedded"] == 0  # what was embedded before the end was kept
    assert place.ids(new) == sorted(row["id"] for row in corpus(3, 9))
    assert place.ids(old) == sorted(row["id"] for row in corpus(0, 6))


def test_a_first_build_that_was_killed_leaves_nothing_in_the_way(place: Place) -> None:
    manifest = place.manifest(corpus(0, 5))
    folder = Path(place.store) / f"{manifest['table']}.lance/data"
    folder.mkdir(parents=True)
    (folder / "half.lance").write_bytes(b"half of it")
    assert place.build(corpus(0, 5))[0] == manifest


def compete(folder: str, start: int, locked: bool, barrier: Any, results: Any) -> None:
    """In a process of its own: three builds of three corpora that nobody else builds."""
    import contextlib

    if not locked:
        globals()["only_writer"] = contextlib.nullcontext  # as on object storage, where there is none
    place = Place(Path(folder))
    barrier.wait()
    for step in range(3):
        rows = corpus(start + step, start + 20 + step)
        try:
            place.build(rows)
            results.put((start + step, "built"))
        except TandemError as error:
            results.put((start + step, str(error)))
        except RuntimeError as error:  # Lance: somebody else's commit came first
            results.put((start + step, f"conflict {error}"))


def both(folder: Path, locked: bool) -> dict[int, str]:
    return at_once(compete, [(str(folder), start, locked) for start in (0, 100)], answers=6)


def test_two_builds_at_once_leave_the_right_rows_for_both(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.build(corpus(0, 40))
    assert set(both(tmp_path, locked=True).values()) == {"built"}
    check_rows(place, [*range(3), *range(100, 103)])


def test_without_a_lock_a_build_is_right_or_says_that_it_is_not(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.build(corpus(0, 40))
    outcome = both(tmp_path, locked=False)
    check_rows(place, [start for start, said in outcome.items() if said == "built"])
    for start, said in outcome.items():
        assert said == "built" or "another writer" in said or "conflict" in said, (start, said)
        assert place.build(corpus(start, start + 20))[0]  # and the next one mends it
    check_rows(place, list(outcome))


def test_two_writers_who_saw_the_same_version_insert_the_same_passages_once(place: Place) -> None:
    """By the primary key, with which the table is made: without it Lance takes both, without a word."""
    manifest, _ = place.build(corpus(0, 5))
    rows = corpus(5, 9)
    cache = VectorStore(place.vectors, place.model.digest)
    cache.put([row["embedded"] for row in rows], vectors_of([row["embedded"] for row in rows]))
    handles = [open_table(lancedb.connect(place.store), manifest["table"]) for _ in range(2)]
    assert [handle.count_rows() for handle in handles if handle is not None] == [5, 5]
    for handle in handles:
        write_rows(None, handle, manifest, rows, [], cache)
    newest = open_table(connect(place.store), manifest["table"])
    assert newest is not None and newest.count_rows() == 9


def check_rows(place: Place, starts: list[int]) -> None:
    for start in starts:
        rows = corpus(start, start + 20)
        assert place.ids(place.manifest(rows)) == sorted(row["id"] for row in rows)
