import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import flows.ledger
from flows.ledger import Draft, Entry, append, file_name, find, live, number_for, parse, read, render, seal
from tasks.errors import ConflictError, InputError, IntegrityError, TandemError
from tasks.failpoints import PASSAGES, declared

ROOT = Path(flows.ledger.__file__).parents[1]
FAILPOINTS = declared(Path(flows.ledger.__file__))
ROUNDS = 50

A, B, C = "a1" * 32, "b2" * 32, "c3" * 32


def draft(**changes: Any) -> Draft:
    fields = {
        "action": "promote", "release": A, "number": 1, "version": 1, "candidate": None, "who": "ada",
        "why": "it is better", "at": "2026-01-31T09:30:00+00:00", "evidence": {"report": "e" * 64},
        "runs": {"mlflow": "12ab"},
    }  # fmt: skip
    return Draft.model_validate(fields | changes)


REFUSAL = draft(action="refuse", release=None, number=None, version=None, candidate=C, why="below the floors")


def history(folder: Path) -> list[Entry]:
    """A refusal, 1, 2, a refusal of C, back to 1."""
    append(folder, REFUSAL, 0)
    append(folder, draft(), 1)
    append(folder, draft(release=B, number=2, version=2), 2)
    append(folder, draft(action="refuse", release=B, number=2, version=2, candidate=C), 3)
    append(folder, draft(action="rollback", why="complaints"), 4)
    return read(folder)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_appended_is_read_back_in_order_and_the_newest_entry_is_live(tmp_path: Path) -> None:
    folder = tmp_path / "deep" / "ledger"
    assert read(folder) == [] and live([]) is None
    entries = history(folder)
    assert [entry.sequence for entry in entries] == [1, 2, 3, 4, 5]
    assert [entry.number for entry in entries] == [None, 1, 2, 2, 1]
    newest = live(entries)
    assert newest is not None and (newest.release, newest.number, newest.sequence) == (A, 1, 5)
    assert live(entries[:1]) is None
    assert names(folder) == [file_name(number) for number in range(1, 6)]
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {(folder / name).stat().st_mode & 0o777 for name in names(folder)} == {0o400}


TEXT = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
SHA = st.text("0123456789abcdef", min_size=64, max_size=64)


@given(
    TEXT,
    TEXT,
    st.dictionaries(TEXT, SHA, max_size=3),
    st.dictionaries(TEXT, TEXT, max_size=3),
    SHA,
    st.integers(1, 9**9),
)
def test_an_entry_reads_back_as_it_was_written(
    who: str, why: str, evidence: dict[str, str], runs: dict[str, str], previous: str, sequence: int
) -> None:
    entry = seal(draft(who=who, why=why, evidence=evidence, runs=runs), sequence, previous)
    assert parse(Path("ledger"), file_name(sequence), render(entry)) == entry


@settings(max_examples=30)
@given(st.lists(st.sampled_from([A, B, C]), max_size=6))
def test_a_release_keeps_its_number_and_new_ones_count_on(releases: list[str]) -> None:
    entries: list[Entry] = []
    for release in releases:
        number = number_for(entries, release)
        entries.append(seal(draft(release=release, number=number), len(entries) + 1, "0" * 64))
    first_seen = list(dict.fromkeys(releases))
    assert [entry.number for entry in entries] == [first_seen.index(release) + 1 for release in releases]


def test_who_judged_against_an_older_entry_gets_a_conflict_and_nothing_is_written(tmp_path: Path) -> None:
    append(tmp_path, draft(), 0)
    with pytest.raises(ConflictError, match=r"conflict: the ledger is now at entry 1 \(you judged against 0\).*run the same"):
        append(tmp_path, draft(release=B), 0)
    assert names(tmp_path) == ["000001.json"]


def test_a_ledger_shorter_than_it_was_is_damaged(tmp_path: Path) -> None:
    append(tmp_path, draft(), 0)
    with pytest.raises(IntegrityError, match="it ends at entry 1, but entry 3 was read before"):
        append(tmp_path, draft(), 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"action": "refuse", "release": A, "number": 1, "version": 1}, "a refusal carries"),
        ({"release": C, "number": 2}, "not 2"),
        ({"release": A, "number": 3}, "not 3"),
        ({"release": None, "number": None}, "a promotion names"),
        ({"action": "rollback", "release": C, "number": 3}, "that was live before"),
        ({"action": "rollback", "release": A, "number": 2}, "the old number of its release"),
        ({"action": "override", "release": None, "number": 3}, "both `release` and `number`"),
    ],
)
def test_a_draft_that_does_not_follow_is_refused_and_nothing_is_written(
    changes: dict[str, Any], message: str, tmp_path: Path
) -> None:
    before = history(tmp_path)[:3]
    for entry in (4, 5):
        (tmp_path / file_name(entry)).unlink()
    with pytest.raises(InputError, match=message):
        append(tmp_path, draft(**changes), 3)
    assert read(tmp_path) == before


@pytest.mark.parametrize("at", ["yesterday", "2026-01-31T09:30:00", "2026-01-31T09:30:00+01:00"])
def test_a_time_without_utc_is_no_time(at: str) -> None:
    with pytest.raises(ValueError):
        draft(at=at)


def test_any_flipped_byte_of_any_entry_is_found_and_its_entry_named(tmp_path: Path) -> None:
    entries = history(tmp_path)
    for entry in entries:
        path = tmp_path / file_name(entry.sequence)
        data = path.read_bytes()
        path.chmod(0o600)
        for offset in range(0, len(data), 13 if entry.sequence > 1 else 3):
            path.write_bytes(data[:offset] + bytes([data[offset] ^ 1]) + data[offset + 1 :])
            with pytest.raises(IntegrityError, match=path.name):
                read(tmp_path)
        path.write_bytes(data)
    assert read(tmp_path) == entries


def test_the_newest_entry_reformatted_without_another_value_is_found_too(tmp_path: Path) -> None:
    history(tmp_path)
    path = tmp_path / "000005.json"
    path.chmod(0o600)
    path.write_text(path.read_text().replace("\n  ", "\n   ", 1))
    with pytest.raises(IntegrityError, match=r"entry 000005\.json was changed"):
        read(tmp_path)


def test_a_missing_a_cut_and_a_renamed_entry_are_named_with_what_mends_them(tmp_path: Path) -> None:
    history(tmp_path / "whole")
    faults: dict[str, Callable[[Path], Any]] = {
        "entry 000002.json is missing": lambda folder: (folder / "000002.json").unlink(),
        "entry 000001.json is missing": lambda folder: (folder / "000001.json").unlink(),
        r"000003.json is torn": lambda folder: (folder / "000003.json").write_bytes(b""),
        "000004.json says that it is entry 3": lambda folder: shutil.copy(folder / "000003.json", folder / "000004.json"),
    }
    for number, (message, damage) in enumerate(faults.items()):
        folder = shutil.copytree(tmp_path / "whole", tmp_path / str(number))
        for path in folder.iterdir():
            path.chmod(0o600)
        damage(folder)
        with pytest.raises(IntegrityError, match=message) as raised:
            read(folder)
        assert "tandem doctor" in str(raised.value)
        with pytest.raises(IntegrityError):
            append(folder, draft(), 5)


def test_an_entry_rewritten_with_a_digest_of_its_own_breaks_the_chain_and_is_named(tmp_path: Path) -> None:
    entries = history(tmp_path)
    forged = seal(draft(release=B, number=2, version=2, who="eve"), 3, entries[2].previous)
    (tmp_path / "000003.json").chmod(0o600)
    (tmp_path / "000003.json").write_bytes(render(forged))
    with pytest.raises(IntegrityError, match=r"entry 000003\.json was replaced \(expected sha256 [0-9a-f]{64}, as 000004"):
        read(tmp_path)


def test_a_ledger_whose_beginning_was_cut_off_and_renumbered_is_refused(tmp_path: Path) -> None:
    (tmp_path / "000001.json").write_bytes(render(seal(draft(), 1, "9" * 64)))
    with pytest.raises(IntegrityError, match=r"000001\.json follows an entry that is gone"):
        read(tmp_path)


def test_an_entry_of_a_newer_format_asks_for_an_upgrade(tmp_path: Path) -> None:
    entry = json.loads(render(seal(draft(), 1, "0" * 64))) | {"format": 2, "colour": "blue"}
    (tmp_path / "000001.json").write_text(json.dumps(entry))
    with pytest.raises(IntegrityError, match=r"made by a newer Tandem \(format 2; this one reads 1\): upgrade"):
        read(tmp_path)


def test_other_files_in_the_folder_are_not_the_ledgers(tmp_path: Path) -> None:
    history(tmp_path)
    for name in ("README", "000006.json.bak", ".aside-1-ab", "6.json"):
        (tmp_path / name).write_text("{}")
    assert len(read(tmp_path)) == 5


@pytest.mark.parametrize("place", ["s3://bucket/ledger", "cos://x/y", "file:///tmp/ledger", Path("s3://bucket/ledger")])
def test_an_unknown_scheme_is_refused(place: Path | str) -> None:
    for use in (lambda: read(place), lambda: append(place, draft(), 0)):
        with pytest.raises(InputError, match=r"is not supported; set TANDEM_LEDGER to a folder"):
            use()


@pytest.mark.parametrize(
    ("name", "release"),
    [("1", A), ("2", B), (A, A), (B[:12], B), ("a1a1", A), ("seq:2", A), ("seq:3", B), ("seq:4", B), ("seq:5", A)],
)
def test_a_release_is_found_by_number_by_id_or_by_entry(name: str, release: str, tmp_path: Path) -> None:
    found = find(history(tmp_path), name)
    assert found == (release, {A: 1, B: 2}[release])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("7", r"there is no release 7; the nearest: 2 \(b2b2b2b2b2b2\), 1 \(a1a1a1a1a1a1\)"),
        ("a1ff", r"there is no release a1ff; the nearest: 1 \(a1"),
        (C[:12], r"c3c3c3c3c3c3 was never live; entry 4 tells"),
        ("seq:1", "nothing was live after ledger entry 1"),
        ("seq:9", "there is no ledger entry 9; they go from 1 to 5"),
        ("latest", "names no release; give its number"),
        ("", "names no release"),
        ("../1", "names no release"),
        ("A1A1", "names no release"),
        ("-1", "names no release"),
        ("1\n", "names no release"),
    ],
)
def test_a_name_that_finds_nothing_says_what_there_is(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=message):
        find(history(tmp_path), name)


def test_an_ambiguous_start_of_an_id_lists_what_it_could_be() -> None:
    twins = ["1234" + "0" * 60, "1234" + "f" * 60]
    entries = [seal(draft(release=twin, number=at), at, "0" * 64) for at, twin in enumerate(twins, start=1)]
    with pytest.raises(InputError, match=r"1234 is the start of 2 releases: 1 \(123400000000\), 2 \(1234ffffffff\); give more"):
        find(entries, "1234")
    assert find(entries, "12340").number == 1


def test_asking_before_there_is_a_release_says_how_to_make_one() -> None:
    for entries in ([], [seal(REFUSAL, 1, "0" * 64)]):
        with pytest.raises(InputError, match="there is no release yet; make one: tandem release"):
            find(entries, "1")


def promoter(folder: str, who: str, barrier: Any, results: Any) -> None:
    """Round after round: judge against what stands, then append the moment the other does."""
    for _ in range(ROUNDS):
        entries = read(folder)
        barrier.wait()
        try:
            entry = append(folder, draft(release=A, number=1, who=who), len(entries))
            results.put((entry.sequence, who, "won"))
        except ConflictError as error:
            assert "conflict: the ledger is now at entry" in str(error)
            results.put((len(entries) + 1, who, "conflict"))
        barrier.wait()


def test_of_two_promoters_released_together_exactly_one_commits_in_every_round(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    barrier, results = context.Barrier(2), context.Queue()
    children = [context.Process(target=promoter, args=(str(tmp_path), who, barrier, results)) for who in ("ada", "bob")]
    for child in children:
        child.start()
    outcomes = [results.get(timeout=60) for _ in range(2 * ROUNDS)]
    for child in children:
        child.join(timeout=60)
    entries = read(tmp_path)
    assert [entry.sequence for entry in entries] == list(range(1, ROUNDS + 1))
    for entry in entries:
        assert sorted(what for at, _, what in outcomes if at == entry.sequence) == ["conflict", "won"]
        assert (entry.sequence, entry.who, "won") in outcomes
    assert names(tmp_path) == [file_name(number) for number in range(1, ROUNDS + 1)]


def test_eight_threads_of_one_process_commit_each_entry_once(tmp_path: Path) -> None:
    barrier = threading.Barrier(8)
    won: list[int] = []

    def promote() -> None:
        barrier.wait()
        for expected in range(10):
            try:
                won.append(append(tmp_path, draft(), expected).sequence)
            except ConflictError:
                continue

    threads = [threading.Thread(target=promote) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(won) == list(range(1, 11)) == [entry.sequence for entry in read(tmp_path)]


CHILD = """
import sys
from flows.ledger import Draft, append
append(sys.argv[1], Draft.model_validate_json(sys.argv[2]), int(sys.argv[3]))
"""


def start(folder: Path, setting: str) -> subprocess.Popen[str]:
    """A process that appends entry 2."""
    environment = os.environ | {"TANDEM_FAILPOINT": setting, "PYTHONPATH": str(ROOT)}
    arguments = [sys.executable, "-c", CHILD, str(folder), draft(release=B, number=2).model_dump_json(), "1"]
    return subprocess.Popen(arguments, env=environment, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("action", ["kill", "raise"])
def test_a_promoter_that_dies_at_any_failpoint_leaves_the_entry_whole_or_not_at_all(action: str) -> None:
    assert len(FAILPOINTS) >= 5
    with tempfile.TemporaryDirectory() as place:
        folders = {name: Path(place) / name for name in FAILPOINTS}
        for folder in folders.values():
            append(folder, draft(), 0)
        children = {name: start(folder, f"{name}:{action}") for name, folder in folders.items()}
        for name, child in children.items():
            _, said = child.communicate(timeout=60)
            assert child.returncode == (-signal.SIGKILL if action == "kill" else 1), said
            check_aftermath(folders[name], committed=name in FAILPOINTS[FAILPOINTS.index("ledger.before-link") + 1 :])


@pytest.mark.parametrize("name", [name for name in FAILPOINTS if name != "ledger.after-clean"])  # where nothing is written
def test_a_full_disk_loses_nothing_and_the_error_says_what_where_and_how(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    append(tmp_path, draft(), 0)
    PASSAGES.clear()
    monkeypatch.setenv("TANDEM_FAILPOINT", f"{name}:enospc")
    with pytest.raises(TandemError) as caught:
        append(tmp_path, draft(release=B, number=2), 1)
    assert f"no space left on the disk (or in the quota) of {tmp_path}" in str(caught.value)
    assert "free some" in str(caught.value) and "run the same command again" in str(caught.value)
    monkeypatch.delenv("TANDEM_FAILPOINT")
    check_aftermath(tmp_path, committed=name in FAILPOINTS[FAILPOINTS.index("ledger.before-link") + 1 :])


def check_aftermath(folder: Path, committed: bool) -> None:
    entries = read(folder)
    assert len(entries) == (2 if committed else 1)
    append(folder, draft(release=B, number=2, why="again"), len(entries))
    assert len(read(folder)) == len(entries) + 1
    assert names(folder) == [file_name(number) for number in range(1, len(entries) + 2)], "an aside file was left"


def test_a_promoter_paused_before_its_link_loses_to_who_commits_meanwhile(tmp_path: Path) -> None:
    append(tmp_path, draft(), 0)
    child = start(tmp_path, "ledger.before-link:stop")
    os.waitpid(child.pid, os.WUNTRACED)
    append(tmp_path, draft(release=C, number=2, who="bob"), 1)
    assert len(names(tmp_path)) == 3, "what a living process holds aside must stay"
    os.kill(child.pid, signal.SIGCONT)
    _, said = child.communicate(timeout=60)
    assert "ConflictError: conflict: the ledger is now at entry 2 (you judged against 1)" in said
    assert [entry.release for entry in read(tmp_path)] == [A, C]
    assert names(tmp_path) == ["000001.json", "000002.json"]
