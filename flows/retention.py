"""Which releases stay: decided from the ledger alone. What was dropped stands in the ledger too, and its history for ever.

A `retire` entry names the releases that it drops in its evidence ("release 3": id); what is live stays as it is.
"""

from collections.abc import Callable, Iterable
from datetime import datetime, timedelta
from typing import NamedTuple

from flows.amendments import amends, replaced
from flows.ledger import Entry, Found
from tasks.errors import InputError

KEEP, DAYS = 10, 30  # releases and days, where nobody says otherwise
PROVEN = 2  # releases beside the live one that can be rolled back to, each re-read before anything is dropped


class Standing(NamedTuple):
    """A release that was not dropped, and when it was live last."""

    found: Found
    last: datetime


class Choice(NamedTuple):
    kept: list[Found]
    dropped: list[Found]


def retired(entries: Iterable[Entry]) -> dict[str, Entry]:
    """Release -> the entry that dropped it, or that amended it. One that was promoted again since is whole again."""
    found: dict[str, Entry] = {}
    for entry in entries:
        if entry.action == "retire":
            found |= dict.fromkeys(entry.evidence.values(), entry)
        elif entry.action == "promote":
            found.pop(str(entry.release), None)
        found |= {old: entry for old, _ in amends(entry)}
    return found


def check_kept(entries: Iterable[Entry], found: Found) -> None:
    """Raises InputError for a release that maintenance dropped: it can be told of, but not asked."""
    entry = retired(entries).get(found.release)
    if entry is not None and entry.action == "erase":
        raise InputError(
            f"this form of release {found.number} held what was erased on {entry.at[:10]} (ledger entry {entry.sequence}: "
            f"{entry.why}); what stands for it now is asked by its number, {found.number}"
        )
    if entry is not None:
        raise InputError(
            f"release {found.number} was dropped by maintenance on {entry.at[:10]} (ledger entry {entry.sequence}: {entry.why}); "
            "its documents and weights are gone. `tandem history` and `tandem diff` still tell of it"
        )


def standing(entries: list[Entry], now: datetime) -> list[Standing]:
    """The newest first: the live one, then by the time until which each was live."""
    moves = [entry for entry in entries if entry.action in ("promote", "rollback", "erase", "override")]
    stands = replaced(entries)
    last: dict[Found, datetime] = {}
    for entry, following in zip(moves, [*moves[1:], None], strict=True):
        if entry.release is not None and entry.number is not None:
            found = Found(stands.get(entry.release, entry.release), entry.number)
            last.pop(found, None)
            last[found] = datetime.fromisoformat(following.at) if following else now
    gone = retired(entries)
    return [Standing(found, at) for found, at in reversed(last.items()) if found.release not in gone]


def choose(entries: list[Entry], keep: int, days: int, now: datetime, reads: Callable[[Found], bool]) -> Choice:
    """Keep the `keep` newest, those that were live in the last `days` days, and whatever stands before the second release, beside
    the live one, that `reads`. Raises InputError for a `keep` below 1 or negative days."""
    if keep < 1 or days < 0:
        raise InputError(f"--keep {keep} --days {days}: keep at least one release, and no negative number of days")
    there = standing(entries, now)
    enough = max(keep, 1 + reach(there[1:], reads))
    kept = [each.found for at, each in enumerate(there) if at < enough or now - each.last < timedelta(days=days)]
    return Choice(kept, [each.found for each in there if each.found not in kept])


def reach(earlier: list[Standing], reads: Callable[[Found], bool]) -> int:
    """How far back the nearest `PROVEN` releases stand that can be gone back to; all the way where there are fewer."""
    proven = 0
    for at, each in enumerate(earlier, start=1):
        proven += reads(each.found)
        if proven == PROVEN:
            return at
    return len(earlier)
