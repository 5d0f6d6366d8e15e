"""A flow that would find nothing new, found out without going through it.

To go through all of it and find the live release again takes imports of MLflow, LanceDB and DVC, and every statistic of the
gate: ten seconds of the processor. So a run that ends so notes what it went by, and the next one ends at once where all of that
is as it was. What is not noted but looked at each time: that the alias follows the ledger and nothing is left half done, and
every byte of the live release. Anything else takes the whole way, which also says what is wrong.
"""

import os
import sys
import sysconfig
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from flows import glance, ledger, listing
from flows.ledger import Entry
from flows.opening import live_entry, manifest_text, open_pieces
from flows.outcome import Outcome
from flows.run_names import name_flow_run
from flows.session import Session, alone, recorded, say
from flows.settings import Settings
from tasks.errors import InputError, IntegrityError
from tasks.manifest import Release, load_release
from tasks.params_files import load
from tasks.params_verdict import JudgeParams
from tasks.records import Record, file_digest, read_json, value_digest, write_json

CODE = Path(__file__).parents[1]
WHOSE_OWN = ("who", "token", "lock_wait_seconds")  # settings that no decision depends on; one of them is secret
HALF_DONE = ("data/.raw.new", "data/.raw.old", "data/.raw.erasing")
SEALED = ("files", "erased", "index")  # in the store: what judgements rested on. Its models are read byte by byte instead


@dataclass
class Watched:
    """What DVC looks at, as it was before DVC was asked: a change meanwhile shows next time."""

    paths: list[str] = field(default_factory=list)
    seen: str = ""

    def look(self, repo: Any) -> None:
        params = os.path.join(repo.root_dir, "params")  # those of the judge, which no stage reads
        self.paths = glance.outermost([*glance.watched(repo), params])
        self.seen = glance.look(self.paths)


def unless_settled(flow: str, work: Callable[[Session], Outcome]) -> Outcome:
    """What `work` would come to, by a note of an earlier run or by doing it. `flow`: its name, for lock, note and record."""
    with alone(flow) as settings:
        found = recall(settings, flow)
        if found is not None:
            return found
        watched = Watched()
        with recorded(settings, flow, watched.look) as opened:
            before = standing(settings, ledger.read(settings.ledger))
            outcome = work(opened)
        if outcome.outcome == "unchanged":
            keep(settings, flow, before, watched)
        return outcome


# --- The note


def note(settings: Settings, flow: str) -> Path:
    return settings.home / "settled" / f"{flow}.json"


def keep(settings: Settings, flow: str, before: Record, watched: Watched) -> None:
    """Unless something changed meanwhile, or a language model is to judge too, which is asked until it answers."""
    asks = bool(load(JudgeParams, settings.root / "params").model)
    as_before = watched.paths and glance.look(watched.paths) == watched.seen
    if as_before and not asks and standing(settings, ledger.read(settings.ledger)) == before:
        seen = {"paths": watched.paths, "seen": watched.seen, "registry": mended_registry(settings)}
        write_json(note(settings, flow), before | seen)


def standing(settings: Settings, entries: list[Entry]) -> Record:
    """What a judgement rests on beside the files that DVC looks at."""
    own = {name: str(value) for name, value in asdict(settings).items() if name not in WHOSE_OWN}
    beside = [
        *(settings.root / name for name in HALF_DONE),
        settings.home / "erasing",
        *(settings.store / name for name in SEALED),
        settings.index_uri,  # a newer version of a table, where it is torn, keeps Lance from opening the released one
    ]
    return {
        "settings": value_digest(own),  # a tracking URI may hold a password
        "code": code(),
        "ledger": [entries[-1].sequence, entries[-1].digest] if entries else [],
        "beside": glance.look(map(str, beside)),
    }


def code() -> str:
    """Ours by content, so that a checkout of the same commit is nothing new; of the libraries, when one was installed last."""
    ours = [path for name in ("flows", "tasks") for path in (CODE / name).rglob("*") if path.is_file() and path.suffix != ".pyc"]
    files = {path.relative_to(CODE).as_posix(): file_digest(path) for path in ours}
    return value_digest([files, sys.version, os.stat(sysconfig.get_path("purelib")).st_mtime_ns])


# --- The look


def recall(settings: Settings, flow: str) -> Outcome | None:
    """What the flow would come to, where all is as noted; None where it has to be gone through."""
    try:
        noted = read_json(note(settings, flow))
        entries = ledger.read(settings.ledger)
        as_noted = noted == noted | standing(settings, entries) and glance.look(noted["paths"]) == noted["seen"]
    except (InputError, LookupError, TypeError):  # no note, or a damaged one
        return None
    release = whole(settings, live_entry(entries)) if as_noted else None
    if release is None:
        return None
    if noted["registry"] is None or noted["registry"] != database(settings):
        write_json(note(settings, flow), noted | {"registry": mended_registry(settings)})
    return nothing_new(settings, live_entry(entries), release)


def whole(settings: Settings, newest: Entry) -> Release | None:
    """The live release, if every byte of it and of its index is as it was sealed: what goes bad on a disk has no new time."""
    with suppress(IntegrityError):
        release = load_release(manifest_text(settings, str(newest.release)))
        open_pieces(settings, release)
        if listing.check(settings, release.index.model_dump()):
            return release
    return None


def nothing_new(settings: Settings, newest: Entry, release: Release) -> Outcome:
    reason = f"nothing new: release {newest.number} is live and up to date"
    say(reason)
    name_flow_run(settings.project, "nothing new", {"outcome": "unchanged", "release": str(newest.number)})
    return Outcome("unchanged", newest.number, newest.release, release.arm, [reason], newest.sequence)


# --- MLflow


def mended_registry(settings: Settings) -> Record | None:
    """MLflow is asked whether the alias follows the ledger and no run of a dead process is left, and what is not so is put right.
    Returns its database as it then is; None where it is a server's, or changed meanwhile."""
    from flows.mending import mend

    before = database(settings)
    mend(settings)
    return before if before == database(settings) else None


def database(settings: Settings) -> Record | None:
    """A file of SQLite, which counts in its header how often it was changed. Others are not ours to look into."""
    path = Path(settings.tracking_uri.removeprefix("sqlite:///"))
    try:
        with path.open("rb") as file:
            header, status = file.read(28), os.fstat(file.fileno())
    except OSError:
        return None
    beside = glance.look([f"{path}-wal", f"{path}-journal"])
    return {"changes": header[24:].hex(), "file": [status.st_ino, status.st_size, status.st_mtime_ns], "beside": beside}
