"""Erased text is found in every form in which a file can hold it, and nothing else is."""

import gzip
import html
import json
import sqlite3
import zipfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import tasks.canary
from tasks.canary import blot_database, canary, in_database, in_file, own_lines

TEXT = 'Zanzibar\'s "quokka" lives <here> – 29 days\nand sleeps.'


def plain(path: Path) -> None:
    path.write_text(f"before {TEXT} after", encoding="utf-8")


def as_json(path: Path) -> None:
    path.write_text(json.dumps({"text": TEXT}), encoding="utf-8")


def as_readable_json(path: Path) -> None:
    path.write_text(json.dumps({"text": TEXT}, ensure_ascii=False), encoding="utf-8")


def json_in_json(path: Path) -> None:
    path.write_text(json.dumps(json.dumps({"text": TEXT}, ensure_ascii=False), ensure_ascii=False), encoding="utf-8")


def as_html(path: Path) -> None:
    path.write_text(f"<p>{html.escape(TEXT)}</p>", encoding="utf-8")


def on_one_line(path: Path) -> None:
    path.write_text(" ".join(TEXT.split()), encoding="utf-8")


def zipped(path: Path) -> None:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("word/document.xml", TEXT)


def gzipped(path: Path) -> None:
    path.write_bytes(gzip.compress(TEXT.encode()))


def database(path: Path) -> None:
    """A row so long that SQLite keeps it in pieces."""
    with closing(sqlite3.connect(path)) as made, made:
        made.execute("CREATE TABLE told (id INTEGER PRIMARY KEY, said TEXT, raw BLOB)")
        made.execute("INSERT INTO told (said) VALUES (?)", ("x" * 4070 + TEXT + "y" * 9000,))


@pytest.mark.parametrize(
    "write", [plain, as_json, as_readable_json, json_in_json, as_html, on_one_line, zipped, gzipped, database]
)
def test_it_is_found_however_it_is_written(write: Callable[[Path], None], tmp_path: Path) -> None:
    path = tmp_path / "file"
    write(path)
    assert in_file(path, canary([TEXT]))
    assert not in_file(path, canary(["Zanzibar's other animal"]))


def test_it_is_found_where_two_blocks_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.canary, "BLOCK", 64)
    path = tmp_path / "file"
    for before in range(50, 70):
        path.write_text("x" * before + "a canary that is longer than the rest of its block is wide" + "y" * 40)
        assert in_file(path, canary(["a canary that is longer than the rest of its block is wide"])), before


def test_what_only_looks_packed_is_searched_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"\x1f\x8b no gzip at all")
    assert in_file(path, canary(["no gzip at all"])) and not in_file(path, canary(["another"]))


def test_an_id_is_found_as_an_id_and_not_as_a_word_or_the_start_of_another() -> None:
    wanted = canary([], ["van"])
    for held in (b'{"document": "van"}', b'"documents/van.md"', b"<td>van</td>", b"van (0.731)", b'{\\"page\\": \\"van\\"}'):
        assert wanted.within(held), held
    for other in (b"the van leaves", b'"vanilla"', b'"documents/vans.md"', b"caravan (2)"):
        assert not wanted.within(other), other


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=30).filter(lambda name: name.strip()))
def test_what_is_blotted_is_found_no_more_and_json_stays_json(name: str) -> None:
    wanted = canary([], [name])
    for ascii_only in (True, False):
        told = json.dumps({"document": name, "other": "kept"}, ensure_ascii=ascii_only).encode()
        left = wanted.blotted(told)
        assert not wanted.within(left) or name in ("[erased]", "other", "kept", "document")
        assert isinstance(json.loads(left), dict)


def test_a_database_is_overwritten_row_by_row_and_its_freed_pages_too(tmp_path: Path) -> None:
    path = tmp_path / "told.db"
    database(path)
    wanted = canary([TEXT])
    assert in_database(path, wanted) == ['"told"."said"']
    assert blot_database(path, wanted) == 1
    assert not in_file(path, wanted) and b"quokka" not in path.read_bytes()
    with closing(sqlite3.connect(path)) as made:
        assert made.execute("SELECT length(said) FROM told").fetchone() == (4070 + len("[erased]") + 9000,)


def test_lines_that_another_page_says_as_well_tell_nothing() -> None:
    rows = [{"text": "Ask the office for more details.\nOnly here it says that quokkas bite."}]
    pairs = [{"question": "Do the quokkas of Zanzibar bite?", "answer": "short"}]
    lines = own_lines(rows, pairs, ["About vans.\nAsk the office for more details."])
    assert "Only here it says that quokkas bite." in lines and "Do the quokkas of Zanzibar bite?" in lines
    assert "Ask the office for more details." not in lines and "short" not in lines
