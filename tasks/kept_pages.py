"""What the last run cut, page by page, so that an unchanged page is not cut again.

A cache of one file, which every run writes whole: a page that was removed is in it no longer than in the output. It may be
deleted, and a damaged one is as good as none.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple, TextIO

from tasks.params import ChunksParams
from tasks.records import Record, file_digest, jsonl_line, text_digest, value_digest, write_text

CODE = ("chunks", "blocks", "boundaries")  # the modules that cut


class CutPage(NamedTuple):
    lines: list[str]  # its passages as lines of JSON
    words: list[int]  # in each of them


def cutting_rule(params: ChunksParams) -> str:
    """A digest of all that decides how a page is cut: another one, and nothing that was kept is taken."""
    sources = [file_digest(Path(__file__).with_name(f"{module}.py")) for module in CODE]
    return value_digest([params.model_dump(), sources, version("markdown-it-py")])


def read_kept(path: Path) -> dict[str, CutPage]:
    """Key of a page -> what was made of it."""
    try:
        with path.open(encoding="utf-8") as file:
            return dict(pages_in(file))
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def pages_in(file: TextIO) -> Iterator[tuple[str, CutPage]]:
    """A header, then as many passages as it has word counts. Raises ValueError where a byte of them is another."""
    for header in file:
        page = json.loads(header)
        lines = [file.readline() for _ in page["words"]]
        if text_digest("".join(lines)) != page["digest"]:
            raise ValueError(f"the passages of {page['key']} are damaged")
        yield page["key"], CutPage(lines, page["words"])


def write_kept(path: Path, pages: Mapping[str, CutPage]) -> None:
    write_text(path, "".join(part for key, page in pages.items() for part in (header(key, page), *page.lines)))


def cut_page(rows: Sequence[Record]) -> CutPage:
    return CutPage([jsonl_line(row) for row in rows], [len(row["text"].split()) for row in rows])


def header(key: str, page: CutPage) -> str:
    return json.dumps({"key": key, "words": page.words, "digest": text_digest("".join(page.lines))}) + "\n"
