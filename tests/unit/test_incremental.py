"""An index that goes on from what it has must be the index that a build from scratch would make, and embed only what is new."""

import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from hashing import HashEmbedder, vectors_of
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tasks.chunks import passages as cut
from tasks.chunks import row
from tasks.embedding import VectorStore
from tasks.index import (
    FORMAT,
    bring_up_to_date,
    build_structures,
    describe,
    write_rows,
)
from tasks.index import settings as table_settings
from tasks.nearest import exact_thresholds, measure, sampled
from tasks.params import ChunksParams, IndexParams
from tasks.params_files import load
from tasks.records import Record
from tasks.search import Index, fuse, open_version
from tasks.tables import connect, existing_ids, open_table

PARAMS = load(IndexParams, tiny.ROOT / "params").model_copy(update={"passages_per_commit": 3})
CHUNKS = load(ChunksParams, tiny.ROOT / "params")
WORDS = [
    "bread",
    "oven",
    "rye",
    "van",
    "market",
    "stall",
    "holiday",
    "wages",
    "baker",
    "shop",
    "kiosk",
    "flour",
    "dough",
    "night",
]
Pages = dict[str, list[str]]  # id -> paragraphs


def passages_of(pages: Pages) -> list[Record]:
    """By the real chunker."""
    documents = [
        {"id": page, "title": title_of(paragraphs), "text": "\n\n".join(paragraphs)} for page, paragraphs in pages.items()
    ]
    cut_up = [cut(document, CHUNKS.max_words, CHUNKS.join_below_words, CHUNKS.table_cell) for document in documents]
    return [passage for passages in cut_up for passage in passages]


def title_of(paragraphs: list[str]) -> str:
    """The page's own heading, so that a renamed file keeps it."""
    return paragraphs[0].removeprefix("# ")


def paragraph(seed: int) -> str:
    chosen = random.Random(seed)
    return " ".join(chosen.choices(WORDS, k=chosen.randint(8, 30))).capitalize() + f" number {seed}."


def page(seed: int, length: int = 4) -> list[str]:
    return [f"# Page {seed}", *(paragraph(1000 * seed + number) for number in range(length))]


class World:
    """A store, its vectors, and an embedder that counts."""

    def __init__(self, folder: Path) -> None:
        self.store, self.vectors = str(folder / "lance"), folder / "vectors.sqlite"
        self.params = PARAMS
        self.model: Any = HashEmbedder()

    def manifest(self, passages: list[Record]) -> dict[str, Any]:
        return describe(passages, self.model.identity(), table_settings(self.params))

    def build(self, passages: list[Record]) -> dict[str, Any]:
        """What it took, as the metrics file says it, and the manifest."""
        manifest = self.manifest(passages)
        _, work = bring_up_to_date(self.store, manifest, passages, self.model, self.vectors, self.params)
        return work | {"manifest": manifest}

    def rows(self, manifest: dict[str, Any]) -> list[tuple[Any, ...]]:
        table = open_version(self.store, manifest).search().limit(100_000).to_arrow().sort_by("id")
        columns = [table[name].to_pylist() for name in ("id", "document", "heading", "text", "embedded")]
        return list(zip(*columns, [tuple(vector) for vector in table["vector"].to_pylist()], strict=True))

    def commits(self) -> int:
        """By Lance's own count, of the one table that there is."""
        table = open_table(connect(self.store), self.manifest([])["table"])
        return 0 if table is None else int(table.version)


def expected_rows(passages: list[Record]) -> list[tuple[Any, ...]]:
    vectors = vectors_of([passage["embedded"] for passage in passages]).tolist()
    rows = [
        (each["id"], each["document"], each["heading"], each["text"], each["embedded"], tuple(vector))
        for each, vector in zip(passages, vectors, strict=True)
    ]
    return sorted(rows)


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


# --- Any sequence of edits


class Edits(RuleBasedStateMachine):
    """Days in the life of a corpus. After each day the index is brought up to date."""

    make_folder: Callable[[], Path]
    pages = st.integers(0, 7)
    places = st.integers(0, 20)
    seeds = st.integers(1, 99)

    @initialize(seeds=st.lists(seeds, min_size=1, max_size=3, unique=True))
    def first_day(self, seeds: list[int]) -> None:
        self.folder = type(self).make_folder()
        self.world = World(self.folder)
        self.corpus: Pages = {f"page-{seed}": page(seed) for seed in seeds}
        self.past: list[Pages] = []
        self.seen: set[str] = set()
        self.up_to_date()

    def chosen(self, number: int) -> str:
        return sorted(self.corpus)[number % len(self.corpus)]

    def change(self, name: str, paragraphs: list[str] | None, to: str | None = None) -> None:
        self.past.append({page: list(kept) for page, kept in self.corpus.items()})
        if paragraphs is None or to is not None:
            paragraphs = self.corpus.pop(name) if paragraphs is None else paragraphs
        if paragraphs and to != "":
            self.corpus[to or name] = paragraphs
        self.up_to_date()

    @rule(number=pages, at=places, seed=seeds)
    def a_paragraph_is_inserted(self, number: int, at: int, seed: int) -> None:
        kept = self.corpus[self.chosen(number)]
        at = 1 + at % len(kept)
        self.change(self.chosen(number), [*kept[:at], paragraph(seed), *kept[at:]])

    @rule(number=pages, at=places)
    def a_paragraph_is_removed(self, number: int, at: int) -> None:
        kept = self.corpus[self.chosen(number)]
        at = 1 + at % (len(kept) - 1) if len(kept) > 2 else len(kept)
        self.change(self.chosen(number), [*kept[:at], *kept[at + 1 :]])

    @rule(number=pages, at=places, word=st.sampled_from(WORDS))
    def a_word_is_changed(self, number: int, at: int, word: str) -> None:
        kept = list(self.corpus[self.chosen(number)])
        at = 1 + at % (len(kept) - 1) if len(kept) > 1 else 0
        kept[at] = kept[at].replace(" ", f" {word} ", 1)
        self.change(self.chosen(number), kept)

    @rule(number=pages, at=places)
    def a_paragraph_is_repeated(self, number: int, at: int) -> None:
        kept = self.corpus[self.chosen(number)]
        self.change(self.chosen(number), [*kept, kept[at % len(kept)]])

    @rule(seed=seeds)
    def a_page_comes(self, seed: int) -> None:
        self.change(f"page-{seed}", page(seed, 1 + seed % 4))

    @rule(number=pages)
    def a_page_goes(self, number: int) -> None:
        if len(self.corpus) > 1:
            self.change(self.chosen(number), None, to="")

    @rule(number=pages, seed=seeds)
    def a_page_is_renamed(self, number: int, seed: int) -> None:
        self.change(self.chosen(number), None, to=f"moved/{seed}")

    @rule(number=pages, seed=seeds)
    def a_page_is_copied(self, number: int, seed: int) -> None:
        self.change(f"copy/{seed}", list(self.corpus[self.chosen(number)]))

    @rule(back=places)
    def everything_is_reverted(self, back: int) -> None:
        if self.past:
            self.corpus = {page: list(kept) for page, kept in self.past[back % len(self.past)].items()}
            assert self.up_to_date()["commits"] == 0  # each of those days has its tag

    @rule()
    def nothing_happens(self) -> None:
        assert self.up_to_date()["commits"] == 0

    @rule(seed=seeds, after=st.integers(0, 6))
    def embedding_is_interrupted(self, seed: int, after: int) -> None:
        self.past.append({page: list(kept) for page, kept in self.corpus.items()})
        self.corpus[f"long-{seed}"] = page(seed, 6)
        model = self.world.model = HashEmbedder(stop_after=after)
        try:
            self.world.build(passages_of(self.corpus))
        except KeyboardInterrupt:
            self.past.pop()  # or it would count as a day that has its tag
        self.seen |= set(model.embedded)
        self.up_to_date()

    @rule(seed=seeds, structures=st.booleans())
    def the_process_dies_between_rows_and_tag(self, seed: int, structures: bool) -> None:
        corpus = self.corpus | {f"lost-{seed}": page(seed, 2)}
        passages = passages_of(corpus)
        manifest, database = self.world.manifest(passages), connect(self.world.store)
        table = open_table(database, manifest["table"])
        new = [passage for passage in passages if passage["id"] not in existing_ids(table)]
        gone = sorted(existing_ids(table) - {passage["id"] for passage in passages})
        cache = VectorStore(self.world.vectors, self.world.model.digest)
        texts = cache.missing([passage["embedded"] for passage in new])
        cache.put(texts, vectors_of(texts))
        self.seen |= set(texts)
        write_rows(database, table, manifest, new, gone, cache)
        if structures:
            build_structures(table, self.world.model, manifest["embedder"], PARAMS)

    def up_to_date(self) -> dict[str, Any]:
        passages = passages_of(self.corpus)
        new = {passage["embedded"] for passage in passages} - self.seen
        before = self.world.commits()
        model = self.world.model = HashEmbedder()
        work = self.world.build(passages)
        assert sorted(model.embedded) == sorted(new) and work["embedded"] == len(new)
        assert work["commits"] == self.world.commits() - before <= 3
        self.seen |= new
        self.last = work["manifest"]
        return work

    @invariant()
    def the_rows_are_those_of_a_build_from_scratch(self) -> None:
        assert self.world.rows(self.last) == expected_rows(passages_of(self.corpus))

    def teardown(self) -> None:
        """A real build from scratch, once per life: the same manifest, the same rows, the same ranking."""
        fresh = World(self.folder / "fresh")
        passages = passages_of(self.corpus)
        assert fresh.build(passages)["manifest"] == self.last
        assert fresh.rows(self.last) == self.world.rows(self.last)
        for question in ("where is the rye bread", passages[0]["text"]):
            assert legs(fresh, self.last, question) == legs(self.world, self.last, question)


def legs(world: World, manifest: dict[str, Any], question: str) -> list[Any]:
    """The two rankings, with their scores as far as 32 bits are sure of them."""
    text, vector, _ = Index(world.store, manifest, world.model).legs(question, 4)
    return [[(key, round(score, 5)) for key, score in ranking] for ranking in (text, vector)]


def test_after_any_sequence_of_edits_the_index_is_that_of_a_build_from_scratch(tmp_path: Path) -> None:
    def make_folder() -> Path:
        shutil.rmtree(tmp_path / "life", ignore_errors=True)
        return tmp_path / "life"

    class Life(Edits):
        pass

    Life.make_folder = staticmethod(make_folder)
    options = settings(
        max_examples=6, stateful_step_count=8, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True
    )
    run_state_machine_as_test(Life, settings=options)  # type: ignore[no-untyped-call]


# --- The counts that are promised


def long_page() -> list[str]:
    """About 200 passages."""
    return page(7, 190)


def test_a_paragraph_at_the_top_of_a_page_of_200_passages_is_at_most_three_embeddings(world: World) -> None:
    kept = long_page()
    assert 180 <= len(passages_of({"long": kept})) <= 260
    world.build(passages_of({"long": kept}))
    work = world.build(passages_of({"long": [kept[0], paragraph(5), *kept[1:]]}))
    assert 1 <= work["embedded"] <= 3 and work["commits"] <= 3


def test_one_page_in_a_hundred_edited_embeds_the_passages_that_changed_and_no_other(world: World) -> None:
    pages = {f"page-{seed}": page(seed) for seed in range(100)}
    before = passages_of(pages)
    world.build(before)
    pages["page-3"][2] += " And one more sentence."
    after = passages_of(pages)
    new = {each["embedded"] for each in after} - {each["embedded"] for each in before}
    work = world.build(after)
    assert work["embedded"] == len(new) <= 3


def test_a_renamed_folder_a_copied_page_and_a_reverted_edit_embed_nothing(world: World) -> None:
    pages = {f"staff/page-{seed}": page(seed) for seed in range(6)}
    first = world.build(passages_of(pages))
    renamed = {name.replace("staff/", "people/"): kept for name, kept in pages.items()}
    assert world.build(passages_of(renamed))["embedded"] == 0
    copied = renamed | {"people/copy": pages["staff/page-2"]}
    assert world.build(passages_of(copied))["embedded"] == 0
    edited = pages | {"staff/page-1": page(50)}
    assert world.build(passages_of(edited))["embedded"] > 0
    back = world.build(passages_of(pages))
    assert back["manifest"] == first["manifest"]
    assert (back["embedded"], back["inserted"], back["deleted"], back["commits"]) == (0, 0, 0, 0)
    forward = world.build(passages_of(edited | {"one-more": page(51)}))  # the newest version holds rows of another tag
    assert forward["embedded"] == len({each["embedded"] for each in passages_of({"one-more": page(51)})})


def test_touched_files_make_the_same_documents(tmp_path: Path) -> None:
    from tasks.documents import documents
    from tasks.params import DocumentsParams

    tiny.write_corpus(tmp_path)
    params = load(DocumentsParams, tiny.ROOT / "params")
    documents(tmp_path / "documents", tmp_path / "one", tmp_path / "kept-one.jsonl", params)
    for path in (tmp_path / "documents").rglob("*"):
        os.utime(path, (time.time() - 9e6, time.time() - 9e6))
    documents(tmp_path / "documents", tmp_path / "two", tmp_path / "kept-two.jsonl", params)
    assert (tmp_path / "one/documents.jsonl").read_bytes() == (tmp_path / "two/documents.jsonl").read_bytes()


def test_an_interrupted_build_goes_on_where_it_stopped(world: World) -> None:
    passages = passages_of({f"page-{seed}": page(seed) for seed in range(5)})
    texts = {passage["embedded"] for passage in passages}
    first = world.model = HashEmbedder(stop_after=10)
    with pytest.raises(KeyboardInterrupt):
        world.build(passages)
    world.model = HashEmbedder()
    work = world.build(passages)
    assert 6 < len(first.embedded) <= 10
    assert work["embedded"] == len(texts) - len(first.embedded)
    assert set(first.embedded).isdisjoint(world.model.embedded)


def test_a_first_build_and_every_later_one_take_at_most_three_commits(world: World) -> None:
    """With the vector index as well, which is made, left alone, made anew and dropped as the table grows and shrinks."""
    world.params = PARAMS.model_copy(update={"exact_below_rows": 30})
    pages = {f"page-{seed}": page(seed) for seed in range(4)}
    kinds = []
    for step in range(9):
        count = (4, 12, 13, 30, 31, 32, 3, 2, 20)[step]
        work = world.build(passages_of({f"page-{seed}": page(seed) for seed in range(count)} | pages))
        table = open_version(world.store, work["manifest"])
        assert work["commits"] <= 3
        kinds.append(any(each.index_type == "IvfFlat" for each in table.list_indices()))
        assert kinds[-1] == (work["manifest"]["rows"] >= 30)
        assert measure(table, world.model, world.model.identity(), 10).recall >= 0.9
    assert True in kinds and False in kinds


def test_the_exact_scan_that_recall_is_measured_by_is_exact(world: World) -> None:
    passages = passages_of({f"page-{seed}": page(seed) for seed in range(8)})
    table = open_version(world.store, world.build(passages)["manifest"])
    texts, queries = sampled(table, list(range(0, len(passages), 7)))
    matrix = vectors_of([passage["embedded"] for passage in passages])
    assert len(texts) == -(-len(passages) // 7)
    assert (queries == vectors_of(texts)).all()
    expected = [sorted(matrix @ query)[-10] for query in queries]
    assert exact_thresholds(table, queries, 10) == pytest.approx(expected, abs=1e-5)


def test_recall_of_a_table_of_one_passage_is_whole(world: World) -> None:
    table = open_version(world.store, world.build(passages_of({"page": ["# Page", paragraph(1)]})[:1])["manifest"])
    assert measure(table, world.model, world.model.identity(), 100).recall == 1.0


def test_what_is_embedded_follows_from_what_the_id_covers() -> None:
    """An id covers document, heading, text and occurrence. Where `embedded` is made of them otherwise, rows under the same ids
    would keep their old vectors: then tasks.index.FORMAT goes up by one, and with it the name of the table."""
    assert (FORMAT, row("page", "A > B", "Text.", 0)["embedded"]) == (1, "A > B\nText.")


# --- Full text: the same scores as from scratch


def test_full_text_ranks_after_many_refreshes_as_in_a_table_from_scratch(world: World, tmp_path: Path) -> None:
    pages = {f"page-{seed}": page(seed) for seed in range(30)}
    rng = random.Random(1)
    for _ in range(6):
        kept = {name: pages[name] for name in rng.sample(sorted(pages), 20)}
        world.build(passages_of(kept | {f"other-{rng.random()}": page(rng.randrange(100, 200))}))
    last = world.build(passages_of(pages))["manifest"]
    fresh = World(tmp_path / "fresh")
    assert fresh.build(passages_of(dict(sorted(pages.items(), reverse=True))))["manifest"] == last
    for word in WORDS:
        old, new = legs(world, last, word), legs(fresh, last, word)
        assert old == new and len(old[0]) == 4
        assert fuse(*old, 0.5, "ratio") == fuse(*new, 0.5, "ratio")
