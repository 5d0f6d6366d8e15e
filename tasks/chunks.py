"""Documents -> passages whose boundaries follow structure, so that an edit moves few of them; keyed by content hash."""

import statistics
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tasks.blocks import WHOLE, sections
from tasks.boundaries import join, runs
from tasks.params import ChunksParams
from tasks.records import Record, read_jsonl, value_digest, write_json, write_jsonl
from tasks.stage import fresh_folder, run_stage, say

SAY_EVERY = 500  # documents


def chunks(documents: Path, out: Path, params: ChunksParams) -> None:
    """Write out/passages.jsonl, in reading order of the documents sorted by id, and out/counts.json.

    A row is {"id", "document", "heading", "text", "occurrence", "embedded"}; `embedded` is what is embedded and
    searched.
    """
    pages = read_jsonl(documents / "documents.jsonl")
    rows: list[Record] = []
    for number, page in enumerate(pages, start=1):
        rows += passages(page, params.max_words, params.join_below_words, params.table_cell)
        if number % SAY_EVERY == 0:
            say(f"{number} of {len(pages)} documents cut into {len(rows)} passages")
    say(f"{len(pages)} documents, {len(rows)} passages")
    fresh_folder(out)
    write_jsonl(out / "passages.jsonl", rows)
    write_json(out / "counts.json", counts(len(pages), rows))


def passages(document: Record, max_words: int, join_below_words: int, table_cell: str = "") -> list[Record]:
    """The passages of one document. None crosses a heading; every word is in the text or the heading of one of them."""
    seen: Counter[tuple[str, str]] = Counter()
    rows = []
    for section in sections(document["text"], max_words, table_cell):
        heading = heading_path(document["title"], section.headings)
        for run in runs(section.units, join_below_words, WHOLE * max_words):
            text = join(run)
            rows.append(row(document["id"], heading, text, seen[heading, text]))
            seen[heading, text] += 1
    return rows


def heading_path(title: str, headings: Sequence[str]) -> str:
    """`Annual leave > Carrying over`; the page's title comes first, once."""
    repeated = bool(headings) and headings[0].casefold() == title.casefold()
    return " > ".join([title, *headings[1 if repeated else 0 :]])


def row(document: str, heading: str, text: str, occurrence: int) -> Record:
    """The id covers `embedded` too: an index must not take a row whose vector was made of another text for this one."""
    embedded = f"{heading}\n{text}"
    return {
        "id": value_digest([document, heading, text, occurrence, embedded]),
        "document": document,
        "heading": heading,
        "text": text,
        "occurrence": occurrence,
        "embedded": embedded,
    }


def counts(documents: int, rows: Sequence[Record]) -> dict[str, float]:
    words = [len(row["text"].split()) for row in rows] or [0]
    return {
        "documents": documents,
        "passages": len(rows),
        "words_median": statistics.median(words),
        "words_max": max(words),
    }


if __name__ == "__main__":
    run_stage(chunks)
