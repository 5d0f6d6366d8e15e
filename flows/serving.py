"""What a server answers from: one release, loaded and verified aside, then put in the place of the other by one assignment. A
newer one that does not load leaves the one that answers where it is."""

import os
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from threading import Event
from typing import NamedTuple

from flows import asked, erasures, faults, indexes, ledger, registration, registry
from flows.ledger import Entry
from flows.opening import live_entry, manifest_text, open_manifest
from flows.promotion import now
from flows.settings import Settings
from flows.succession import moved, moves, promotion_of
from flows.verify import as_evaluated
from tasks.assistant import Assistant
from tasks.errors import IntegrityError, TandemError
from tasks.explaining import explanation
from tasks.manifest import Release, load_release, render, short
from tasks.params import ARMS, Arm, uses_adapter, uses_passages
from tasks.records import Record

GLANCE_SECONDS = 1.0  # between two looks at the ledger: a look is one listing of its folder
ALIAS_SECONDS = 30.0  # between two looks at the registry
RETRY_SECONDS = (10.0, 600.0)  # until a release that did not load is tried again, doubled from the first to the second


class Position(NamedTuple):
    """What the ledger says of the answers: two that are equal need no other release."""

    release: str | None
    moved: int  # the newest entry that can change what is answered


class Unavailable(TandemError):
    """Nothing is live, by an entry of the ledger."""


@dataclass(frozen=True)
class Served:
    """A release that has loaded and passed its golden questions, and what a person asks about it."""

    assistant: Assistant
    position: Position
    entry: Entry  # by which it became live
    verified: str
    loaded: str
    index_since: str  # when the first release with these passages was promoted
    adapter_since: str | None  # and the first one with these weights

    def named(self) -> Record:
        return {"id": self.assistant.release_id, "number": self.entry.number}


def position(entries: list[Entry]) -> Position:
    newest = ledger.live(entries)
    last = moves(entries)[-1:]
    return Position(newest.release if newest else None, last[0].sequence if last else 0)


def load(settings: Settings, entries: list[Entry]) -> Served:
    """The live release, every digest of it compared, its passages counted, its golden questions asked.

    Raises TandemError where a piece is missing, torn or foreign, and whatever a library makes of it besides.
    """
    identity = str(live_entry(entries).release)
    entry = moved(entries, identity)
    assistant = open_manifest(settings, manifest_text(settings, identity))
    if assistant.release_id != identity:
        raise IntegrityError(f"the manifest stored as {identity} is that of {assistant.release_id}; run: tandem doctor")
    indexes.open_rows(settings, assistant.release)
    verified = golden_questions(settings, assistant, entries, entry)
    index, adapter = ages(settings, entries, assistant.release)
    return Served(assistant, position(entries), entry, verified, now(), index, adapter)


def golden_questions(settings: Settings, assistant: Assistant, entries: list[Entry], since: Entry) -> str:
    """How they were answered, in words. A page that was erased since takes its answers along; until the purge has amended the
    release there are none of today to compare with."""
    try:
        return as_evaluated(settings, assistant, promotion_of(entries, assistant.release_id).evidence["golden"])
    except IntegrityError:
        if not any(erasures.ERASURE in entry.evidence for entry in entries if entry.sequence > since.sequence):
            raise
        return "digests compared; its golden questions changed with a page that was erased since"


def ages(settings: Settings, entries: list[Entry], release: Release) -> tuple[str, str | None]:
    """Since when the ledger knows these passages, and these weights: what is promoted again later is no younger."""
    index, adapter = [], []
    for entry in moves(entries):
        if entry.release is not None:
            with suppress(TandemError):  # an old manifest that is damaged is for `tandem doctor` to tell
                other = load_release(manifest_text(settings, entry.release))
                index += [entry.at] if other.index.digest == release.index.digest else []
                adapter += [entry.at] if other.adapter == release.adapter else []
    return index[0], adapter[0] if release.adapter else None


class Desk:
    """`served` is read once per question and written by one watcher: whoever read it stays with that release to the end."""

    def __init__(self, settings: Settings) -> None:
        """Raises TandemError where the live release does not load: a server that starts has nothing else to answer from."""
        self.settings = settings
        self.seen = newest_name(settings)
        entries = ledger.read(settings.ledger)
        self.served: Served | None = load(settings, entries)
        self.newer = ""  # what keeps a newer release from being served
        self.alias = ""  # what is wrong with the way by which MLflow's users find it
        self.looked = time.monotonic()
        self.again, self.pause = 0.0, 0.0

    def glance(self) -> bool:
        """Whether another release answers now. Cheap while the ledger is as it was."""
        self.looked = time.monotonic()
        newest = newest_name(self.settings)
        if newest == self.seen and not (self.newer and self.looked >= self.again):
            return False
        self.seen = newest
        try:
            return self.follow(ledger.read(self.settings.ledger))
        except Exception as error:  # whatever is wrong with the newer one, the one that is loaded goes on answering
            self.put_off(error)
            return False

    def follow(self, entries: list[Entry]) -> bool:
        now_live = position(entries)
        before = self.served.position if self.served else None
        if now_live != before:
            self.served = load(self.settings, entries) if now_live.release else None
        changed = now_live != before
        if changed or self.newer:
            print(f"tandem: {said(self.served)}", file=sys.stderr, flush=True)
        self.newer, self.pause = "", 0.0
        return changed

    def put_off(self, error: Exception) -> None:
        what = str(error) if isinstance(error, TandemError) else faults.describe(error)
        if what != self.newer:
            print(f"tandem: {said(self.served)} still; the newest release does not load: {what}", file=sys.stderr, flush=True)
        first, longest = RETRY_SECONDS
        self.pause = min(2 * self.pause or first, longest)
        self.newer, self.again = what, time.monotonic() + self.pause

    def look_at_alias(self) -> None:
        """The ledger decides what is answered from; whoever comes by the alias should find the same."""
        try:
            self.alias = alias_fault(self.settings)
        except TandemError as error:
            self.alias = str(error)
        except Exception as error:  # a registry that is down keeps nobody here from answering
            self.alias = f"the registry does not answer, so the alias was not compared: {faults.describe(error)}"


def newest_name(settings: Settings) -> str:
    """Of the ledger's entries; empty where there is none, or where the folder cannot be read (which `ledger.read` will tell)."""
    try:
        return max((name for name in os.listdir(settings.ledger) if name.endswith(".json")), key=lambda name: (len(name), name),
                   default="")  # fmt: skip
    except OSError:
        return ""


def said(served: Served | None) -> str:
    if served is None:
        return "nothing is live, by the ledger; questions are refused"
    return f"release {served.entry.number} ({short(served.assistant.release_id)}) answers, {served.verified}"


def watch(desk: Desk, stop: Event) -> None:
    """For a thread of its own: loading takes seconds to minutes, and nobody waits for it."""
    while not stop.wait(GLANCE_SECONDS):
        desk.glance()


def watch_alias(desk: Desk, stop: Event) -> None:
    while not stop.wait(ALIAS_SECONDS):
        desk.look_at_alias()


def alias_fault(settings: Settings) -> str:
    """What is amiss that the next flow mends by itself. Raises IntegrityError for an alias that is gone or was moved by hand."""
    database = settings.tracking_uri.removeprefix("sqlite:///")
    if database != settings.tracking_uri and not os.path.exists(database):
        raise IntegrityError(f"MLflow's database {database} is gone. Make the registry again: tandem doctor --mend")
    entries = ledger.read(settings.ledger)
    newest, stands = live_entry(entries), registry.champion_version(settings)
    if stands is None:
        raise IntegrityError(f"the alias champion is gone; release {newest.number} is live. Put it back: tandem doctor --mend")
    found = registry.versions(settings)
    registration.check_known(entries, found, stands)
    if stands == registry.number_of(found, str(newest.release)):
        return ""
    return f"the alias champion stands at version {stands}, not yet at that of release {newest.number}: tandem doctor --mend"


# --- Answers


def answer(desk: Desk, question: str, arm: Arm | None) -> Record:
    """From the release that answers at this moment, kept for `tandem why`."""
    served = desk.served
    if served is None:
        raise Unavailable("nothing is live; make a release live: tandem rollback --to N --reason ...")
    check_before_loading(desk.settings, served.assistant, arm)
    given = served.assistant.ask(question, arm)
    told = explanation(served.assistant, question, given) | {"number": served.entry.number, "at": now()}
    return reply(told) | {"id": asked.keep(desk.settings, told)}


def check_before_loading(settings: Settings, assistant: Assistant, arm: Arm | None) -> None:
    """An arm that is asked for the first time loads pieces that were verified when the server took the release: verify again."""
    arm = assistant.arm if arm is None else arm
    needed = {"adapted" if uses_adapter(arm) else "base"} | ({"index"} if uses_passages(arm) else set())
    if arm in ARMS and not needed <= vars(assistant).keys():  # `cached_property` keeps what is loaded there
        open_manifest(settings, render(assistant.release))


def reply(told: Record) -> Record:
    passages = [{key: passage[key] for key in ("number", "page", "heading", "passage", "score", "cited")}
                for passage in told["passages"]]  # fmt: skip
    cited = [{key: passage[key] for key in ("number", "page", "heading")} for passage in passages if passage["cited"]]
    return {key: told[key] for key in ("answer", "arm", "release", "number")} | {"citations": cited, "passages": passages}


def health(desk: Desk, at: datetime | None = None) -> Record:
    """Whose answers these are, how old what they rest on is, and what a person should look at."""
    served, at = desk.served, at or datetime.now(UTC)
    wrong = [fault for fault in (desk.newer, desk.alias) if fault]
    return {
        "status": "ok" if served and not wrong else "degraded" if served else "nothing is live",
        "release": served.named() | {"arm": served.assistant.arm, "live_since": served.entry.at} if served else None,
        "index": aged(served.index_since, at) if served else None,
        "adapter": aged(served.adapter_since, at) if served and served.adapter_since else None,
        "verified": served.verified if served else None,
        "ledger_read_seconds_ago": round(time.monotonic() - desk.looked, 1),
        "wrong": wrong,
    }


def aged(since: str, at: datetime) -> Record:
    return {"since": since, "age_seconds": round((at - datetime.fromisoformat(since)).total_seconds())}


def described(desk: Desk) -> Record:
    """The whole manifest, and who made it live, when and why."""
    served = desk.served
    if served is None:
        raise Unavailable("nothing is live; what was: tandem history")
    entry = served.entry.model_dump(include={"sequence", "action", "who", "why", "at"})
    return served.named() | {"entry": entry, "loaded": served.loaded, "manifest": served.assistant.release.model_dump()}
