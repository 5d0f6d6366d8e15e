"""data/raw without what was erased: taken out by the erasure, and left out by every ingest after it."""

import shutil
from collections.abc import Iterable
from pathlib import Path

from flows import corpus, erasures, ledger, pending
from flows.settings import Settings
from tasks.documents import list_files
from tasks.failpoints import failpoint
from tasks.pairs import placed_questions
from tasks.questions import PageFinder
from tasks.reading import identity
from tasks.records import Record, write_jsonl
from tasks.stage import say
from tasks.tombstones import Tombstones

Placed = list[tuple[str, Record]]


def take_out(settings: Settings, started_as: corpus.Started) -> None:
    """Pages under a tombstone leave the corpus, and with them the questions about them. Twice is the same as once."""
    data = settings.root / "data"
    raw = data / "raw"
    tombstones = erasures.standing(settings, ledger.read(settings.ledger))
    if not raw.is_dir() or not held(raw, tombstones):
        return
    made = data / ".raw.erasing"
    shutil.rmtree(made, ignore_errors=True)
    shutil.copytree(raw, made)
    leave_out(made / "documents", tombstones)
    questions = raw / "questions.jsonl"
    if questions.exists():
        write_jsonl(made / "questions.jsonl", [record for _, record in without(placed_questions(questions, {}), raw, tombstones)])
    failpoint("takeout.before-swap")
    corpus.swap_in(data, made)
    corpus.record(settings, started_as)


def held(raw: Path, tombstones: Tombstones) -> list[str]:
    """The files of pages under a tombstone."""
    if not tombstones.erased:
        return []
    return [path for path in list_files(raw / "documents") if tombstones.covers(identity(path))]


def leave_out(documents: Path, tombstones: Tombstones) -> list[str]:
    """Remove the files of erased pages from a copy of the corpus; returns what was said of each."""
    gone = held(documents.parent, tombstones)
    for path in gone:
        (documents / path).unlink()
    return [told(tombstones, identity(path)) for path in gone]


def told(tombstones: Tombstones, page: str) -> str:
    erased = tombstones.of(page)
    assert erased is not None
    return f"{page} is left out: erased on {erased.at[:10]} (ledger entry {erased.sequence}), reason: {erased.why}"


def without(placed: Iterable[tuple[str, Record]], raw: Path, tombstones: Tombstones) -> Placed:
    """Questions, less those about erased pages, however they name them."""
    finder = PageFinder(identity(path) for path in list_files(raw / "documents")) if tombstones.erased else None
    return [(place, record) for place, record in placed if not about_erased(record["document"], finder, tombstones)]


def about_erased(named: str | None, finder: PageFinder | None, tombstones: Tombstones) -> bool:
    if named is None or finder is None:
        return False
    page, _ = finder.find(named)
    return tombstones.covers(page or named) or tombstones.covers(identity(named.lstrip("./").replace("\\", "/")))


def mend(settings: Settings, started_as: corpus.Started) -> bool:
    """Whether an erasure that died had its pages still in the corpus."""
    shutil.rmtree(settings.root / "data/.raw.erasing", ignore_errors=True)
    if not pending.standing(settings):
        return False
    before = settings.root / "data/raw"
    tombstones = erasures.standing(settings, ledger.read(settings.ledger))
    if not (before.is_dir() and held(before, tombstones)):
        return False
    take_out(settings, started_as)
    say("an erasure that died half-way was gone on with: its pages left the corpus")
    return True
