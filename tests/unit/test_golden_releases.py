"""What an earlier Tandem released is read by this one, to the last byte; what a later one made is refused with what to do."""

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import tiny

from flows import indexes, ledger, listing
from flows.opening import manifest_text, open_release
from flows.settings import Settings, read_settings
from tasks.errors import IntegrityError
from tasks.manifest import load_release, release_id, render
from tasks.records import text_digest

GOLDEN = sorted(path for path in (tiny.ROOT / "tests/golden").iterdir() if path.is_dir())


@pytest.fixture(params=GOLDEN, ids=[path.name for path in GOLDEN])
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Settings]:
    (tmp_path / "params").mkdir()
    shutil.copyfile(tiny.ROOT / "dvc.yaml", tmp_path / "dvc.yaml")
    shutil.copytree(request.param, tmp_path / ".tandem")
    with tiny.inside(tmp_path):
        yield read_settings({})


def test_there_is_one_of_every_format_that_is_read() -> None:
    assert [path.name for path in GOLDEN] == [str(number) for number in range(1, ledger.FORMAT + 1)]


def test_a_golden_release_opens_and_keeps_its_name(settings: Settings) -> None:
    entries = ledger.read(settings.ledger)
    assert [entry.action for entry in entries] == ["promote", "promote", "refuse", "rollback"]
    for found in ledger.known(entries):
        assistant, number = open_release(settings, str(found.number))
        assert (assistant.release_id, number) == (found.release, found.number)
        text = manifest_text(settings, found.release)
        assert render(load_release(text)) == text and release_id(load_release(text)) == text_digest(text) == found.release
        assert listing.check(settings, assistant.release.index.model_dump())
        indexes.open_rows(settings, assistant.release)


def test_whatever_a_newer_tandem_made_is_refused_with_what_to_do(settings: Settings) -> None:
    entries = ledger.read(settings.ledger)
    text = manifest_text(settings, str(entries[0].release))
    newer = [settings.ledger / "000004.json", listing.place(settings, load_release(text).index.model_dump())]
    for path in newer:
        path.write_text(path.read_text().replace('"format": 1', '"format": 2').replace('"format":1', '"format":2'))
    for read in (
        lambda: load_release(text.replace('"format":1', '"format":2')),
        lambda: ledger.read(settings.ledger),
        lambda: listing.read(newer[1]),
    ):
        with pytest.raises(IntegrityError, match=r"was made by a newer Tandem \(format 2; this one reads 1\): upgrade"):
            read()
