"""A release that cannot be gone back to: all that is wrong with it, and one that can."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from test_maintain import adapter_of, flip, write_releases
from workspace import settings_of

from flows import indexes, ledger, promotion, rollback
from flows.housekeeping import pinned
from flows.ledger import Entry
from flows.session import Session
from flows.settings import Settings
from tasks.errors import IntegrityError

prove: Any = rollback.prove.fn  # without a Prefect server


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four releases, promoted without golden answers."""
    return write_releases(tmp_path_factory.mktemp("four") / "clone", 4)


@pytest.fixture
def settings(four: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    root = Path(shutil.copytree(four, tmp_path / "clone"))
    monkeypatch.setattr(rollback, "promotion_of", lambda entries, release: Entry.model_construct(evidence={"golden": "0" * 64}))
    with tiny.inside(root):
        yield settings_of(root)


def said(settings: Settings, number: int) -> list[str]:
    entries = ledger.read(settings.ledger)
    with pytest.raises(IntegrityError) as found:
        prove(Session(settings, ""), ledger.find(entries, str(number)), entries)
    return str(found.value).splitlines()


def test_a_half_missing_release_is_refused_with_all_that_is_missing_and_the_next_good_one(settings: Settings) -> None:
    """F48."""
    release = pinned(settings, ledger.find(ledger.read(settings.ledger), "3"))
    indexes.table_of(settings, release).tags.delete(release.index.tag)
    shutil.rmtree(adapter_of(settings, 3).parent)
    head, adapter, index, last = said(settings, 3)
    assert head == "release 3 is no place to go back to, what is live stays so:"
    assert adapter.startswith("  adapter: ") and "is missing" in adapter
    assert release.index.tag in index
    assert last == "Release 2 reads and answers: tandem rollback --to 2 --reason ..."


def test_what_is_proposed_instead_reads_and_where_nothing_does_that_is_said(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "verify", unverified)
    assert said(settings, 3)[1:] == ["  it answers otherwise", "Release 2 reads and answers: tandem rollback --to 2 --reason ..."]
    flip(adapter_of(settings, 2))
    assert said(settings, 3)[-1].startswith("Release 1 reads and answers")
    flip(adapter_of(settings, 1))
    assert said(settings, 3)[-1] == "No other release before the live one reads; to mend what can be: tandem doctor --mend"


def unverified(*arguments: object) -> None:
    """What the process that asks the golden questions would say."""
    raise IntegrityError("it answers otherwise")
