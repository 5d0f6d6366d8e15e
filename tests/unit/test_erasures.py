"""What stands in the way of an erased page: who answers, who is promoted, who is gone back to, what the evidence still says."""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny
from test_takeout import bury
from test_tombstones import answer, tombstones
from workspace import candidate_of, settings_of, write_workspace

from flows import copies, doctor, erasures, ledger, pending, purge
from flows.candidate import as_release
from flows.erasures import LIFTS, check_nothing_erased, check_unlearnt, told_without
from flows.evidence import open_evidence, replace_file, replacement
from flows.ledger import Draft, Found
from flows.pending import Pending
from flows.settings import Settings
from flows.store import seal_file
from tasks.canary import canary
from tasks.errors import InputError, IntegrityError, RefusedError
from tasks.records import canonical_json, write_json, write_text
from tasks.upkeep import LOCAL_GRACE


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    root = tmp_path / "clone"
    root.mkdir()
    write_workspace(root)
    with tiny.inside(root):
        yield settings_of(root)


def test_a_process_that_runs_for_days_sees_a_tombstone_as_soon_as_it_stands(settings: Settings) -> None:
    now = erasures.watching(settings)
    assert not now().covers("page-1")
    bury(settings, "page-1")
    assert now().covers("page-1") and not now().covers("page-2")
    bury(settings, "page-2")
    assert now().covers("page-1") and now().covers("page-2") and now() is now()


def test_where_a_sealed_erasure_is_gone_nothing_is_answered(settings: Settings) -> None:
    digest = bury(settings, "page-1")
    (settings.store / "files" / digest).unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        erasures.watching(settings)()


def test_a_person_can_lift_a_tombstone(settings: Settings) -> None:
    digest = bury(settings, "page-1")
    draft = Draft(
        action="override", release=None, number=None, version=None, candidate=None, who="ada", why="they agreed",
        at="2026-11-22T10:00:00+00:00", evidence={LIFTS: digest}, runs={},
    )  # fmt: skip
    ledger.append(settings.ledger, draft, 1)
    assert not erasures.standing(settings, ledger.read(settings.ledger)).erased


def test_a_candidate_with_an_erased_page_or_an_adapter_that_knew_it_is_refused(settings: Settings) -> None:
    standing, adapter = tombstones("page-1", passages=["p1"]), settings.root / "data/adapter"
    with pytest.raises(RefusedError, match=r"its index holds 1 erased pages \(page-1\)"):
        check_nothing_erased(standing, ["page-1", "page-2"], None)
    with pytest.raises(RefusedError, match="or does not say what it learnt from; train another: tandem retrain"):
        check_nothing_erased(standing, ["page-2"], adapter)
    write_json(adapter / "lineage.json", {"documents": ["page-2"], "questions": [], "passages": ["p1"]})
    with pytest.raises(RefusedError, match="learnt from a page that was erased on 2026-11-21"):
        check_nothing_erased(standing, ["page-2"], adapter)
    write_json(adapter / "lineage.json", {"documents": ["page-2"], "questions": [], "passages": ["p2"]})
    check_nothing_erased(standing, ["page-2"], adapter)


def test_a_release_whose_adapter_knew_it_is_not_gone_back_to(settings: Settings) -> None:
    release = as_release(candidate_of(settings.root), "rag+lora")
    assert release.adapter is not None
    with pytest.raises(InputError, match=r"the adapter of release 4 learnt .* erased on 2026-11-21 \(ledger entry 3: case 81\)"):
        check_unlearnt(tombstones("page-1", adapters=[release.adapter.digest]), Found("a" * 64, 4), release)
    check_unlearnt(tombstones("page-1"), Found("a" * 64, 4), release)


def test_an_explanation_that_showed_it_is_not_told(settings: Settings) -> None:
    standing = tombstones("page-1")
    assert not told_without(standing, {"sources": [{"page": "page-1"}]})
    assert not told_without(standing, {"passages": [{"page": "page-2"}, {"page": "page-1"}]})
    assert told_without(standing, {"sources": [{"page": "page-2"}], "passages": []})


def test_evidence_from_which_something_was_taken_is_read_by_its_old_digest(settings: Settings) -> None:
    first = seal_file(settings.store, b"a secret and another")
    second = replace_file(settings.store, first, b"[erased] and another")
    third = replace_file(settings.store, replacement(settings.store, first), b"[erased] and [erased]")
    assert open_evidence(settings.store, first) == b"[erased] and [erased]" and replacement(settings.store, first) == third
    assert sorted(path.name for path in (settings.store / "files").iterdir()) == [third] and second != third
    assert replace_file(settings.store, third, b"[erased] and [erased]") == third  # nothing to take out


@pytest.mark.parametrize(
    ("name", "content", "left"),
    [
        ("documents", {"page-1": "d1", "page-2": "d2"}, {"page-2": "d2"}),
        ("report", {"page": "page-1", "n": 3}, {"page": "[erased]", "n": 3}),
        ("verdict", {"says": "A quokka bites at night."}, {"says": "[erased]"}),
        (
            "manifest",
            {"prompt": {"shot_messages": {"rag": []}}, "arm": "rag"},
            {"prompt": {"shot_messages": {"rag": []}}, "arm": "rag"},
        ),
    ],
)
def test_evidence_keeps_what_it_proves_without_the_text(name: str, content: Any, left: Any) -> None:
    wanted = canary(["A quokka bites at night."], ["page-1"])
    assert json.loads(copies.blotted(name, canonical_json(content).encode(), wanted, tombstones("page-1"))) == left


def test_answers_lose_what_they_say_of_it(settings: Settings) -> None:
    lines = "".join(json.dumps(each) + "\n" for each in (answer("page-1", "page-1"), answer("page-2", "page-2"))).encode()
    told = [json.loads(line) for line in copies.blotted("answers", lines, canary([]), tombstones("page-1")).splitlines()]
    assert "29 days" not in str(told[0]) and told[0]["scores"] == {"fact": 1.0} and told[1] == answer("page-2", "page-2")


def test_versions_written_just_before_an_erasure_are_old_enough_to_go(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    waited: list[float] = []
    monkeypatch.setattr(time, "sleep", waited.append)
    for began in (time.monotonic(), time.monotonic() - LOCAL_GRACE):
        purge.outlast_grace(settings, began)
    purge.outlast_grace(replace(settings, index_uri="s3://bucket/index"), time.monotonic())
    assert LOCAL_GRACE - 1 < waited[0] <= LOCAL_GRACE and waited[1:] == [0.0]


def test_doctor_names_an_erasure_that_is_not_finished(settings: Settings) -> None:
    assert list(doctor.unfinished(settings)) == []
    pending.note(settings, Pending("f" * 64, ["page-1"], []))
    assert [finding.mend for finding in doctor.unfinished(settings)] == ["tandem maintain"]


def test_a_database_that_somebody_has_open_is_overwritten_with_its_log_and_stays_whole(settings: Settings) -> None:
    path = settings.home / "prefect/prefect.db"
    path.parent.mkdir(parents=True)
    other = settings.home / "logs/prefect.log"
    write_text(other, "A quokka bites at night.")
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("CREATE TABLE log (said TEXT, level INTEGER)")
        database.executemany("INSERT INTO log VALUES (?, 1)", [("A quokka bites at night.",), ("All is well.",)])
        database.commit()
        assert b"quokka" in path.with_name("prefect.db-wal").read_bytes()
        copies.clear_home(settings, canary(["A quokka bites at night."]))
        assert [row[0] for row in database.execute("SELECT said FROM log")] == ["[erased]", "All is well."]
        assert not any(b"quokka" in file.read_bytes() for file in copies.files_below(settings.home)) and not other.exists()


def test_outputs_of_stages_that_hold_it_go_and_the_others_stay(settings: Settings) -> None:
    data = settings.root / "data"
    write_text(data / "metrics/examples.json", "A quokka bites at night.")
    write_text(data / "documents/rejected.jsonl", "A quokka bites at night.")
    write_text(data / "models/base/vocab.json", "A quokka bites at night.")
    gone = copies.clear_workspace(settings, canary(["A quokka bites at night."]), index_gone=True)
    assert sorted(gone) == ["data/documents", "data/index", "data/metrics/examples.json"]
    assert (data / "metrics/index.json").exists() and (data / "models/base").exists() and not (data / "documents").exists()
