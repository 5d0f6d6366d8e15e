"""What a refresh judges: today's corpus with the adapter and, where one was tuned, the embedder that are live."""

import shutil
from pathlib import Path

from flows import erasures, pipeline, promotion, steps
from flows.candidate import Candidate, workspace_candidate
from flows.evidence import open_evidence
from flows.ledger import Entry
from flows.opening import live_entry, manifest_text
from flows.session import Session, say
from flows.settings import Settings
from flows.store import open_folder
from tasks.encoders import ENCODER, PINNED, pin, pinned
from tasks.errors import InputError, TandemError
from tasks.failpoints import failpoint
from tasks.manifest import load_release
from tasks.params import RetrieverParams
from tasks.params_files import load
from tasks.records import folder_digest, write_json
from tasks.stage import fresh_folder


def refreshed_candidate(opened: Session, entries: list[Entry]) -> Candidate:
    champion = live_entry(entries)
    kept = keep_retriever(opened.settings, champion)
    steps.reproduce(opened, "retrieval", leave=("retriever",) if kept else ())
    restore_adapter(opened.settings, entries, champion)
    steps.reproduce_only(opened, ["evaluate"])
    return workspace_candidate(opened.settings)


def keep_retriever(settings: Settings, champion: Entry) -> bool:
    """Whether the embedder is fine-tuned here: then data/retriever is what the live release has, out of the store. Tuned anew on
    a day's change it would be another one, and with both sides tuned every passage would be embedded again."""
    if load(RetrieverParams, settings.root / "params").sides == "none":
        return False  # the stage costs nothing, and says so itself
    release = load_release(manifest_text(settings, str(champion.release)))
    live = release.query_encoder or (release.embedder if release.embedder.tuned else None)
    target = settings.root / "data/retriever"
    if not (target / PINNED).exists() or (pinned(target).get("encoder") or {}).get("digest") != (live and live.digest):
        say(f"the embedder of release {champion.number} comes out of the store")
        fresh_folder(target)
        if live and live.tuned:
            copy_model(open_folder(settings.store, live.digest), target / ENCODER)
        write_json(target / PINNED, pin(target, live.tuned.sides if live and live.tuned else "none"))
    return True


def restore_adapter(settings: Settings, entries: list[Entry], champion: Entry) -> None:
    """The adapter that is live, not the newest that was trained: a refused retrain must not slip in with a refresh. DVC knows
    those that the pipeline made; one that was made elsewhere, or that DVC's cache has lost, comes out of the store."""
    live = load_release(manifest_text(settings, str(champion.release))).adapter
    lock = open_evidence(settings.store, promotion.champion_evidence(entries, champion)["dvc.lock"]).decode()
    try:
        pipeline.restore_stage(settings, "adapter", lock)
    except TandemError as error:
        if erasures.standing(settings, entries).erased and live is None:
            raise InputError(
                f"the adapter with which release {champion.number} was made learnt from a page that was erased, and is gone; "
                "none is left to compare. Train one that never saw the page: tandem retrain"
            ) from error
        if live is None:
            raise
    target = settings.root / "data/adapter"
    if live and not (target.is_dir() and folder_digest(target) == live.digest):
        say(f"the adapter of release {champion.number} comes out of the store")
        copy_model(open_folder(settings.store, live.digest), target)


def copy_model(source: Path, target: Path) -> None:
    """As files of this workspace: those of the store are read-only."""
    shutil.rmtree(target, ignore_errors=True)
    failpoint("refreshing.before-copy")
    shutil.copytree(source, target, copy_function=shutil.copyfile)
