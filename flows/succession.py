"""What the ledger's moves mean for the next one: which releases stand behind the live one, and which a person went back from."""

from collections.abc import Iterable
from itertools import pairwise
from typing import NamedTuple

from flows.amendments import amendment, amends, origin
from flows.ledger import Entry, Found

Withdrawn = dict[str, Entry]  # release -> the rollback that left it


class Succession(NamedTuple):
    """`line`: the releases that led to the live one, which is its last. A release that was rolled back from is not in it."""

    line: list[Found]
    withdrawn: Withdrawn


def succession(entries: Iterable[Entry]) -> Succession:
    """A promotion follows what was live. A rollback along the line withdraws what it leaves; one to a release that had been
    withdrawn is a person's choice to have it back after all, and withdraws nothing."""
    line: list[Found] = []
    withdrawn: Withdrawn = {}
    for entry in entries:
        for old, new in amends(entry):
            line = [Found(new, each.number) if each.release == old else each for each in line]
            withdrawn |= {new: withdrawn[old]} if old in withdrawn else {}
        if entry.release is None or entry.number is None or (line and line[-1].release == entry.release):
            continue  # refusals and retirements leave live what was
        found = Found(entry.release, entry.number)
        withdrawn.pop(found.release, None)
        if entry.action == "rollback" and found in line:
            withdrawn[line[-1].release] = entry
            del line[line.index(found) + 1 :]
        else:
            line = [each for each in line if each != found] + [found]
    return Succession(line, withdrawn)


def moves(entries: list[Entry]) -> list[Entry]:
    """Those that made something live: no refusal or retirement, and no override that left live what was."""
    stayed = [before.release == entry.release for before, entry in pairwise(entries)]
    pairs = zip(entries, [False, *stayed], strict=True) if entries else ()
    return [
        entry for entry, same in pairs if entry.action not in ("refuse", "retire") and not (entry.action == "override" and same)
    ]


def moved(entries: list[Entry], release: str) -> Entry:
    """The newest entry by which this release became live."""
    became = (entry for entry in reversed(moves(entries)) if entry.release == release)
    return next(became, None) or amendment(entries, release)


def promotion_of(entries: list[Entry], release: str) -> Entry:
    """The newest entry that promoted this release. For one that amends it: as if it had been promoted as it is now, with
    the golden answers that it gave when it was amended."""
    first = origin(entries, release)
    found = next(entry for entry in reversed(entries) if entry.action == "promote" and entry.release == first)
    if first == release:
        return found
    golden = {"golden": amendment(entries, release).evidence["golden"]}
    return found.model_copy(update={"release": release, "evidence": dict(found.evidence) | golden})
