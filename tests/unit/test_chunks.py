"""Documents -> passages: what holds for every document (property tests), and what single structures become."""

import re
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import tasks.chunks
from tasks.blocks import WHOLE, sentences
from tasks.boundaries import SENTENCE, Unit, boundaries, size
from tasks.chunks import chunks, passages
from tasks.params import ChunksParams
from tasks.records import Record, read_json, read_jsonl, text_digest, value_digest, write_jsonl

MAX_WORDS, JOIN_BELOW = 60, 25

WORDS = st.sampled_from(["sensor", "gateway", "river", "noise", "limit", "of", "the", "is", "days", "EUR", "27", "week"])
PHRASE = st.lists(WORDS, min_size=1, max_size=15).map(" ".join)
SENTENCES = st.lists(PHRASE.map(lambda words: words.capitalize() + "."), min_size=1, max_size=12).map(" ".join)
SHORT = st.lists(PHRASE.map(lambda words: words.capitalize() + "."), min_size=1, max_size=4).map(" ".join)
LIST = st.lists(PHRASE, min_size=1, max_size=12).map(lambda items: "\n".join(f"- {item}" for item in items))
ROWS = st.lists(st.tuples(PHRASE, PHRASE), min_size=1, max_size=30)
TABLE = ROWS.map(lambda rows: "\n".join(["| Thing | Value |", "|---|---|", *(f"| {a} | {b} |" for a, b in rows)]))
CODE = st.lists(PHRASE, min_size=1, max_size=30).map(lambda lines: "\n".join(["```sh", *lines, "```"]))
QUOTE = SENTENCES.map(lambda text: f"> {text}")
HEADING = st.tuples(st.integers(1, 4), st.lists(WORDS, min_size=1, max_size=4)).map(lambda h: "#" * h[0] + " " + " ".join(h[1]))
PAGE = st.lists(st.one_of(SENTENCES, LIST, TABLE, CODE, QUOTE, HEADING), max_size=12).map("\n\n".join)


def document(text: str, title: str = "Page title") -> Record:
    return {"id": "topic/page", "title": title, "text": text}


def cut(text: str, title: str = "Page title") -> list[Record]:
    return passages(document(text, title), MAX_WORDS, JOIN_BELOW)


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def sentence(number: int, length: int) -> str:
    return " ".join(f"w{number}x{position}" for position in range(length - 1)) + f" end{number}."


@given(PAGE)
def test_no_word_is_lost(text: str) -> None:
    kept = {word for row in cut(text) for word in words(row["embedded"])}
    assert set(words(text)) <= kept


@given(st.text(alphabet="ab.1 \n\t#-*+>|`~=_:\\!", max_size=300))
def test_no_word_is_lost_in_any_markdown(text: str) -> None:
    kept = " ".join(row["embedded"] for row in cut(text))
    assert set(re.findall(r"[ab1]+", text)) <= set(re.findall(r"[ab1]+", kept))


@given(PAGE)
def test_ids_are_unique_and_the_same_every_time(text: str) -> None:
    rows = cut(text)
    assert rows == cut(text)
    assert len({row["id"] for row in rows}) == len(rows)
    for row in rows:
        assert row["id"] == value_digest([row[key] for key in ("document", "heading", "text", "occurrence", "embedded")])
        assert row["embedded"] == f"{row['heading']}\n{row['text']}"


@given(PAGE)
def test_no_passage_is_much_longer_than_the_longest_block_allowed(text: str) -> None:
    assert all(size(row["text"]) <= (WHOLE + 1) * MAX_WORDS for row in cut(text))


BLOCKS = st.lists(SHORT, min_size=1, max_size=30)


def changed(before: list[str], after: list[str]) -> tuple[int, int]:
    """(passages of the old page that are gone, passages of the new page that were not there)"""
    old, new = ({row["id"] for row in cut("# Page title\n\n" + "\n\n".join(blocks))} for blocks in (before, after))
    return len(old - new), len(new - old)


@settings(max_examples=100)
@given(BLOCKS, SHORT)
def test_an_insertion_at_the_top_changes_at_most_three_passages(blocks: list[str], added: str) -> None:
    assert max(changed(blocks, [added, *blocks])) <= 3


@settings(max_examples=100)
@given(BLOCKS, SHORT, st.data())
def test_an_edit_a_deletion_and_an_insertion_anywhere_change_at_most_three_passages(
    blocks: list[str], text: str, data: st.DataObject
) -> None:
    place = data.draw(st.integers(0, len(blocks) - 1))
    assert max(changed(blocks, [*blocks[:place], text, *blocks[place + 1 :]])) <= 3
    assert max(changed(blocks, blocks[:place] + blocks[place + 1 :])) <= 3
    assert max(changed(blocks, [*blocks[:place], text, *blocks[place:]])) <= 3


@settings(max_examples=100)
@given(st.lists(st.integers(1, 60), min_size=2, max_size=60), st.integers(0, 40), st.randoms(use_true_random=False))
def test_boundaries_are_never_closer_than_the_reach(sizes: list[int], reach: int, random: object) -> None:
    units = [Unit(f"{number % 7}", words) for number, words in enumerate(sizes)]  # with repeated texts, so with ties
    found = [0, *boundaries(units, reach), len(units)]
    runs = [sum(sizes[start:stop]) for start, stop in pairwise(found)]
    assert sum(runs) == sum(sizes)
    assert all(run >= reach for run in runs) or len(runs) == 1


def test_a_row_in_the_middle_of_a_long_table_changes_at_most_three_passages() -> None:
    rows = [f"| product {number} | EUR {number * 17} and some more words in the cell |" for number in range(200)]
    table = ["| Product | Price |", "| --- | --- |"]
    before = {row["id"] for row in cut("\n".join(table + rows))}
    after = {row["id"] for row in cut("\n".join([*table, *rows[:90], "| new | EUR 1 |", *rows[90:]]))}
    assert len(before) > 10
    assert max(len(before - after), len(after - before)) <= 3


def test_the_heading_path_begins_with_the_title_and_does_not_repeat_it() -> None:
    text = "# Annual leave\n\nIntro.\n\n## Carrying *over*\n\nFive days.\n\n### By `March`\n\nUse them.\n\n## Buying\n\nTwo."
    assert [row["heading"] for row in cut(text, "Annual leave")] == [
        "Annual leave",
        "Annual leave > Carrying over",
        "Annual leave > Carrying over > By March",
        "Annual leave > Buying",
    ]
    assert cut("# Other\n\nText.", "Title")[0]["heading"] == "Title > Other"


def test_a_section_without_text_stays_findable_only_where_nothing_follows_below_it() -> None:
    rows = cut("# Title\n\n## Parent\n\n### Child\n\nText.\n\n## Empty\n", "Title")
    assert [(row["heading"], row["text"]) for row in rows] == [
        ("Title > Parent > Child", "Text."),
        ("Title > Empty", "Empty"),
    ]


def test_equal_passages_are_counted_from_zero() -> None:
    rows = cut("## A\n\nSame.\n\n## A\n\nSame.\n\n## B\n\nSame.\n")
    assert [row["occurrence"] for row in rows] == [0, 1, 0]


def test_short_neighbours_are_joined_and_long_ones_are_not() -> None:
    assert len(cut("One.\n\nTwo.\n\n- three\n- four\n")) == 1
    assert len(cut(f"{sentence(1, 40)}\n\n{sentence(2, 40)}\n")) == 2


def test_a_line_that_announces_a_block_stays_with_it() -> None:
    text = f"{sentence(1, 40)}\n\nThe steps are as follows:\n\n```sh\n{sentence(2, 40)}\n```\n"
    assert cut(text)[1]["text"].startswith("The steps are as follows:\n\n```sh")


def test_a_long_paragraph_is_cut_at_sentence_ends() -> None:
    rows = cut(" ".join(sentence(number, 12) for number in range(30)))
    assert len(rows) > 3
    assert all(row["text"].endswith(".") for row in rows)
    assert max(size(row["text"]) for row in rows) <= WHOLE * MAX_WORDS


def test_an_abbreviation_does_not_end_a_sentence() -> None:
    text = "Tools, e.g. Hammers, are Mr. Smith's, cf. the list. Ask him! He knows, i.e. has them. Does he? No. Never."
    found = [piece.text for piece in sentences(text, 5, " ", SENTENCE)]
    assert found[0] == "Tools, e.g. Hammers, are Mr. Smith's, cf. the list."
    assert found[1:] == ["Ask him!", "He knows, i.e. has them.", "Does he?", "No.", "Never."]


def test_a_table_and_code_of_moderate_length_stay_whole() -> None:
    table = "\n".join(["| Name | Value |", "| --- | --- |", *(f"| row {n} | value of it |" for n in range(20))])
    code = "\n".join(["```python", *(f"call_{n}(argument, other)" for n in range(60)), "```"])
    assert [row["text"] for row in cut(f"{table}\n\n{code}\n")] == [table, code]


def test_pieces_of_a_long_table_repeat_its_header_and_pieces_of_code_their_fence() -> None:
    table = ["| Name | Value |", "| --- | --- |", *(f"| row {n} | the value of row {n} |" for n in range(100))]
    code = ["```sql", *(f"select {n} from table_{n} where x" for n in range(100)), "```"]
    pieces = [row["text"] for row in cut("\n".join(table))]
    assert len(pieces) > 3
    assert all(piece.startswith("| Name | Value |\n| --- | --- |\n| row") for piece in pieces)
    pieces = [row["text"] for row in cut("\n".join(code))]
    assert len(pieces) > 3
    assert all(piece.startswith("```sql\nselect") and piece.endswith("\n```") for piece in pieces)


@pytest.mark.parametrize("text", ["x" * 200_000, "\u6f22" * 50_000, "word " * 50_000, "- item\n" * 5_000])
def test_text_without_sentences_is_cut_all_the_same(text: str) -> None:
    rows = cut(text)
    assert len(rows) > 10
    assert max(len(row["text"]) for row in rows) <= 16 * (WHOLE + 1) * MAX_WORDS
    assert sum(len(re.findall(r"\w", row["text"])) for row in rows) == len(re.findall(r"\w", text))


def test_a_link_definition_and_a_paragraph_above_a_stray_rule_are_kept() -> None:
    assert "[1]: https://example.org/page" in cut("See [1].\n\n[1]: https://example.org/page\n")[0]["text"]
    long = sentence(1, 80)
    assert "end1." in " ".join(row["text"] for row in cut(f"{long}\n---\n\nMore.\n"))


class Stage:
    """The stage on pages of two paragraphs, with what it kept of its runs before."""

    params = ChunksParams(max_words=MAX_WORDS, join_below_words=JOIN_BELOW, table_cell="")

    def __init__(self, folder: Path) -> None:
        self.out, self.kept = folder / "out", folder / "kept.jsonl"
        self.documents = folder / "documents"

    def run(self, pages: dict[str, int], params: ChunksParams = params) -> bytes:
        texts = {page: f"# {page}\n\n{sentence(seed, 30)}\n\n{sentence(seed + 1, 40)}\n" for page, seed in pages.items()}
        rows = [{"id": page, "title": page, "text": text, "digest": text_digest(text)} for page, text in texts.items()]
        write_jsonl(self.documents / "documents.jsonl", rows)
        chunks(self.documents, self.out, self.kept, params)
        return (self.out / "passages.jsonl").read_bytes()


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


@pytest.fixture
def cut_pages(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The pages that were really cut."""
    really, names = passages, []

    def noted(page: Record, *rest: Any) -> list[Record]:
        names.append(page["id"])
        return really(page, *rest)

    monkeypatch.setattr(tasks.chunks, "passages", noted)
    return names


def test_the_stage_writes_passages_and_counts_the_same_every_time(stage: Stage) -> None:
    first = stage.run({"a": 1, "b": 1})
    assert [row["document"] for row in read_jsonl(stage.out / "passages.jsonl")] == ["a", "a", "b", "b"]
    expected = {"documents": 2, "passages": 4, "words_median": 35, "words_max": 40}
    assert read_json(stage.out / "counts.json") == expected
    assert stage.run({"a": 1, "b": 1}) == first
    assert read_json(stage.out / "counts.json") == expected


def test_only_changed_pages_are_cut_and_the_passages_are_those_of_a_run_from_nothing(stage: Stage, cut_pages: list[str]) -> None:
    stage.run({"a": 1, "b": 1, "c": 1})
    cut_pages.clear()
    found = stage.run({"a": 1, "b": 7, "d": 1})
    assert cut_pages == ["b", "d"]
    assert b'"c"' not in stage.kept.read_bytes()  # a page that is gone is not kept
    stage.kept.unlink()
    assert stage.run({"a": 1, "b": 7, "d": 1}) == found and cut_pages[2:] == ["a", "b", "d"]


def test_another_rule_of_cutting_takes_nothing_that_was_kept(stage: Stage, cut_pages: list[str]) -> None:
    stage.run({"a": 1, "b": 1})
    stage.run({"a": 1, "b": 1}, stage.params.model_copy(update={"max_words": MAX_WORDS + 1}))
    assert cut_pages == ["a", "b"] * 2


def test_what_was_kept_and_is_damaged_is_not_taken(stage: Stage) -> None:
    found = stage.run({"a": 1, "b": 1})
    whole = stage.kept.read_bytes()
    damaged = [whole[:cut] for cut in range(0, len(whole), 97)]
    damaged += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), 13)]
    for content in damaged:
        stage.kept.write_bytes(content)
        assert stage.run({"a": 1, "b": 1}) == found


TABLE = """| Kind of request | Sandbox | Standard |
|---|---|---|
| Reading | 60 per minute | 1,500 per minute |
| Changing |  | 90 |
| Deleting |
"""


def test_a_row_of_a_table_is_told_in_sentences() -> None:
    rows = passages(document(TABLE, "Limits"), MAX_WORDS, 0, "{column} for {row} is {value}.")
    told = [row["text"] for row in rows]
    assert told == [
        "Sandbox for Reading is 60 per minute. Standard for Reading is 1,500 per minute.",
        "Standard for Changing is 90.",
        "Deleting",
    ]


def test_a_table_without_rows_keeps_its_words() -> None:
    assert passages(document("| a | b |\n|---|---|\n", "T"), MAX_WORDS, 0, "{row}: {value}")[0]["text"] == "a b"


def test_a_table_stays_a_table_where_no_sentence_is_given() -> None:
    assert passages(document("| a | b |\n|---|---|\n| 1 | 2 |\n", "T"), MAX_WORDS, 0)[0]["text"].startswith("| a | b |")
