"""What an erasure still has to remove: the ids of the pages and the lines that tell that a file holds them.

The one place that knows them once the tombstone stands; a file of its own below TANDEM_HOME, for this user alone, the last to go.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flows import ledger
from flows.erasures import ERASURE
from flows.lock import private_folder
from flows.settings import Settings
from tasks.canary import Canary, canary
from tasks.records import read_json, write_json


class Pending(NamedTuple):
    """`erasure`: digest of the sealed erasure, which the ledger entry names."""

    erasure: str
    documents: list[str]
    lines: list[str]


def folder(settings: Settings) -> Path:
    return settings.home / "erasing"


def note(settings: Settings, pending: Pending) -> None:
    private_folder(folder(settings))
    write_json(folder(settings) / f"{pending.erasure}.json", pending._asdict())


def standing(settings: Settings) -> list[Pending]:
    """Of erasures whose tombstone stands. One that died before its ledger entry was none: what it noted goes."""
    files = sorted(folder(settings).glob("*.json"))
    named = {entry.evidence.get(ERASURE) for entry in ledger.read(settings.ledger)} if files else set()
    for file in files:
        if file.stem not in named:
            file.unlink()
    return [Pending(**read_json(file)) for file in files if file.stem in named]


def done(settings: Settings, pending: Sequence[Pending]) -> None:
    for each in pending:
        (folder(settings) / f"{each.erasure}.json").unlink(missing_ok=True)


def lines_of(pending: Sequence[Pending]) -> Canary:
    return canary(line for each in pending for line in each.lines)


def wanted(settings: Settings, pending: Sequence[Pending]) -> Canary:
    """Lines and ids, less what pages say that stay: another page may name the one that went."""
    every = canary((line for each in pending for line in each.lines), (page for each in pending for page in each.documents))
    stays = [path for path in (settings.root / "data/raw").rglob("*") if path.is_file()]
    for path in stays:
        content = path.read_bytes()
        every = Canary({form: instead for form, instead in every.forms.items() if form not in content})
    return every
