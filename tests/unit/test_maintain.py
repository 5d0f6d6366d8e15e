"""Maintenance on real stores and a real ledger, without servers; the flow itself: tests/pipeline/test_maintain_chain.py."""

import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import tiny
from hashing import HashEmbedder, vectors_of
from test_index_faults import corpus
from workspace import candidate_of, settings_of, write_adapter, write_workspace

import tasks.upkeep
from flows import doctor, housekeeping, indexes, ledger
from flows.candidate import as_release
from flows.ledger import Draft, Entry, Found
from flows.maintain import report
from flows.opening import open_release
from flows.promotion import scratch
from flows.retention import Choice
from flows.rollback import choose_target
from flows.settings import Settings
from flows.store import seal_file, seal_folder
from tasks.embedding import VectorStore, vector_key
from tasks.errors import InputError, IntegrityError, TandemError
from tasks.index import bring_up_to_date, describe
from tasks.index import settings as table_settings
from tasks.manifest import release_id, render
from tasks.params import IndexParams
from tasks.params_files import load
from tasks.records import folder_digest, write_json, write_jsonl
from tasks.search import open_version
from tasks.tables import only_writer


@pytest.fixture(scope="module")
def six(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six releases, one every ten days, the last of them today: each with other documents and another adapter."""
    return write_releases(tmp_path_factory.mktemp("six") / "clone", 6)


@pytest.fixture
def settings(six: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    monkeypatch.setattr(tasks.upkeep, "LOCAL_GRACE", 0.1)
    root = Path(shutil.copytree(six, tmp_path / "clone"))
    with tiny.inside(root):
        yield settings_of(root)


def model(settings: Settings) -> Any:
    embedder = HashEmbedder()
    embedder.digest = folder_digest(settings.root / "data/models/embedder")
    return embedder


def build(settings: Settings, start: int) -> dict[str, Any]:
    """The workspace's index over 40 passages from `start` on."""
    params = load(IndexParams, settings.root / "params")
    passages, embedder = corpus(start, start + 40), model(settings)
    manifest = describe(passages, embedder.identity(), table_settings(params))
    with only_writer(settings.index_uri):
        bring_up_to_date(settings.index_uri, manifest, passages, embedder, settings.vectors, params)
    write_json(settings.root / "data/index/manifest.json", manifest)
    return manifest


def write_releases(root: Path, count: int) -> Path:
    root.mkdir()
    write_workspace(root)
    with tiny.inside(root):
        for number in range(1, count + 1):
            promote(settings_of(root), number)
    return root


def promote(settings: Settings, number: int) -> Entry:
    build(settings, 5 * number)
    write_adapter(settings.root, float(number))
    candidate = candidate_of(settings.root)
    made = as_release(candidate, "rag+lora")
    for folder in (candidate.base, candidate.embedder, candidate.adapter):
        seal_folder(settings.store, folder)
    seal_file(settings.store, render(made).encode())
    indexes.seal_rows(settings, made)
    entries = ledger.read(settings.ledger)
    at = datetime.now(UTC) - timedelta(days=10 * (6 - number))
    draft = Draft(
        action="promote", release=release_id(made), number=ledger.number_for(entries, release_id(made)), version=number,
        candidate=None, who="ada", why="better", at=at.isoformat(timespec="seconds"),
        evidence={"report": seal_file(settings.store, f"report {number}".encode())}, runs={},
    )  # fmt: skip
    return ledger.append(settings.ledger, draft, len(entries))


def maintain(settings: Settings, keep: int = 1, days: int = 0) -> Choice:
    """The steps of the flow."""
    choice, broken = housekeeping.settle(settings, keep, days)
    housekeeping.retire(settings, choice, "old", "run")
    housekeeping.free_index(settings, choice.kept, bool(broken))
    housekeeping.free_store(settings, choice.kept)
    housekeeping.free_scratch(settings, choice.kept)
    housekeeping.check(settings, choice.kept, broken)
    return choice


def numbers(found: list[Found]) -> list[int]:
    return [each.number for each in found]


def adapters(settings: Settings) -> int:
    return len(list((settings.store / "objects").glob("*/adapter_model.safetensors")))


def health(settings: Settings) -> list[doctor.Finding]:
    return list(doctor.history(settings))


def test_what_is_dropped_is_gone_from_every_place_and_what_stays_is_whole(settings: Settings) -> None:
    before = housekeeping.sizes(settings)
    choice = maintain(settings)
    assert (numbers(choice.kept), numbers(choice.dropped)) == ([6, 5, 4], [3, 2, 1])
    assert health(settings) == []
    assert adapters(settings) == 3 and len(list((settings.store / "objects").iterdir())) == 5
    after = housekeeping.sizes(settings)
    assert after["index"] < before["index"] and after["store"] < before["store"]
    for found in choice.kept:
        pinned = housekeeping.pinned(settings, found).index
        assert open_version(settings.index_uri, pinned.model_dump()).count_rows() == 40


def test_a_dropped_release_is_refused_by_name_and_its_history_stays(settings: Settings) -> None:
    maintain(settings)
    entries = ledger.read(settings.ledger)
    assert [entry.action for entry in entries] == ["promote"] * 6 + ["retire"]
    for ask in (lambda: open_release(settings, "2"), lambda: choose_target(entries, "2")):
        with pytest.raises(InputError, match="release 2 was dropped by maintenance on"):
            ask()
    assert choose_target(entries, None).number == 5
    for entry in entries:
        for digest in (entry.release, *entry.evidence.values()):
            assert (settings.store / "files" / str(digest)).is_file()


def test_a_second_maintenance_finds_nothing_to_do(settings: Settings) -> None:
    maintain(settings)
    held, entries = housekeeping.sizes(settings), ledger.read(settings.ledger)
    assert numbers(maintain(settings).dropped) == []
    assert ledger.read(settings.ledger) == entries
    again = housekeeping.sizes(settings)
    assert all(abs(again[place] - held[place]) <= 0.1 * held[place] for place in held)


def test_releases_of_the_last_days_stay_and_with_them_all_that_they_need(settings: Settings) -> None:
    choice = maintain(settings, keep=1, days=45)
    assert numbers(choice.kept) == [6, 5, 4, 3, 2, 1]  # number 1 was live until 40 days ago
    choice = maintain(settings, keep=1, days=35)
    assert numbers(choice.dropped) == [1]
    assert health(settings) == []


def test_beside_a_broken_live_release_nothing_is_freed(settings: Settings) -> None:
    flip(adapter_of(settings, 6))
    held = housekeeping.sizes(settings)
    with pytest.raises(IntegrityError, match=r"the live release 6 does not read, nothing was freed: .*adapter_model"):
        maintain(settings)
    assert housekeeping.sizes(settings) == held and len(ledger.read(settings.ledger)) == 6


def test_a_release_that_does_not_read_does_not_count_as_one_to_go_back_to(settings: Settings) -> None:
    flip(adapter_of(settings, 5))
    choice, broken = housekeeping.settle(settings, 1, 0)
    assert numbers(choice.kept) == [6, 5, 4, 3] and list(broken) == [5]
    held = housekeeping.sizes(settings)["vectors"]
    maintain(settings)
    assert housekeeping.sizes(settings)["vectors"] == held  # its index may have to be made again
    assert [finding.where[:9] for finding in health(settings)] == ["release 5"]


def adapter_of(settings: Settings, number: int) -> Path:
    entry = ledger.read(settings.ledger)[number - 1]
    pinned = housekeeping.pinned(settings, Found(str(entry.release), number))
    assert pinned.adapter is not None
    return settings.store / "objects" / pinned.adapter.digest / "adapter_model.safetensors"


def flip(path: Path) -> None:
    path.chmod(0o600)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def test_what_waits_in_the_workspace_is_kept(settings: Settings) -> None:
    """A build that was not promoted yet, and passages that were embedded for one that was interrupted."""
    waiting = build(settings, 900)
    write_jsonl(settings.root / "data/chunks/passages.jsonl", corpus(2000, 2010))
    texts = [passage["embedded"] for passage in corpus(2000, 2010)]
    store = VectorStore(settings.vectors, model(settings).digest)
    store.put(texts, vectors_of(texts))
    maintain(settings)
    assert open_version(settings.index_uri, waiting).count_rows() == 40
    assert store.missing(texts) == []
    assert store.missing([passage["embedded"] for passage in corpus(900, 940)]) == []
    assert len(store.missing([passage["embedded"] for passage in corpus(0, 20)])) == 20  # of release 3 and older alone
    assert vector_key(store.embedder, texts[0]) == store.key(texts[0])


def test_scratch_folders_are_removed_but_for_the_live_releases_answers(settings: Settings) -> None:
    live = str(ledger.read(settings.ledger)[-1].release)
    kept = settings.home / "scratch" / f"champion-{live[:12]}-abc"
    old = settings.home / "scratch" / f"champion-{'0' * 12}-abc"
    for folder in (kept, old, scratch(settings, "challenge")):
        write_json(folder / "report.json", {})
    maintain(settings)
    assert [path.name for path in housekeeping.below(settings.home / "scratch")] == [kept.name]


def test_what_a_killed_process_had_half_written_is_removed_a_day_later(settings: Settings) -> None:
    old, new, whole = (settings.home / "kept" / name for name in (".a.json.12.tmp", ".b.json.13.tmp", "a.json"))
    for path in (old, new, whole):
        path.parent.mkdir(exist_ok=True)
        path.write_text("{}")
    os.utime(old, (0, 0))
    os.utime(whole, (0, 0))
    housekeeping.free_scratch(settings, [])
    assert not old.exists() and new.exists() and whole.exists()


def test_without_a_release_only_the_workspace_counts(settings: Settings) -> None:
    shutil.rmtree(settings.ledger)
    assert maintain(settings) == Choice([], [])
    assert housekeeping.below(settings.store / "objects") == []
    manifest = build(settings, 30)  # as it stood: its version was kept
    assert open_version(settings.index_uri, manifest).count_rows() == 40


def test_a_promotion_in_between_stops_the_retirement(settings: Settings) -> None:
    choice, _ = housekeeping.settle(settings, 1, 0)
    moved = Choice(choice.kept, [choice.kept[0]])  # what was judged droppable is live now
    with pytest.raises(TandemError, match="not live now"):
        housekeeping.retire(settings, moved, "old", "run")


def test_a_dropped_release_that_is_made_again_is_whole_again(settings: Settings) -> None:
    maintain(settings)
    entry = promote(settings, 2)
    assert entry.number == 2
    assert choose_target(ledger.read(settings.ledger), "6").number == 6
    assert health(settings) == []
    assert numbers(maintain(settings).kept) == [2, 6, 5]


def test_the_report_names_numbers_bytes_and_what_does_not_read() -> None:
    choice = Choice([Found("a" * 64, 6), Found("b" * 64, 5)], [Found("c" * 64, 3)])
    made = report(choice, {5: "it is torn"}, 7, {"index": 3_000_000}, {"index": 1_000_000})
    assert (made["kept"], made["dropped"], made["bytes"]) == ([6, 5], [3], {"index": [3_000_000, 1_000_000]})
    assert made["says"].splitlines() == [
        "kept releases 5, 6, dropped release 3, 7 vectors forgotten",
        "index 3.0 MB -> 1.0 MB",
        "release 5 does not read: it is torn",
    ]
    assert report(Choice([], []), {}, 0, {}, {})["findings"] == []


def test_a_store_that_is_not_on_this_machine_has_no_size(settings: Settings) -> None:
    assert set(housekeeping.sizes(settings)) == {"index", "store", "vectors", "scratch"}
    assert "index" not in housekeeping.sizes(replace(settings, index_uri="s3://bucket/index"))


def test_a_lost_tag_is_set_again_on_the_version_that_holds_the_rows(settings: Settings) -> None:
    release = housekeeping.pinned(settings, ledger.find(ledger.read(settings.ledger), "2"))
    indexes.table_of(settings, release).tags.delete(release.index.tag)
    found = health(settings)
    assert len(found) == 1 and found[0].where.startswith("release 2 ") and found[0].mend == "tandem doctor --mend"
    done = doctor.mend_indexes(settings, ledger.read(settings.ledger))
    assert len(done) == 1 and re.fullmatch(r"release 2: version \d+ of its table tagged rows-[0-9a-f]{32} again", done[0])
    assert health(settings) == []


def test_rows_that_are_nowhere_need_a_backup_and_those_of_the_workspace_a_build(settings: Settings) -> None:
    shutil.rmtree(settings.index_uri)
    mends = {finding.where.split()[1]: finding.mend for finding in health(settings)}
    assert mends.keys() == set("123456")
    assert mends["6"] == "dvc checkout data/chunks && dvc repro --force --single-item index"
    assert all(mends[number].startswith(f"restore {settings.index_uri} from a backup") for number in "12345")
    assert doctor.mend_indexes(settings, ledger.read(settings.ledger)) == []
