"""What follows a tombstone: every retained release amended, then every original and copy destroyed. Twice is the same as once.

Order: new index versions beside the old ones; a ledger entry for each release that changes; then, and only then, what was before
goes. What an interrupted purge left is finished by the next `tandem maintain`.
"""

import json
import time
from collections.abc import Sequence
from typing import Any

import yaml

from flows import copies, erasures, housekeeping, indexes, ledger, pending, promotion, proof, registration, registry
from flows.amendments import AMENDS, origin, replaced
from flows.doctor import kept
from flows.evidence import open_evidence
from flows.ledger import Draft, Entry, Found
from flows.opening import live_entry, open_manifest
from flows.session import say
from flows.settings import Settings
from flows.store import open_folder, seal_file
from flows.succession import promotion_of
from flows.survey import manifest_of, workspace_index
from tasks.canary import Canary
from tasks.errors import InputError, IntegrityError
from tasks.failpoints import failpoint
from tasks.generation import environment
from tasks.golden import golden_record
from tasks.manifest import Release, release_id, render, short
from tasks.params import IndexParams, uses_adapter
from tasks.params_files import load
from tasks.records import Record, canonical_json, value_digest
from tasks.rewriting import Form, amended_manifest, drop_orphans, ever_held, names_table, pages_of, rewrite
from tasks.tables import is_local, only_writer
from tasks.tombstones import Tombstones
from tasks.upkeep import LOCAL_GRACE


def finish(settings: Settings, run_id: str) -> Record:
    """Everything that the erasures which stand still have to remove; {"amended", "hits"}. Nothing where nothing is pending."""
    left = pending.standing(settings)
    if not left:
        return {"amended": [], "hits": []}
    pages = sorted({page for each in left for page in each.documents})
    wanted = pending.wanted(settings, left)
    began = time.monotonic()
    rewrite_indexes(settings, pages)
    failpoint("purge.after-index")
    done = amend_all(settings, pages, wanted, run_id)
    copies.clear_workspace(settings, wanted, index_gone=bool(held_by_workspace(settings, pages)))
    failpoint("purge.after-workspace")
    copies.blot_evidence(settings, wanted)
    failpoint("purge.after-evidence")
    outlast_grace(settings, began)
    free(settings)
    copies.clear_dvc(settings, wanted, pages)
    failpoint("purge.after-dvc")
    copies.clear_runs(settings, wanted)
    copies.clear_home(settings, wanted)
    failpoint("purge.after-home")
    found = proof.search(settings, wanted, pending.lines_of(left), pages)
    if not found["hits"]:
        pending.done(settings, left)
    return {"amended": done} | found


# --- The index


def rewrite_indexes(settings: Settings, pages: Sequence[str]) -> None:
    """Every version that a retained release pins, where a version of its table ever held the pages."""
    with only_writer(settings.index_uri):
        for name, forms in wanted_forms(settings, pages).items():
            if ever_held(settings.index_uri, name, pages):
                release, lock = forms[0][1], forms[0][2]
                params = table_params(settings, release, lock)
                model = opened_embedder(settings, release)
                rewrite(settings.index_uri, name, [form for form, _, _ in forms], pages, params, model)


def wanted_forms(settings: Settings, pages: Sequence[str]) -> dict[str, list[tuple[Form, Release, str]]]:
    """Table -> the versions of it that stay."""
    entries = ledger.read(settings.ledger)
    found: dict[str, dict[str, tuple[Form, Release, str]]] = {}
    for each in kept(entries):
        release = housekeeping.pinned(settings, each)
        form = Form(release.index.tag, readable(settings, each, release, pages))
        if not form.manifest["rows"]:
            raise InputError(f"release {each.number} would have no page left; drop it first: tandem maintain --keep 1 --days 0")
        lock = promotion_of(entries, each.release).evidence.get("dvc.lock", "")
        found.setdefault(release.index.table, {})[release.index.tag] = (form, release, lock)
    return {table: list(forms.values()) for table, forms in found.items()}


def readable(settings: Settings, found: Found, release: Release, pages: Sequence[str]) -> Record:
    try:
        return amended_manifest(settings.index_uri, manifest_of(release), pages)
    except IntegrityError as error:
        raise IntegrityError(
            f"release {found.number} does not read, so it cannot be amended ({error}). The tombstone stands. Mend it (tandem "
            "doctor), or drop it: tandem maintain --keep 1 --days 0"
        ) from error


def opened_embedder(settings: Settings, release: Release) -> Any:
    from tasks.embedding import Embedder

    return Embedder(open_folder(settings.store, release.embedder.digest))


def table_params(settings: Settings, release: Release, lock: str) -> IndexParams:
    """Those of today where they name the table, else those with which the release was made: its full text is indexed alike."""
    today = load(IndexParams, settings.root / "params")
    then = today.model_copy(update=used_params(settings, lock))
    for params in (today, then):
        if names_table(release.index.table, release.embedder.digest, params):
            return params
    raise InputError(
        f"nobody knows any more how the full text of table {release.index.table} was indexed; put params/index.yaml back as it "
        "was then, or drop its releases: tandem maintain --keep 1 --days 0"
    )


def used_params(settings: Settings, lock: str) -> Record:
    if not lock:
        return {}
    stages = (yaml.safe_load(open_evidence(settings.store, lock)) or {}).get("stages") or {}
    return dict(stages.get("index", {}).get("params", {}).get("params/index.yaml", {}))


def held_by_workspace(settings: Settings, pages: Sequence[str]) -> list[Record]:
    return [row for each in workspace_index(settings) for row in pages_of(settings.index_uri, each, pages)]


# --- The releases


def amend_all(settings: Settings, pages: Sequence[str], wanted: Canary, run_id: str) -> list[int]:
    """The numbers of the releases that were amended."""
    done = []
    for found in kept(ledger.read(settings.ledger)):
        entries = ledger.read(settings.ledger)
        new = amended(settings, entries, found, pages)
        if release_id(new) != found.release:
            amend(settings, entries, found, new, wanted, run_id)
            done.append(found.number)
    return done


def amended(settings: Settings, entries: list[Entry], found: Found, pages: Sequence[str]) -> Release:
    """The release as it may go on: without the rows, the weights and the few-shot turns that know the pages."""
    release, tombstones = housekeeping.pinned(settings, found), erasures.standing(settings, entries)
    index = amended_manifest(settings.index_uri, manifest_of(release), pages)
    corpus = kept_documents(settings, entries, found, tombstones)
    values: Record = release.model_dump() | {"index": {key: index[key] for key in release.index.model_dump()}}
    values["prompt"] = {**release.prompt, "shot_messages": tombstones.without(release.prompt["shot_messages"])}
    if corpus is not None and len(corpus) != release.corpus.documents:
        values["corpus"] = {"digest": value_digest(corpus), "documents": len(corpus)}
    if release.adapter and tombstones.withheld(release.adapter.digest):
        values |= {"adapter": None, "arm": "rag" if uses_adapter(release.arm) else release.arm}
    if release.query_encoder and tombstones.withheld(release.query_encoder.digest):
        values["query_encoder"] = None
    return Release.model_validate(values)


def kept_documents(settings: Settings, entries: list[Entry], found: Found, tombstones: Tombstones) -> Record | None:
    """Page -> digest, of those that stay; None where that was not sealed, or was blotted by a purge that died."""
    digest = promotion_of(entries, found.release).evidence.get("documents")
    documents = json.loads(open_evidence(settings.store, digest)) if digest else {}
    return {page: text for page, text in documents.items() if not tombstones.covers(page)} or None


def amend(settings: Settings, entries: list[Entry], found: Found, new: Release, wanted: Canary, run_id: str) -> None:
    """Sealed, asked, registered, and only then the entry by which it stands for the release that it amends."""
    identity = release_id(new)
    seal_file(settings.store, render(new).encode())
    indexes.seal_rows(settings, new)
    asked = golden_questions(settings, entries, found.release)
    golden = golden_of(settings, new, [question for question in asked if not wanted.within(question.encode())])
    verdict = registration.sealed_verdict(settings, promotion_of(entries, found.release).evidence["verdict"])
    version = registration.register(settings, new, verdict, run_id)
    live = live_entry(entries)
    is_live = live.release == found.release
    draft = Draft(
        action="erase",
        release=identity if is_live else live.release,
        number=live.number,
        version=version if is_live else live.version,
        candidate=None if is_live else identity,
        who=settings.who,
        why=f"release {found.number} ({short(found.release)}) is now {short(identity)}: what was erased is in it no more",
        at=promotion.now(),
        evidence={AMENDS: found.release, "golden": seal_file(settings.store, canonical_json(golden).encode())},
        runs={"mlflow": run_id},
    )
    failpoint("purge.before-entry")
    entry = ledger.append(settings.ledger, draft, len(entries))
    failpoint("purge.after-entry")
    if is_live:
        promotion.follow_ledger(settings)
    else:
        registry.tag_version(settings, version, {registry.LEDGER_TAG: entry.sequence, "number": found.number})
    say(f"ledger entry {entry.sequence}: {entry.why}")


def golden_questions(settings: Settings, entries: list[Entry], release: str) -> list[str]:
    """Those by which it was verified last; of a release that fell back to `rag`, those of its promotion."""
    promoted = [promotion_of(entries, form).evidence for form in (release, origin(entries, release))]
    for digest in (evidence.get("golden") for evidence in promoted):
        answers = json.loads(open_evidence(settings.store, digest))["answers"] if digest else []
        if answers:
            return [answer["question"] for answer in answers]
    return []


def golden_of(settings: Settings, release: Release, questions: Sequence[str]) -> Record:
    """What the amended release answers, here and now: so it is known to load and to answer before the original goes."""
    assistant = open_manifest(settings, render(release))
    answers = [{"question": question, "answer": assistant.ask(question).answer} for question in questions]
    return golden_record(environment(), answers)


# --- The originals


def outlast_grace(settings: Settings, began: float) -> None:
    """All versions that hold the pages are older than this run, and older than the grace they must be to go (tasks.upkeep).
    On shared storage that is an hour, which nobody waits for here: what is left is told, and the next maintenance frees it."""
    if is_local(settings.index_uri):
        time.sleep(max(0.0, began + LOCAL_GRACE - time.monotonic()))


def free(settings: Settings) -> None:
    """Index versions, vectors, weights and registry versions that no retained release pins."""
    found = kept(ledger.read(settings.ledger))
    housekeeping.free_index(settings, found, broken=False)
    with only_writer(settings.index_uri):
        drop_orphans(settings.index_uri)
    failpoint("purge.after-prune")
    housekeeping.free_store(settings, found)
    gone = replaced(ledger.read(settings.ledger))
    for version in registry.versions(settings):
        if version.release in gone:
            registry.delete_version(settings, version.number)
    housekeeping.check(settings, found, {})
    failpoint("purge.after-store")
