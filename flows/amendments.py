"""Releases that an erasure replaced: the same number, the same contents less what was erased, another id.

An `erase` entry that amends a release names the old one in its evidence ("amends"); the new one is what is live after it, or its
candidate where the release that it amends is not the live one.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tasks.errors import InputError

if TYPE_CHECKING:
    from flows.ledger import Draft, Entry

AMENDS = "amends"


def amends(entry: "Entry") -> list[tuple[str, str]]:
    """(old, new) of an entry that amends a release; none of any other."""
    if entry.action != "erase" or AMENDS not in entry.evidence:
        return []
    return [(entry.evidence[AMENDS], str(entry.candidate or entry.release))]


def pairs(entries: Iterable["Entry"]) -> list[tuple[str, str]]:
    return [pair for entry in entries for pair in amends(entry)]


def replaced(entries: Iterable["Entry"]) -> dict[str, str]:
    """Every release that was amended -> what stands for it now, over as many erasures as there were."""
    found: dict[str, str] = {}
    for old, new in pairs(entries):
        found = {first: new if last == old else last for first, last in found.items()} | {old: new}
    return found


def origin(entries: Iterable["Entry"], release: str) -> str:
    """The release as it was promoted, whatever became of it by erasures."""
    before = {new: old for old, new in pairs(entries)}
    while release in before:
        release = before[release]
    return release


def amendment(entries: Iterable["Entry"], release: str) -> "Entry":
    """The entry by which this release stands for another."""
    return next(entry for entry in entries if release in (new for _, new in amends(entry)))


def check_erasure(draft: "Draft", before: tuple[str | None, int | None, int | None]) -> None:
    """Raises InputError for an `erase` entry that makes another release live than the live one, or that one amended."""
    replaces = draft.candidate is None and draft.evidence.get(AMENDS) == before[0] is not None and draft.number == before[1]
    if draft.action == "erase" and not replaces and (draft.release, draft.number, draft.version) != before:
        raise InputError("an erasure leaves live what was, or names the live release as the one that it amends")
