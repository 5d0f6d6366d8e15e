"""`tandem erase`: a page is unanswerable from the moment of one ledger entry, and unreadable once the rest is done.

Not a Prefect flow: a flow run keeps its parameters, and the id of a page may be what has to go.
"""

from collections.abc import Sequence

from flows import asked, erasures, ledger, pending, promotion, purge, registration, takeout
from flows.amendments import AMENDS
from flows.erasures import ERASURE
from flows.ledger import Draft, Entry
from flows.opening import manifest_text
from flows.pending import Pending
from flows.session import Session, note_running, running_file, say, session
from flows.settings import Settings
from flows.store import seal_file
from flows.succession import promotion_of
from flows.survey import Survey, survey
from tasks.errors import InputError
from tasks.failpoints import failpoint
from tasks.golden import golden_record
from tasks.manifest import Release, load_release, release_id, render
from tasks.params import uses_adapter
from tasks.records import Record, canonical_json
from tasks.tombstones import Erased, Erasure, Tombstones


def erase(names: Sequence[str], reason: str, later: bool = False) -> Record:
    """`later`: the tombstone now, the rest by the next `tandem maintain`."""
    check_reason(reason)
    with session("erase") as opened:
        entries = ledger.read(opened.settings.ledger)
        check_not_erased(erasures.standing(opened.settings, entries), names)
        found = survey(opened.settings, entries, names)
        entry = bury(opened, entries, found, reason)
        clear_caches(opened)
        result = told(found, entry)
        return result | (purge.finish(opened.settings, opened.run_id) if not later else {"pending": len(found.documents)})


def check_reason(reason: str) -> None:
    if not reason.strip():
        raise InputError(
            'an erasure needs a reason, which stays in the ledger for ever and names nobody: --reason "GDPR 17, case 81"'
        )


def check_not_erased(tombstones: Tombstones, names: Sequence[str]) -> None:
    for name in names:
        erased = tombstones.of(name)
        if erased is not None:
            raise InputError(
                f"{name!r} was erased on {erased.at[:10]} (ledger entry {erased.sequence}). To finish what was interrupted: "
                "tandem maintain; to see that nothing is left: tandem erase --verify"
            )


def bury(opened: Session, entries: list[Entry], found: Survey, reason: str) -> Entry:
    """The tombstone: one ledger entry. Before it nothing is erased, after it no search finds the pages."""
    settings = opened.settings
    digest = seal_file(settings.store, canonical_json(found.erasure.model_dump()).encode())
    pending.note(settings, Pending(digest, found.documents, found.lines))
    failpoint("erase.before-fallback")
    draft = tombstone(opened, entries, found.erasure, digest, reason)
    failpoint("erase.before-entry")
    entry = ledger.append(settings.ledger, draft, len(entries))
    failpoint("erase.after-entry")
    promotion.follow_ledger(settings)
    count = len(found.documents)
    say(f"ledger entry {entry.sequence}: {count} {'page is' if count == 1 else 'pages are'} answered by no release any more")
    return entry


def tombstone(opened: Session, entries: list[Entry], erasure: Erasure, digest: str, reason: str) -> Draft:
    """What was live stays so; a live adapter that learnt from the pages makes way for the arm `rag` in the same entry."""
    settings, live = opened.settings, ledger.live(entries)
    release, number, version, evidence = (live.release, live.number, live.version, {}) if live else (None, None, None, {})
    pinned = load_release(manifest_text(settings, str(release))) if release else None
    if pinned is not None and pinned.adapter and pinned.adapter.digest in erasure.adapters:
        instead = without_adapter(pinned, erasure)
        seal_file(settings.store, render(instead).encode())
        golden = seal_file(settings.store, canonical_json(golden_record({}, [])).encode())  # it is asked when it is amended
        evidence = {AMENDS: str(release), "golden": golden}
        verdict = promotion_of(entries, str(release)).evidence["verdict"]
        release = release_id(instead)
        version = registration.register(settings, instead, registration.sealed_verdict(settings, verdict), opened.run_id)
    return Draft(
        action="erase",
        release=release,
        number=number,
        version=version,
        candidate=None,
        who=settings.who,
        why=reason,
        at=promotion.now(),
        evidence={ERASURE: digest, **evidence},
        runs={"mlflow": opened.run_id},
    )


def without_adapter(release: Release, erasure: Erasure) -> Release:
    """The same index, base model and prompt, less the weights, and the few-shot turns, that know the pages."""
    tombstones = Tombstones((Erased(erasure, "", "", 0),))
    shots = tombstones.without(release.prompt["shot_messages"])
    arm = "rag" if uses_adapter(release.arm) else release.arm
    changed = {"adapter": None, "arm": arm, "prompt": {**release.prompt, "shot_messages": shots}}
    return Release.model_validate(release.model_dump() | changed)


def clear_caches(opened: Session) -> None:
    """What answers without a search; then the corpus, so that no later index holds the pages."""
    settings = opened.settings
    tombstones = erasures.standing(settings, ledger.read(settings.ledger))
    asked.forget(asked.place(settings), lambda told: not erasures.told_without(tombstones, told))
    failpoint("erase.before-corpus")
    takeout.take_out(settings, lambda pid: note_running(settings, pid))
    running_file(settings).unlink(missing_ok=True)
    failpoint("erase.after-corpus")


def told(found: Survey, entry: Entry) -> Record:
    return {
        "outcome": "erased",
        "sequence": entry.sequence,
        "number": entry.number,
        "release": entry.release,
        "documents": found.documents,
        "knew": found.erasure.releases,
        "unsaid": found.unsaid,
        "fell_back": AMENDS in entry.evidence,
    }


def take_back(settings: Settings, names: Sequence[str], reason: str) -> list[Entry]:
    """A person says that pages may come back: the erasures that cover them are lifted, each by a ledger entry."""
    check_reason(reason)
    done: list[Entry] = []
    for name in names:
        entries = ledger.read(settings.ledger)
        erased = erasures.standing(settings, entries).of(name)
        if erased is None:
            raise InputError(f"{name!r} is under no tombstone; leave it out of --take-back (a page is named by its id)")
        newest, digest = entries[-1], entries[erased.sequence - 1].evidence[ERASURE]
        draft = Draft(
            action="override", release=newest.release, number=newest.number, version=newest.version, candidate=None,
            who=settings.who, why=reason, at=promotion.now(), evidence={erasures.LIFTS: digest}, runs={},
        )  # fmt: skip
        done.append(ledger.append(settings.ledger, draft, len(entries)))
    return done
