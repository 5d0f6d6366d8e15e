"""One byte changed anywhere in a release is found before it answers; what is sealed is on the disk before the ledger says so."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from test_maintain import build, write_releases
from workspace import candidate_of, judged, settings_of, write_evaluation

from flows import indexes, ledger, listing, promotion, steps
from flows.opening import live_entry, manifest_text, open_release
from flows.session import Session
from flows.settings import Settings
from flows.store import open_file
from tasks.errors import IntegrityError, TandemError
from tasks.manifest import load_release
from tasks.table_files import tagged_version

OFFSETS = 20  # of each file: the first and the last byte, and others drawn


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_releases(tmp_path_factory.mktemp("released") / "clone", 2)


@pytest.fixture
def settings(released: Path, tmp_path: Path) -> Iterator[Settings]:
    root = Path(shutil.copytree(released, tmp_path / "clone"))
    with tiny.inside(root):
        yield settings_of(root)


def index_of(settings: Settings) -> dict[str, Any]:
    identity = str(live_entry(ledger.read(settings.ledger)).release)
    return load_release(manifest_text(settings, identity)).index.model_dump()


def opens(settings: Settings) -> None:
    """What every loader does before it answers, and what doctor reads of the evidence."""
    for entry in ledger.read(settings.ledger):
        for digest in entry.evidence.values():
            open_file(settings.store, digest)
    open_release(settings)
    listing.check(settings, index_of(settings))


def files_of_the_release(settings: Settings) -> dict[str, list[Path]]:
    """By what they are of. The other release's own pieces are not among them."""
    identity = str(live_entry(ledger.read(settings.ledger)).release)
    release = load_release(manifest_text(settings, identity))
    index, evidence = release.index.model_dump(), live_entry(ledger.read(settings.ledger)).evidence
    listed = listing.read(listing.place(settings, index))
    assert listed is not None and release.adapter is not None
    digests = [release.base.digest, release.embedder.digest, release.adapter.digest]
    return {
        "ledger": sorted(settings.ledger.glob("*.json")),
        "store": [settings.store / "files" / digest for digest in (identity, *digests, *evidence.values())],
        "models": [path for digest in digests for path in sorted((settings.store / "objects" / digest).rglob("*"))],
        "index": [listing.folder_of(settings, index) / name for name in listed["files"]],
        "list": [listing.place(settings, index)],
    }


def offsets(size: int) -> list[int]:
    drawn = np.random.default_rng(0).integers(0, size, OFFSETS - 2)
    return sorted({0, size - 1, *(int(each) for each in drawn)})


def flipped(path: Path, at: int, check: Callable[[], object]) -> bool:
    """Whether `check` finds it; the file is then as it was."""
    whole = path.read_bytes()
    path.chmod(0o600)
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x10]) + whole[at + 1 :])
    try:
        check()
    except TandemError:
        return True
    finally:
        path.write_bytes(whole)
    return False


def test_one_byte_changed_in_any_file_of_a_release_is_found_before_it_answers(settings: Settings) -> None:
    opens(settings)
    files = files_of_the_release(settings)
    assert {kind for kind, paths in files.items() if paths} == {"ledger", "store", "models", "index", "list"}
    assert {path.parent.name for path in files["index"]} >= {"_versions", "data", "_deletions"}
    missed = [
        (str(path), at)
        for path in (path for paths in files.values() for path in paths)
        for at in offsets(path.stat().st_size)
        if not flipped(path, at, lambda: opens(settings))
    ]
    assert missed == []


def test_a_file_of_the_index_that_is_gone_or_cut_is_named(settings: Settings) -> None:
    for path in files_of_the_release(settings)["index"]:
        whole = path.read_bytes()
        for damage in (path.unlink, lambda path=path: path.write_bytes(b"")):
            damage()
            with pytest.raises(IntegrityError, match=rf"{path.name}.*expected sha256.*tandem doctor --mend"):
                open_release(settings)
            path.write_bytes(whole)


def test_a_changed_byte_in_a_tag_never_leads_to_other_rows(settings: Settings) -> None:
    """It says when it was made as well, and such a byte makes no difference."""
    release = load_release(manifest_text(settings, str(live_entry(ledger.read(settings.ledger)).release)))
    tag = listing.folder_of(settings, release.index.model_dump()) / "_refs/tags" / f"{release.index.tag}.json"
    for at in range(len(tag.read_bytes())):
        if not flipped(tag, at, lambda: indexes.open_rows(settings, release)):
            assert tagged_version(tag.parents[2], release.index.tag) is not None


def test_a_file_that_was_damaged_before_the_next_release_was_listed_stops_it(settings: Settings) -> None:
    """Versions share files: what an older list says of one holds."""
    shared = next(path for path in files_of_the_release(settings)["index"] if path.parent.name == "data")
    manifest = build(settings, 10)
    shared.write_bytes(shared.read_bytes()[:-1] + b"x")
    with pytest.raises(IntegrityError, match=f"{shared.name}: expected sha256"):
        listing.note(settings, manifest)


# --- fsync before the commit point


def test_everything_that_is_sealed_is_on_the_disk_before_the_ledger_entry(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lance itself fsyncs nothing. Recorded are the real calls, in their order, up to the link that is the commit point."""
    build(settings, 30)
    write_evaluation(settings.root, fact=1.0)
    for place in (settings.ledger, settings.store):  # else what was sealed before would not be written again
        shutil.rmtree(place)
    candidate, judgement = candidate_of(settings.root), judged(settings)
    synced: set[tuple[int, int]] = set()
    at_the_commit: list[set[tuple[int, int]]] = []
    real_sync, real_link = os.fsync, os.link

    def sync(descriptor: int) -> None:
        real_sync(descriptor)
        synced.add(identity_of(os.fstat(descriptor)))

    def link(source: Path, target: Path) -> None:
        at_the_commit.append(set(synced))
        real_link(source, target)

    monkeypatch.setattr(os, "fsync", sync)
    monkeypatch.setattr(os, "link", link)
    evidence = steps.seal.fn(Session(settings, "run"), candidate, judgement)
    promotion.commit(settings, judgement, 1, evidence, {})

    files = files_of_the_release(settings)
    tag = listing.folder_of(settings, index_of(settings)) / "_refs/tags" / f"{judgement.release.index.tag}.json"
    sealed = [*(path for kind, paths in files.items() if kind != "ledger" for path in paths if path.is_file()), tag]
    folders = {path.parent for path in sealed}
    assert len(at_the_commit) == 1 and len(sealed) > 20
    assert [path for path in [*sealed, *folders] if identity_of(path.stat()) not in at_the_commit[0]] == []


def identity_of(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
