"""The corpus without what was erased: taken out once, left out by every ingest, whatever the page is called."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny
from dying import returncode_of
from test_tombstones import erasure
from workspace import settings_of, write_workspace

from flows import corpus, erasures, ledger, pending, takeout
from flows.erasures import ERASURE
from flows.ledger import Draft
from flows.pending import Pending
from flows.settings import Settings
from flows.store import seal_file
from tasks.failpoints import VARIABLE, declared
from tasks.pairs import placed_questions
from tasks.records import canonical_json, read_jsonl, write_jsonl, write_text

PAGE = 'staff/jane\'s 100% "leave"'


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Three pages and four questions, and a tombstone over one of the pages."""
    root = tmp_path / "clone"
    root.mkdir()
    write_workspace(root)
    raw = root / "data/raw"
    for name in ("shop/prices.md", f"{PAGE}.md", "van.txt"):
        write_text(raw / "documents" / name, f"# {name}\n\nThe text of {name}.")
    named = ["shop/prices", f"{PAGE}.md", f"./{PAGE}", None]
    write_jsonl(
        raw / "questions.jsonl",
        [{"question": f"What about number {at}?", "answer": "x", "document": page} for at, page in enumerate(named)],
    )
    with tiny.inside(root):
        made = settings_of(root)
        bury(made, PAGE)
        yield made


def bury(settings: Settings, *pages: str) -> str:
    digest = seal_file(settings.store, canonical_json(erasure(*pages).model_dump()).encode())
    draft = Draft(
        action="erase", release=None, number=None, version=None, candidate=None, who="ada", why="case 81",
        at="2026-11-21T10:00:00+00:00", evidence={ERASURE: digest}, runs={},
    )  # fmt: skip
    ledger.append(settings.ledger, draft, len(ledger.read(settings.ledger)))
    return digest


def take_out(settings: Settings) -> None:
    takeout.take_out(settings, lambda pid: None)


def held(settings: Settings) -> tuple[list[str], list[str]]:
    raw = settings.root / "data/raw"
    files = sorted(path.relative_to(raw / "documents").as_posix() for path in (raw / "documents").rglob("*") if path.is_file())
    return files, [record["question"] for record in read_jsonl(raw / "questions.jsonl")]


LEFT = (["shop/prices.md", "van.txt"], ["What about number 0?", "What about number 3?"])


@pytest.fixture(autouse=True)
def _no_dvc(monkeypatch: pytest.MonkeyPatch) -> None:
    """Versions by DVC are of tests/pipeline."""
    monkeypatch.setattr("flows.pipeline.add_raw", lambda settings, started_as: None)


def test_the_page_and_the_questions_about_it_leave_the_corpus_and_twice_is_the_same(settings: Settings) -> None:
    take_out(settings)
    assert held(settings) == LEFT
    before = (settings.root / "data/raw").stat().st_ino
    take_out(settings)
    assert held(settings) == LEFT and (settings.root / "data/raw").stat().st_ino == before


def test_an_ingest_leaves_it_out_and_says_when_and_why_it_was_erased(settings: Settings) -> None:
    tombstones = erasures.standing(settings, ledger.read(settings.ledger))
    raw = settings.root / "data/raw"
    placed = placed_questions(raw / "questions.jsonl", {})
    assert [record["question"] for _, record in takeout.without(placed, raw, tombstones)] == LEFT[1]
    said = takeout.leave_out(raw / "documents", tombstones)
    assert said == [f"{PAGE} is left out: erased on 2026-11-21 (ledger entry 1), reason: case 81"]
    assert held(settings)[0] == LEFT[0]
    assert [record["question"] for _, record in takeout.without(placed, raw, tombstones)] == LEFT[1]  # also when it is gone


def take_out_and_die(settings: Settings, name: str) -> None:
    os.environ[VARIABLE] = f"{name}:kill"
    corpus.record = lambda settings, started_as: None
    take_out(settings)


@pytest.mark.parametrize("name", [*declared(Path(takeout.__file__)), "corpus.between-renames"])
def test_killed_in_between_the_corpus_is_whole_and_the_next_session_takes_it_out(settings: Settings, name: str) -> None:
    pending.note(settings, Pending(ledger.read(settings.ledger)[0].evidence[ERASURE], [PAGE], []))
    assert returncode_of(take_out_and_die, settings, name) == -9
    corpus.mend(settings, lambda pid: None)
    assert len(held(settings)[0]) == 3
    assert takeout.mend(settings, lambda pid: None)
    assert held(settings) == LEFT and not takeout.mend(settings, lambda pid: None)


def test_what_an_erasure_noted_that_died_before_its_entry_is_dropped(settings: Settings) -> None:
    kept = Pending(ledger.read(settings.ledger)[0].evidence[ERASURE], [PAGE], ["a line"])
    pending.note(settings, kept)
    pending.note(settings, Pending("f" * 64, ["another"], []))
    assert pending.standing(settings) == [kept]
    assert len(list(pending.folder(settings).iterdir())) == 1
    pending.done(settings, [kept])
    assert pending.standing(settings) == []


def test_a_line_or_an_id_that_another_page_says_is_not_looked_for(settings: Settings) -> None:
    take_out(settings)
    write_text(settings.root / "data/raw/documents/van.txt", f"See '{PAGE}'. The shop opens at seven in the morning.")
    left = [Pending("f" * 64, [PAGE], ["The shop opens at seven in the morning.", "Only Jane may take them home."])]
    wanted = pending.wanted(settings, left)
    assert wanted.within(b"Only Jane may take them home.") and not wanted.within(b"The shop opens at seven in the morning.")
    assert not wanted.within(f"'{PAGE}'".encode()) and wanted.within(f"documents/{PAGE}.".encode())
