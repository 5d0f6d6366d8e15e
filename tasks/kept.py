"""What the last run of a stage made of each page, so that an unchanged page is not worked on again.

A cache of one file, which every run writes whole: a page that was removed is in it no longer than in the output. It may be
deleted, and a damaged one is as good as none: a digest of all that follows stands in its first line.
"""

import hashlib
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from tasks.records import file_digest, value_digest, write_bytes


class Kept(NamedTuple):
    lines: bytes | memoryview  # what was made of a page, as lines of JSON
    note: Any  # what the stage wants to know of them without reading them


def rule(params: object, modules: Iterable[str], libraries: Iterable[str]) -> str:
    """A digest of all that decides what is made of a page: another one, and nothing that was kept is taken."""
    sources = [file_digest(Path(__file__).with_name(f"{module}.py")) for module in modules]
    return value_digest([params, sources, [version(library) for library in libraries]])


def read_kept(path: Path, made_by: str) -> dict[str, Kept]:
    """Key of a page -> what was made of it, by the same rule."""
    try:
        with path.open("rb") as file:
            digest, listing, lines = file.readline(), file.readline(), file.read()
        if digest_of(listing, lines) != digest:
            return {}
        said = orjson.loads(listing)
        return dict(cut(memoryview(lines), said["pages"])) if said["rule"] == made_by else {}
    except (OSError, ValueError):
        return {}


def cut(lines: memoryview, pages: Iterable[tuple[str, Any, int]]) -> Iterable[tuple[str, Kept]]:
    start = 0
    for key, note, length in pages:
        yield key, Kept(lines[start : start + length], note)
        start += length


def write_kept(path: Path, made_by: str, pages: Mapping[str, Kept]) -> None:
    said = {"rule": made_by, "pages": [(key, page.note, len(page.lines)) for key, page in pages.items()]}
    listing, lines = orjson.dumps(said) + b"\n", b"".join(page.lines for page in pages.values())
    write_bytes(path, digest_of(listing, lines), listing, lines)


def digest_of(listing: bytes, lines: bytes) -> bytes:
    """As a line."""
    found = hashlib.sha256(listing)
    found.update(lines)
    return f"{found.hexdigest()}\n".encode()
