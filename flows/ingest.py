"""Flow `ingest`: the only door for new data.

A snapshot of documents and questions, checked first, swapped in whole, versioned by DVC.
"""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from prefect import flow, task

from flows import corpus, erase, erasures, ledger, steps, takeout
from flows.opening import manifest_text
from flows.presenting import conclude
from flows.promotion import scratch
from flows.session import Session, note_running, running_file, say, session
from flows.settings import Settings
from tasks.documents import documents as read_documents
from tasks.errors import InputError
from tasks.intake import copy_corpus
from tasks.manifest import load_release
from tasks.pairs import placed_questions
from tasks.params import DocumentsParams, QuestionsParams
from tasks.params_files import load
from tasks.questions import deal
from tasks.records import Record, folder_digest, read_json, write_jsonl

LEAST_KEPT = 0.5  # of the live release's pages


@flow(name="ingest", flow_run_name="ingest")
def ingest(
    documents: list[str],
    questions: str | None = None,
    columns: dict[str, str] | None = None,
    take_back: list[str] | None = None,
    reason: str = "",
    allow_shrink: bool = False,
) -> dict[str, Any]:
    """Pages that were erased are left out, unless `take_back` names them, with a `reason`. Fewer than half the pages of the live
    release are refused, unless `allow_shrink` says that it is meant."""
    with session("ingest") as opened:
        if take_back:
            erase.take_back(opened.settings, take_back, reason)
        counts = take_in(opened, documents, questions, columns or {}, allow_shrink)
        steps.reproduce(opened, "questions")
        conclude(opened, f"{counts['accepted']} documents", {"outcome": "ingested", "rejected": str(counts["rejected"])})
        return counts


@task(task_run_name="take in")
def take_in(
    opened: Session, documents: list[str], questions: str | None, columns: Mapping[str, str], allow_shrink: bool
) -> dict[str, Any]:
    """Everything is read and checked aside; only then does it replace what was there."""
    settings = opened.settings
    aside = scratch(settings, "ingest")
    try:
        raw, placed, erased = assemble(settings, aside / "raw", documents, questions, columns)
        counts = check(settings, raw, placed, aside, allow_shrink) | {"erased": erased}
        if not same_as_before(settings, raw):
            corpus.swap_in(settings.root / "data", raw)
        corpus.record(settings, lambda pid: note_running(settings, pid))  # also where it was killed before it came to this
        running_file(settings).unlink(missing_ok=True)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    say(f"ingested {counts['ingested']} documents: {counts['accepted']} accepted, {counts['rejected']} rejected")
    return counts


def assemble(
    settings: Settings, raw: Path, documents: list[str], questions: str | None, columns: Mapping[str, str]
) -> tuple[Path, list[tuple[str, Record]], list[str]]:
    """documents/ and questions.jsonl in one folder, the questions with their places in the person's own file, and what was left
    out as it was erased.

    Without --questions the present ones stay.
    """
    raw.mkdir(parents=True)
    copy_corpus([Path(path) for path in documents], raw / "documents")
    present = settings.root / "data/raw/questions.jsonl"
    tombstones = erasures.standing(settings, ledger.read(settings.ledger))
    if questions is not None:
        placed = takeout.without(placed_questions(Path(questions), columns), raw, tombstones)
        write_jsonl(raw / "questions.jsonl", [record for _, record in placed])
    elif present.exists():
        placed = placed_questions(present, {})
        shutil.copyfile(present, raw / "questions.jsonl")
    else:
        raise InputError("no questions yet: add --questions FILE (JSONL or CSV with question, answer, document)")
    erased = takeout.leave_out(raw / "documents", tombstones)
    if erased:
        say(f"left out as they were erased: {len(erased)}")  # Prefect keeps what is said, so no id
    return raw, placed, erased


def check(settings: Settings, raw: Path, placed: list[tuple[str, Record]], aside: Path, allow_shrink: bool) -> dict[str, Any]:
    """Parse and deal once aside, by the very code of the stages: what would stop the pipeline later stops the ingest now."""
    params = settings.root / "params"
    read_documents(raw / "documents", aside / "documents", settings.home / "kept/documents.jsonl", load(DocumentsParams, params))
    counts = dict(read_json(aside / "documents/counts.json"))
    if not allow_shrink:
        check_not_shrunk(settings, counts["accepted"])
    deal(placed, aside / "documents", aside / "questions", load(QuestionsParams, params))
    return counts | {"questions": read_json(aside / "questions/counts.json")}


def check_not_shrunk(settings: Settings, documents: int) -> None:
    """Raises InputError: a disk that was not mounted, or a copy that was cut short, is nobody's wish to forget."""
    live = ledger.live(ledger.read(settings.ledger))
    before = load_release(manifest_text(settings, str(live.release))).corpus.documents if live else 0
    if live and documents < LEAST_KEPT * before:
        raise InputError(
            f"the corpus would shrink to {documents} documents; release {live.number}, which is live, has {before}. Nothing was "
            "taken over. See that the documents are all there (is the disk mounted, the copy complete?); where this is meant: "
            "tandem ingest --allow-shrink ..."
        )


def same_as_before(settings: Settings, raw: Path) -> bool:
    """An unchanged corpus is not swapped, so that its modification times (and DVC's cache of digests) stay good."""
    present = settings.root / "data/raw"
    return present.exists() and folder_digest(present) == folder_digest(raw)
