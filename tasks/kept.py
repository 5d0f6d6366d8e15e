"""What the last run of a stage made of each page, so that an unchanged page is not worked on again.

A cache of one file, which every run writes whole: a page that was removed is in it no longer than in the output. It may be
deleted, and a damaged one is as good as none.
"""

import json
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple, TextIO

from tasks.records import file_digest, text_digest, value_digest, write_text


class Kept(NamedTuple):
    lines: list[str]  # what was made of a page, as lines of JSON
    note: Any  # what the stage wants to know of them without reading them


def rule(params: object, modules: Iterable[str], libraries: Iterable[str]) -> str:
    """A digest of all that decides what is made of a page: another one, and nothing that was kept is taken."""
    sources = [file_digest(Path(__file__).with_name(f"{module}.py")) for module in modules]
    return value_digest([params, sources, [version(library) for library in libraries]])


def read_kept(path: Path) -> dict[str, Kept]:
    """Key of a page -> what was made of it."""
    try:
        with path.open(encoding="utf-8") as file:
            return dict(pages_in(file))
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def pages_in(file: TextIO) -> Iterator[tuple[str, Kept]]:
    """A header, then as many lines as it says. Raises ValueError where a byte of header or lines is another."""
    for header in file:
        page = json.loads(header)
        lines = [file.readline() for _ in range(page["lines"])]
        if digest(page["key"], page["note"], lines) != page["digest"]:
            raise ValueError(f"what was kept of {page['key']} is damaged")
        yield page["key"], Kept(lines, page["note"])


def write_kept(path: Path, pages: Mapping[str, Kept]) -> None:
    write_text(path, "".join(part for key, page in pages.items() for part in (header(key, page), *page.lines)))


def header(key: str, page: Kept) -> str:
    said = {"key": key, "lines": len(page.lines), "note": page.note, "digest": digest(key, page.note, page.lines)}
    return json.dumps(said) + "\n"


def digest(key: str, note: Any, lines: Iterable[str]) -> str:
    return text_digest("".join([key, json.dumps(note), *lines]))
