"""Documents -> passages whose boundaries follow structure, so that an edit moves few of them; keyed by content hash."""

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from tasks.blocks import WHOLE, sections
from tasks.boundaries import join, runs
from tasks.kept import Kept, read_kept, rule, write_kept
from tasks.params import ChunksParams
from tasks.records import Record, jsonl_line, read_jsonl, value_digest, write_bytes, write_json
from tasks.stage import fresh_folder, run_stage, say

SAY_EVERY = 500  # documents
CODE = ("chunks", "blocks", "boundaries")  # the modules that cut


def chunks(documents: Path, out: Path, kept: Path, params: ChunksParams) -> None:
    """Write out/passages.jsonl, in reading order of the documents sorted by id, and out/counts.json.

    A row is {"id", "document", "heading", "text", "occurrence", "embedded"}; `embedded` is what is embedded and
    searched. Pages that are as they were are taken from `kept`, a cache.
    """
    pages = read_jsonl(documents / "documents.jsonl")
    cutting = rule(params.model_dump(), CODE, ["markdown-it-py"])
    cut = cut_pages(pages, read_kept(kept, cutting), params)
    counted = counts([words for page in cut.values() for words in page.note["words"]], len(pages))
    say(f"{len(pages)} documents, {counted['passages']} passages")
    fresh_folder(out)
    write_bytes(out / "passages.jsonl", *(page.lines for page in cut.values()))
    write_json(out / "counts.json", counted)
    write_kept(kept, cutting, cut)


def cut_pages(pages: Sequence[Record], known: Mapping[str, Kept], params: ChunksParams) -> dict[str, Kept]:
    """Id of a page -> its passages, in the order of the pages."""
    cut: dict[str, Kept] = {}
    for number, page in enumerate(pages, start=1):
        before = known.get(page["id"])
        if before is None or before.note["page"] != page["digest"]:
            before = cut_page(page, params)
            if number % SAY_EVERY == 0:
                say(f"{number} of {len(pages)} documents cut")
        cut[page["id"]] = before
    return cut


def cut_page(page: Record, params: ChunksParams) -> Kept:
    """Its passages; of what text they are, and the number of words in each."""
    rows = passages(page, params.max_words, params.join_below_words, params.table_cell)
    note = {"page": page["digest"], "words": [len(row["text"].split()) for row in rows]}
    return Kept("".join(map(jsonl_line, rows)).encode(), note)


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


def counts(words: Sequence[int], documents: int) -> dict[str, float]:
    return {
        "documents": documents,
        "passages": len(words),
        "words_median": statistics.median(words or [0]),
        "words_max": max(words, default=0),
    }


if __name__ == "__main__":
    run_stage(chunks)
