import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.errors import InputError
from tasks.records import (
    canonical_json,
    folder_digest,
    folder_digests,
    read_json,
    read_jsonl,
    value_digest,
    write_json,
    write_jsonl,
    write_text,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"]))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(records=st.lists(st.dictionaries(TEXT, VALUES, max_size=4), max_size=5))
def test_what_is_written_as_json_lines_is_read_back_whatever_stands_in_it(
    tmp_path_factory: pytest.TempPathFactory, records: list[dict[str, Any]]
) -> None:
    path = tmp_path_factory.getbasetemp() / "records.jsonl"
    write_jsonl(path, records)
    assert read_jsonl(path) == records


@settings(deadline=None)
@given(value=st.dictionaries(TEXT, VALUES, min_size=2, max_size=5))
def test_a_digest_does_not_depend_on_the_order_of_keys(value: dict[str, Any]) -> None:
    assert value_digest(dict(reversed(value.items()))) == value_digest(value)
    assert json.loads(canonical_json(value)) == value


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_what_is_no_number_is_never_written_and_the_old_file_stays(tmp_path: Path, number: float) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"loss": 0.5})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_json(path, {"loss": number})
    with pytest.raises(ValueError, match="JSON compliant"):
        write_jsonl(path, [{"loss": 1}, {"loss": number}])
    assert read_json(path) == {"loss": 0.5}
    assert [each.name for each in tmp_path.iterdir()] == ["a.json"]


def test_a_file_is_replaced_whole_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "new/folder/a.txt"
    write_text(path, "first, and long")
    held = path.open()
    write_text(path, "second")
    assert held.read() == "first, and long"  # a reader keeps what it opened
    held.close()
    assert path.read_text() == "second"
    assert [each.name for each in path.parent.iterdir()] == ["a.txt"]


def test_a_missing_or_torn_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"a\.json is missing.*dvc repro"):
        read_json(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"a\.jsonl is missing.*dvc repro"):
        read_jsonl(tmp_path / "a.jsonl")
    (tmp_path / "a.json").write_text('{"a": ')
    with pytest.raises(InputError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")
    (tmp_path / "a.json").write_bytes(b'"\xff"')
    with pytest.raises(InputError, match=r"a\.json is not valid JSON"):
        read_json(tmp_path / "a.json")


def test_a_bad_line_is_named_by_its_number_and_blank_lines_do_not_count(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n  \n{"a": 2}\n')
    assert read_jsonl(path) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\n\n{"a": \n')
    with pytest.raises(InputError, match=r"a\.jsonl:3: not valid JSON"):
        read_jsonl(path)
    path.write_text('{"a": 1}\n[1]\n')
    with pytest.raises(InputError, match=r"a\.jsonl:2: a JSON object was expected, not list"):
        read_jsonl(path)


def test_a_folders_digest_covers_names_places_and_content(tmp_path: Path) -> None:
    def folder(name: str, files: dict[str, str]) -> str:
        for path, text in files.items():
            write_text(tmp_path / name / path, text)
        return folder_digest(tmp_path / name)

    first = folder("a", {"x/one": "1", "two": "2"})
    assert folder("b", {"two": "2", "x/one": "1"}) == first
    assert (
        len({first, folder("c", {"one": "1", "two": "2"}), folder("d", {"x/one": "2", "two": "1"}), folder("e", {"two": "2"})})
        == 4
    )
    assert list(folder_digests(tmp_path / "a")) == ["two", "x/one"]
