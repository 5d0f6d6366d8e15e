"""What doctor finds in files that a crash tore or somebody changed, and that --mend mends it: no server, no model."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny
from standins import into_cache, lock_outputs
from test_index_faults import corpus
from test_maintain import write_releases
from workspace import settings_of

from flows import doctor, indexes, ledger, listing, metadata
from flows.finding import Finding
from flows.settings import Settings, prepare
from flows.store import seal_file
from tasks.manifest import Release, load_release
from tasks.records import write_jsonl, write_text
from tasks.table_files import manifest_path, table_folder


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = write_releases(tmp_path_factory.mktemp("released") / "clone", 2)
    shutil.copytree(tiny.ROOT / ".dvc", root / ".dvc", ignore=shutil.ignore_patterns("cache", "tmp", "config.local"))
    return root


@pytest.fixture
def settings(released: Path, tmp_path: Path) -> Iterator[Settings]:
    root = Path(shutil.copytree(released, tmp_path / "clone"))
    with tiny.inside(root):
        made = settings_of(root)
        prepare(made)
        yield made


def newest(settings: Settings) -> Release:
    entry = ledger.read(settings.ledger)[-1]
    return load_release((settings.store / "files" / str(entry.release)).read_text())


def table(settings: Settings) -> Path:
    return table_folder(settings.index_uri, newest(settings).index.table)


def found(settings: Settings) -> list[Finding]:
    return [*metadata.torn_files(settings), *doctor.torn_tables(settings), *doctor.history(settings)]


def mend(settings: Settings) -> list[str]:
    entries = ledger.read(settings.ledger)
    return [*metadata.mend_files(settings, entries, lambda pid: None), *doctor.mend_indexes(settings, entries)]


def test_a_newest_manifest_that_a_crash_tore_is_named_and_set_aside_and_its_rows_are_found(settings: Settings) -> None:
    """An empty one, as Lance leaves it when a machine loses power: no version of the table opens any more."""
    assert found(settings) == []
    release = newest(settings)
    indexes.table_of(settings, release).create_index("embedded", replace=True, config=fts())  # a version after that of the tag
    torn = min(table(settings).glob("_versions/*.manifest"))
    torn.write_bytes(b"")
    said = found(settings)
    assert str(torn) in said[0].what and said[0].mend == "tandem doctor --mend"
    assert len(said) == 3  # the table, and each release in it
    done = mend(settings)
    assert done[0] == f"{torn} is torn and was moved to {torn.stem}.torn"
    assert found(settings) == []


def fts() -> object:
    from lancedb.index import FTS

    return FTS()


def test_a_tag_of_a_version_that_is_gone_is_replaced_where_another_version_has_the_rows(settings: Settings) -> None:
    """As a maintenance leaves it that was killed between the old manifest and the new tag (R12, R13 of the fault list)."""
    release = newest(settings)
    again: Any = indexes.table_of(settings, release)
    again.checkout(release.index.tag)
    version = again.version
    again.restore()
    manifest_path(table(settings), version).unlink()
    assert [finding.mend for finding in found(settings)] == ["tandem doctor --mend"]
    assert len(mend(settings)) == 1
    assert found(settings) == []


def test_a_damaged_index_whose_passages_dvc_has_is_written_again(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from standins import FolderEmbedder

    import tasks.embedding

    monkeypatch.setattr(tasks.embedding, "Embedder", FolderEmbedder)
    locks = {str(entry.release): lock_with_passages(settings, 5 * entry.sequence) for entry in ledger.read(settings.ledger)}
    monkeypatch.setattr(doctor, "lock_of", lambda entries, found: locks[found.release])
    data = next((table(settings) / "data").glob("*.lance"))
    data.write_bytes(data.read_bytes()[:-40] + b"\0" + data.read_bytes()[-39:])
    assert all("expected sha256" in finding.what and finding.mend == "tandem doctor --mend" for finding in found(settings))
    done = mend(settings)
    assert "is damaged and was set aside" in done[0] and len(done) == 3
    assert found(settings) == []


def lock_with_passages(settings: Settings, start: int) -> str:
    write_jsonl(settings.root / "data/chunks/passages.jsonl", corpus(start, start + 40))
    lock = {"stages": {"chunks": {"outs": [into_cache(settings.root, "data/chunks")]}}}
    return seal_file(settings.store, json.dumps(lock).encode())


def test_an_index_from_before_there_were_lists_is_told_of_and_listed(settings: Settings) -> None:
    shutil.rmtree(settings.store / "index")
    said = found(settings)
    assert [finding.minor for finding in said] == [True, True] and "not listed by digest" in said[0].what
    assert mend(settings) == [f"release {number}: the files of its index listed by digest" for number in (1, 2)]
    assert found(settings) == []


def test_a_list_that_was_changed_is_made_again_once_the_rows_were_read(settings: Settings) -> None:
    path = listing.place(settings, newest(settings).index.model_dump())
    path.chmod(0o600)
    path.write_text(path.read_text().replace('"version":', '"version" :'))
    assert found(settings) == []  # only written otherwise
    path.write_text(path.read_text().replace("rows-", "rows+"))
    assert "was changed" in found(settings)[0].what
    mend(settings)
    assert found(settings) == []


@pytest.mark.parametrize("text", ["", "outs:\n- md5: 0123", "outs:\n", "md5: [", "\x00\x00"])
def test_a_pointer_of_dvc_that_was_cut_anywhere_is_found_and_written_again(settings: Settings, text: str) -> None:
    write_text(settings.root / "data/raw/documents/a.md", "a page")
    write_text(settings.root / "data/raw.dvc", text)
    assert [(finding.where, finding.mend) for finding in found(settings)] == [("DVC", "tandem doctor --mend")]
    assert mend(settings) == ["an interrupted ingest was put right"]
    assert "md5:" in (settings.root / "data/raw.dvc").read_text() and found(settings) == []


@pytest.mark.parametrize("text", ["", "schema: '2.0'\nstages:\n  index:\n    cmd: 'pyth", "schema: '2.0'\n"])
def test_a_lock_of_dvc_that_was_cut_is_that_of_the_live_release_again(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    evidence = {"dvc.lock": seal_file(settings.store, b"schema: '2.0'\nstages: {}\n")}
    live = ledger.read(settings.ledger)[-1].model_copy(update={"evidence": evidence})
    monkeypatch.setattr(metadata, "promotion_of", lambda entries, release: live)
    write_text(settings.root / "dvc.lock", text)
    assert [(finding.where, finding.mend) for finding in found(settings)] == [("DVC", "tandem doctor --mend")]
    assert mend(settings) == ["the torn dvc.lock is that of release 2 again"]
    assert found(settings) == []


def test_an_empty_lock_that_dvc_left_is_minor_and_stays_for_the_next_command(settings: Settings) -> None:
    write_text(settings.root / ".dvc/tmp/rwlock", "")
    said = found(settings)
    assert len(said) == 1 and said[0].minor and "rwlock is empty" in said[0].what
    assert (settings.root / ".dvc/tmp/rwlock").exists(), "looking changes nothing"


def test_objects_of_dvc_that_are_damaged_or_missing_are_named_and_the_damaged_go(settings: Settings, tmp_path: Path) -> None:
    """DVC hands a damaged one out without a word: from its cache, and from a remote that it is not told to verify."""
    for name in ("one", "two"):
        write_text(settings.root / f"data/chunks/{name}.jsonl", name)
    lock_outputs(settings.root)
    lock = seal_file(settings.store, (settings.root / "dvc.lock").read_bytes())
    assert list(metadata.object_faults(settings, [lock])) == []
    cache, remote = settings.root / ".dvc/cache/files/md5", tmp_path / "remote/files/md5"
    shutil.copytree(cache, remote)
    write_text(
        settings.root / ".dvc/config.local", f"[core]\n    remote = here\n['remote \"here\"']\n    url = {tmp_path / 'remote'}\n"
    )
    damaged, missing = (next(path for path in cache.glob("*/*") if path.read_bytes() == text) for text in (b"one", b"two"))
    damaged.write_bytes(b"One")
    missing.unlink()
    (remote / missing.relative_to(cache)).write_bytes(b"Two")
    said = list(metadata.object_faults(settings, [lock]))
    assert [(finding.where, finding.minor, finding.what.split(":")[0]) for finding in said] == [
        ("DVC's cache", False, "data/chunks/one.jsonl"),
        ("DVC's cache", True, "data/chunks/two.jsonl"),
        ("the remote here", False, "data/chunks/two.jsonl"),
        ("DVC", True, "the DVC remote here is not verified when pulled from"),
    ]
    assert said[3].mend == "dvc remote modify here verify true"
    assert len(metadata.mend_objects(settings, [lock])) == 2
    assert [finding.minor for finding in metadata.object_faults(settings, [lock])] == [True] * 4


def test_golden_questions_for_which_an_index_finds_other_pages_are_told() -> None:
    from tasks.errors import IntegrityError
    from tasks.golden import check_pages

    before = {f"q{number}": [f"page-{number}", "page-x"] for number in range(10)}
    check_pages(before, before)
    check_pages(before, before | {"q0": ["page-x", "page-0"]})  # rounding elsewhere
    with pytest.raises(IntegrityError, match=r"for 2 of 10 golden questions another page.*'q0' gave page-0, gives none"):
        check_pages(before, before | {"q0": [], "q1": ["page-x"]})


def test_what_is_minor_fails_only_the_strict_look(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from flows.cli import run

    finding = Finding("a run is RUNNING", "MLflow", "any flow", minor=True)
    monkeypatch.setattr(doctor, "examine", lambda settings, strict=False: [finding])
    assert run(["doctor"]) == 0
    assert "MLflow: a run is RUNNING (minor)\n    mend: any flow" in capsys.readouterr().out
    assert run(["doctor", "--strict"]) == 1
    assert "MLflow: a run is RUNNING\n    mend: any flow" in capsys.readouterr().out
