"""Flow `refresh`: the corpus changed. Index and retrieval are brought up to date, the live adapter stays; nothing is trained."""

import shutil
from pathlib import Path
from typing import Any

from prefect import flow

from flows import ledger, pipeline, promotion, steps
from flows.candidate import Candidate, workspace_candidate
from flows.ledger import Entry
from flows.opening import live_entry, manifest_text
from flows.presenting import check_approval
from flows.session import Session, say, session
from flows.settings import Settings
from flows.shipping import ship
from flows.store import open_file, open_folder
from tasks.errors import TandemError
from tasks.manifest import load_release
from tasks.records import folder_digest


@flow(name="refresh", flow_run_name="refresh")
def refresh() -> dict[str, Any]:
    with session("refresh") as opened:
        check_approval(opened.settings)
        entries = ledger.read(opened.settings.ledger)
        return ship(opened, refreshed_candidate(opened, entries), entries).as_state()


def refreshed_candidate(opened: Session, entries: list[Entry]) -> Candidate:
    """Today's corpus with the adapter that is live."""
    champion = live_entry(entries)
    steps.reproduce(opened, "retrieval")
    restore_adapter(opened.settings, entries, champion)
    steps.reproduce_only(opened, ["evaluate"])
    return workspace_candidate(opened.settings)


def restore_adapter(settings: Settings, entries: list[Entry], champion: Entry) -> None:
    """The adapter that is live, not the newest that was trained: a refused retrain must not slip in with a refresh. DVC knows
    those that the pipeline made; one that was made elsewhere, or that DVC's cache has lost, comes out of the store."""
    pinned = load_release(manifest_text(settings, str(champion.release))).adapter
    lock = open_file(settings.store, promotion.champion_evidence(entries, champion)["dvc.lock"]).decode()
    try:
        pipeline.restore_stage(settings, "adapter", lock)
    except TandemError:
        if pinned is None:
            raise
    target = settings.root / "data/adapter"
    if pinned and not (target.is_dir() and folder_digest(target) == pinned.digest):
        say(f"the adapter of release {champion.number} comes out of the store")
        copy_adapter(open_folder(settings.store, pinned.digest), target)


def copy_adapter(source: Path, target: Path) -> None:
    """As files of this workspace: those of the store are read-only."""
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(source, target, copy_function=shutil.copyfile)
