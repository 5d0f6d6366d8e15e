"""Releases in the registry: what a version says of its release, and how a lost one is made again from ledger and store.

The ledger decides and the store holds all of a release, so that a registry can be lost and made again; a ledger cannot.
"""

import json

from flows import ledger, registry, tracking
from flows.evidence import open_evidence
from flows.ledger import Entry, Found
from flows.opening import manifest_text
from flows.registry import LEDGER_TAG, Version
from flows.retention import retired
from flows.settings import Settings
from flows.succession import moved, promotion_of
from tasks.errors import IntegrityError, TandemError
from tasks.failpoints import failpoint
from tasks.manifest import Release, load_release, release_id, render, short
from tasks.records import Record

CARD = "README.md"  # the model card, as Hugging Face calls it


def register(settings: Settings, release: Release, verdict: Record, run_id: str) -> int:
    """A version of the registered model whose tags say what the release is. `verdict`: as `Verdict.to_json` gives it."""
    identity = release_id(release)
    text = f"Release {short(identity)}. {' '.join(verdict['reasons'])}{carded(settings, run_id)}"
    return registry.register(settings, run_id, identity, render(release), tags_of(release, verdict), text)


def carded(settings: Settings, run_id: str) -> str:
    """Where the card is, if the run has it: releases from before there were cards have none."""
    there = any(file.path == CARD for file in tracking.client(settings.tracking_uri).list_artifacts(run_id))
    return (
        f"\n\nIts model card is {CARD} among the artifacts of its source run, the evidence behind it report.html."
        if there
        else ""
    )


def tags_of(release: Release, verdict: Record) -> dict[str, str]:
    row = next(row for row in verdict["arms"] if row["arm"] == release.arm)
    return {
        "arm": release.arm,
        "corpus": f"{release.corpus.documents} documents, {short(release.corpus.digest)}",
        "index": f"{release.index.rows} passages, {release.index.tag}",
        "base": release.base.id or release.base.source,
        "embedder": release.embedder.id or release.embedder.source,
        "adapter": short(release.adapter.digest) if release.adapter else "none",
        "primary": f"{row['mean']:.3f} ({row['low']:.3f} to {row['high']:.3f})",
        "questions": short(verdict["thresholds"]["questions"]),
        **({"query encoder": short(release.query_encoder.digest)} if release.query_encoder else {}),
        **({"reranker": release.reranker.id or short(release.reranker.digest)} if release.reranker else {}),
    }


def ensure(settings: Settings, entries: list[Entry], release: str, run_id: str) -> int:
    """The version that holds a release that was live; made again, with the same tags, where the registry lost it."""
    known = registry.registered_version(settings, release)
    return register_again(settings, entries, release, run_id) if known is None else known


def register_again(settings: Settings, entries: list[Entry], release: str, run_id: str) -> int:
    evidence = promotion_of(entries, release).evidence
    verdict = sealed_verdict(settings, evidence["verdict"])
    version = register(settings, load_release(manifest_text(settings, release)), verdict, run_id)
    tag(settings, version, moved(entries, release))
    return version


def sealed_verdict(settings: Settings, digest: str) -> Record:
    return dict(json.loads(open_evidence(settings.store, digest)))


def tag(settings: Settings, version: int, entry: Entry) -> None:
    failpoint("registration.before-tag")
    registry.tag_version(settings, version, {LEDGER_TAG: entry.sequence, "number": entry.number})


def lost(entries: list[Entry], found: list[Version]) -> list[Found]:
    """Releases that can be gone back to, and that no version holds."""
    there, gone = {each.release for each in found}, retired(entries)
    return [each for each in ledger.known(entries) if each.release not in there and each.release not in gone]


def restore(settings: Settings, entries: list[Entry]) -> list[str]:
    """Make the lost versions again, in the order of the releases, on a run of their own. Returns what was done; a release whose
    pieces are missing as well is left to `tandem doctor`."""
    missing = lost(entries, registry.versions(settings))
    if not missing:
        return []
    done = []
    with tracking.flow_run(settings, "mend", {"outcome": "registry restored"}) as run_id:
        for found in missing:
            try:
                version = register_again(settings, entries, found.release, run_id)
            except TandemError:
                continue
            done.append(f"release {found.number} registered again, as version {version}")
    return done


def cut(settings: Settings, entries: list[Entry], found: list[Version]) -> str:
    """What is wrong where the registry knows of later entries than the ledger holds; empty where it does not.

    `found` has to be read before `entries`: another promoter may append in between.
    """
    newest = max(found, key=lambda each: each.ledger, default=None)
    if newest is None or newest.ledger <= len(entries):
        return ""
    return (
        f"the registry knows ledger entry {newest.ledger} (release {short(newest.release)}, version {newest.number}), the ledger "
        f"{settings.ledger} ends at entry {len(entries)}: its newest entries are gone, or another project's registry is set. "
        "Restore them from a backup, or set TANDEM_LEDGER and MLFLOW_TRACKING_URI to those that belong together"
    )


def check_not_cut(settings: Settings, entries: list[Entry], found: list[Version]) -> None:
    """Raises IntegrityError: on a ledger that lost its end, an old release would be live again without anybody having said so."""
    fault = cut(settings, entries, found)
    if fault:
        raise IntegrityError(fault)


def is_foreign(entries: list[Entry], found: list[Version], stands: int | None) -> bool:
    """Whether the alias stands at a version that no ledger entry promoted, as only a hand puts it."""
    releases = {each.release for each in found if each.number == stands}
    return stands is not None and not releases & {each.release for each in ledger.known(entries)}


def check_known(entries: list[Entry], found: list[Version], stands: int | None) -> None:
    """Raises IntegrityError where the alias stands at a version of which the ledger does not know."""
    newest = ledger.live(entries)
    if newest is not None and is_foreign(entries, found, stands):
        raise IntegrityError(
            f"the alias champion was moved by hand to version {stands}, which no ledger entry promoted; release {newest.number} "
            "is live. Put the alias back: tandem doctor --mend"
        )
