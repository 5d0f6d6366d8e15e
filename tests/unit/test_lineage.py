from pathlib import Path

from tasks.lineage import LINEAGE, learnt, lineage, lineage_of
from tasks.records import Record, write_json


def record(key: str, question: str, document: str | None) -> Record:
    return {"id": key, "question": question, "document": document, "passages": []}


KNOWN = lineage([record("a", "How deep is the harbour?", "port/harbour"), record("b", "Who sings?", None)])


def test_an_adapter_knows_its_questions_however_they_are_written_and_its_pages_whoever_asks() -> None:
    asked = [
        record("same", "how deep is  the HARBOUR", "port/renamed"),
        record("page", "Is the harbour lit?", "port/harbour"),
        record("new", "When is high tide?", "port/tides"),
        record("silent", "Which moon is it?", None),
    ]
    assert [each["id"] for each in learnt(KNOWN, asked)] == ["same", "page"]


def test_who_does_not_say_what_it_learnt_has_an_empty_lineage(tmp_path: Path) -> None:
    asked = [record("a", "How deep is the harbour?", "port/harbour")]
    assert learnt(lineage_of(None), asked) == learnt(lineage_of(tmp_path), asked) == []
    write_json(tmp_path / LINEAGE, KNOWN)
    assert learnt(lineage_of(tmp_path), asked) == asked
