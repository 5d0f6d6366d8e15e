"""What an ingest refuses before the corpus is replaced, beyond what a stage would."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from releases import Made, promote
from workspace import candidate_of, settings_of, write_workspace

from flows import ingest
from flows.candidate import as_release
from flows.session import Session
from flows.settings import Settings
from flows.store import seal_file
from tasks.errors import InputError
from tasks.manifest import render
from tasks.records import folder_digest, write_jsonl, write_text

take_in: Any = ingest.take_in.fn  # without a Prefect server


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """A release of four pages is live; the corpus that stands is another."""
    root = tmp_path / "clone"
    root.mkdir()
    write_workspace(root)
    write_text(root / "data/raw/documents/page.md", "# What stands")
    write_jsonl(root / "data/raw/questions.jsonl", [{"question": "Which?", "answer": "This.", "document": "page"}])
    with tiny.inside(root):
        made = settings_of(root)
        release = as_release(candidate_of(root), "rag")
        seal_file(made.store, render(release).encode())
        promote(made, Made(release, "0" * 64, "", frozenset()))
        yield made


def pages(folder: Path, count: int) -> list[str]:
    for number in range(count):
        write_text(folder / f"page-{number}.md", f"# Page {number}\n\nThe text of page {number}.")
    return [str(folder)]


def test_fewer_than_half_the_live_pages_are_refused_unless_that_is_meant(settings: Settings, tmp_path: Path) -> None:
    """F42."""
    before = folder_digest(settings.root / "data/raw")
    opened = Session(settings, "")
    with pytest.raises(InputError, match=r"shrink to 1 documents; release 1, which is live, has 4\. Nothing.*--allow-shrink"):
        take_in(opened, pages(tmp_path / "one", 1), None, {}, False)
    for folder, count, allowed in (("one", 1, True), ("two", 2, False)):
        with pytest.raises(InputError, match="questions"):  # the next thing that is wrong with it: their page is gone
            take_in(opened, pages(tmp_path / folder, count), None, {}, allowed)
    assert folder_digest(settings.root / "data/raw") == before
    assert list((settings.home / "scratch").iterdir()) == []
