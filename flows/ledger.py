"""The release ledger: what was live when, who decided, and why. Append-only, hash-chained, one file per entry.

The exclusive create of 00000N.json is the commit point of every promotion and rollback, and N is its fencing token.
The newest entry says what is live. Each entry carries its own digest and that of the bytes of the entry before, so one
changed byte is found and named. What a chain cannot show is that its newest entries were cut off: compare its length
with what the registry says.
"""

import errno
import hashlib
import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from pydantic import AfterValidator, ValidationError

from flows.amendments import amends, check_erasure
from flows.aside import aside, new_file, write_new
from flows.lock import private_folder
from tasks.errors import ConflictError, InputError, IntegrityError
from tasks.failpoints import failpoint
from tasks.manifest import Digest, Name, faults, sealed_json, short
from tasks.params import Positive
from tasks.params_files import Group
from tasks.records import sync, value_digest

FORMAT = 1
NOTHING = "0" * 64  # what the first entry follows
NEAREST = 5  # releases that a message lists
SHORTEST = 4  # digits that name a release by its id

Action = Literal["promote", "rollback", "refuse", "retire", "erase", "override"]


def utc(at: str) -> str:
    offset = datetime.fromisoformat(at).utcoffset()
    if offset is None or offset != UTC.utcoffset(None):
        raise ValueError("a UTC time was expected, such as 2026-01-31T09:30:00+00:00")
    return at


class Draft(Group):
    """What the caller knows. `release`, `number` and `version` are of the release that is live AFTER this entry."""

    action: Action
    release: Digest | None
    number: Positive | None  # as people count releases; a rollback carries the old one
    version: Positive | None  # of the registered model
    candidate: Digest | None  # what was judged, where that is not what is live
    who: Name
    why: Name
    at: Annotated[str, AfterValidator(utc)]
    evidence: dict[Name, Digest]
    runs: dict[Name, str]


class Entry(Draft):
    format: Literal[1]
    sequence: Positive
    previous: Digest  # sha256 of the bytes of the entry before
    digest: Digest  # of all the other fields


class Found(NamedTuple):
    release: str
    number: int


def append(folder: Path | str, draft: Draft, expected_sequence: int) -> Entry:
    """Commit entry `expected_sequence` + 1; `expected_sequence` is the newest entry that the caller judged against.

    Raises ConflictError where somebody else has appended since, InputError where the draft does not follow from what
    stands, IntegrityError where the ledger is damaged or shorter than the caller saw it.
    """
    folder = local(folder)
    entries = read(folder)
    check_expected(folder, entries, expected_sequence)
    check_follows(entries, draft)
    entry = seal(draft, expected_sequence + 1, file_sha256(entries[-1]) if entries else NOTHING)
    if not create(folder, file_name(entry.sequence), render(entry)):
        raise conflict(entry.sequence, expected_sequence)
    return entry


def check_expected(folder: Path, entries: list[Entry], expected: int) -> None:
    if len(entries) > expected:
        raise conflict(len(entries), expected)
    if len(entries) < expected:
        raise damaged(folder, f"it ends at entry {len(entries)}, but entry {expected} was read before")


def conflict(newest: int, expected: int) -> ConflictError:
    return ConflictError(
        f"conflict: the ledger is now at entry {newest} (you judged against {expected}); "
        "judge again against what is live now: run the same command again"
    )


def check_follows(entries: list[Entry], draft: Draft) -> None:
    """A refusal changes nothing; a release keeps its number for ever; nobody rolls back to what never was live."""
    now = entries[-1] if entries else None
    before = (now.release, now.number, now.version) if now else (None, None, None)
    if (draft.release is None) != (draft.number is None):
        raise InputError("a ledger entry has both `release` and `number`, or neither (nothing is live)")
    if draft.action in ("refuse", "retire") and (draft.release, draft.number, draft.version) != before:
        what = {"refuse": "a refusal", "retire": "a retirement"}[draft.action]
        raise InputError(f"{what} carries `release`, `number` and `version` of the newest entry")
    dropped = set(draft.evidence.values()) if draft.action == "retire" else set()
    if draft.release in dropped or not dropped <= {each.release for each in known(entries)}:
        raise InputError("a retirement names releases that were live before and are not live now")
    check_erasure(draft, before)
    if draft.action == "promote" and (draft.release is None or draft.number != number_for(entries, draft.release)):
        raise InputError(f"a promotion names its release and the number of `number_for`, not {draft.number}")
    if draft.action == "rollback" and draft.release not in {found.release for found in known(entries)}:
        raise InputError("a rollback goes back to a release that was live before; see: tandem history")
    if draft.action == "rollback" and Found(str(draft.release), int(draft.number or 0)) not in known(entries):
        raise InputError(f"a rollback carries the old number of its release, not {draft.number}")


def number_for(entries: list[Entry], release: str) -> int:
    """The number that `release` has had since it was first live, or the next free one."""
    for entry in entries:
        if entry.release == release and entry.number is not None:
            return entry.number
    return max((entry.number or 0 for entry in entries), default=0) + 1


def seal(draft: Draft, sequence: int, previous: str) -> Entry:
    fields = draft.model_dump() | {"format": FORMAT, "sequence": sequence, "previous": previous}
    return Entry.model_validate(fields | {"digest": value_digest(fields)})


def render(entry: Entry) -> bytes:
    """The one form of an entry, readable for people; its bytes are what the next entry's `previous` covers."""
    text = json.dumps(entry.model_dump(), indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return f"{text}\n".encode()


def file_sha256(entry: Entry) -> str:
    return hashlib.sha256(render(entry)).hexdigest()


def file_name(sequence: int) -> str:
    return f"{sequence:06d}.json"


def read(folder: Path | str) -> list[Entry]:
    """All entries, oldest first; none where there is no ledger yet.

    Raises IntegrityError naming the first entry that is missing, changed, or does not follow the one before.
    """
    folder = local(folder)
    entries: list[Entry] = []
    previous = NOTHING
    for sequence, (name, data) in enumerate(stored(folder), start=1):
        if name != file_name(sequence):
            raise damaged(folder, f"entry {file_name(sequence)} is missing ({name} is there)")
        entry = parse(folder, name, data)
        if entry.sequence != sequence:
            raise damaged(folder, f"entry {name} says that it is entry {entry.sequence}: it was renamed")
        if entry.previous != previous:
            raise damaged(folder, broken_chain(sequence, entry.previous, previous))
        entries.append(entry)
        previous = hashlib.sha256(data).hexdigest()
    return entries


def parse(folder: Path, name: str, data: bytes) -> Entry:
    try:
        entry = Entry.model_validate(sealed_json(data, f"ledger entry {folder / name}", FORMAT))
    except ValidationError as error:
        raise damaged(folder, f"entry {name} is not what was appended ({faults(error)})") from error
    fields = entry.model_dump(exclude={"digest"})
    found = value_digest(fields)
    if found != entry.digest or render(entry) != data:
        raise damaged(folder, f"entry {name} was changed (expected digest {entry.digest}, found {found})")
    return entry


def broken_chain(sequence: int, expected: str, actual: str) -> str:
    if sequence == 1:
        return f"entry {file_name(1)} follows an entry that is gone (sha256 {expected})"
    before = file_name(sequence - 1)
    return f"entry {before} was replaced (expected sha256 {expected}, as {file_name(sequence)} says, found {actual})"


def damaged(folder: Path, what: str) -> IntegrityError:
    return IntegrityError(
        f"the ledger {folder} is damaged: {what}. Nothing is promoted until it is whole: "
        "restore that file from a backup or another copy of the ledger, then run: tandem doctor"
    )


def live(entries: list[Entry]) -> Entry | None:
    """The newest entry, if anything is live after it."""
    return entries[-1] if entries and entries[-1].release is not None else None


def find(entries: list[Entry], name: str) -> Found:
    """A release that was live, named by its number ("2"), by the start of its id, or by an entry ("seq:4").

    Raises InputError where there is none or more than one, listing the nearest.
    """
    found = known(entries)
    if not found:
        raise InputError("there is no release yet; make one: tandem release")
    if match := re.fullmatch(r"seq:([0-9]{1,9})", name):
        return at_entry(entries, int(match[1]))
    if not re.fullmatch(r"[0-9]{1,6}|[0-9a-f]{4,64}", name):
        raise InputError(f"{name!r} names no release; give its number (2), its id or the first digits of it, or seq:4")
    if name.isdecimal() and (numbered := [each for each in found if each.number == int(name)]):
        return numbered[-1]  # after an erasure a number can have a second, amended release
    return by_prefix(entries, found, name)


def known(entries: list[Entry]) -> list[Found]:
    """Every release that was ever live, or amends one that was, in the order of its first time."""
    numbers: dict[str, int] = {}
    for entry in entries:
        new = {entry.release: entry.number} if entry.release and entry.number else {}
        numbers = numbers | new
        numbers |= {amended: numbers[old] for old, amended in amends(entry) if old in numbers}
    return [Found(release, number) for release, number in numbers.items()]


def at_entry(entries: list[Entry], sequence: int) -> Found:
    if not 1 <= sequence <= len(entries):
        raise InputError(f"there is no ledger entry {sequence}; they go from 1 to {len(entries)}: tandem history")
    entry = entries[sequence - 1]
    if entry.release is None or entry.number is None:
        raise InputError(f"nothing was live after ledger entry {sequence}; see: tandem history")
    return Found(entry.release, entry.number)


def by_prefix(entries: list[Entry], found: list[Found], name: str) -> Found:
    matches = [each for each in found if each.release.startswith(name)] if len(name) >= SHORTEST else []
    if len(matches) == 1:
        return matches[0]
    if matches:
        raise InputError(f"{name} is the start of {len(matches)} releases: {listed(matches)}; give more digits")
    judged = [entry for entry in entries if len(name) >= SHORTEST and (entry.candidate or "").startswith(name)]
    if judged:
        raise InputError(f"{name} was never live; entry {judged[-1].sequence} tells what became of it: tandem history")
    raise InputError(f"there is no release {name}; the nearest: {listed(nearest(found, name))}")


def nearest(found: list[Found], name: str) -> list[Found]:
    """By number where one was asked for, else by the shared start of the id; the newer first where two are as near."""
    if name.isdecimal() and len(name) <= 6:
        return sorted(found[::-1], key=lambda each: abs(each.number - int(name)))[:NEAREST]
    return sorted(found[::-1], key=lambda each: -len(os.path.commonprefix([each.release, name])))[:NEAREST]  # noqa: RUF071


def listed(found: list[Found]) -> str:
    return ", ".join(f"{each.number} ({short(each.release)})" for each in found)


# Where entries lie. Object storage changes only these: `stored` lists and gets, `create` puts with If-None-Match: *.


def local(place: Path | str) -> Path:
    scheme = re.match(r"([A-Za-z][A-Za-z0-9+.-]+):/", str(place))
    if scheme:
        raise InputError(f"ledger {place}: {scheme[1]}: is not supported; set TANDEM_LEDGER to a folder that all reach")
    return Path(place)


def stored(folder: Path) -> list[tuple[str, bytes]]:
    """Name and content of every entry, by sequence number. Other files in the folder are not the ledger's."""
    try:
        names = [name for name in os.listdir(folder) if re.fullmatch(r"[0-9]{6,}\.json", name)]
    except FileNotFoundError:
        return []
    return [(name, (folder / name).read_bytes()) for name in sorted(names, key=lambda name: (len(name), name))]


def create(folder: Path, name: str, data: bytes) -> bool:
    """Exclusive create with the whole content, durable on return. False where `name` exists: a link never replaces."""
    private_folder(folder)
    with aside(folder, new_file) as path:
        failpoint("ledger.before-write")
        write_new(path, data)
        failpoint("ledger.before-link")
        try:
            os.link(path, folder / name)
        except FileExistsError:
            return False
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise
            raise InputError(f"{folder}: a ledger needs a file system with hard links ({error.strerror})") from error
        failpoint("ledger.before-sync")
        sync(folder)
        failpoint("ledger.before-clean")
    failpoint("ledger.after-clean")
    return True
