"""Question files as people write them -> canonical pairs -> three splits."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.errors import InputError
from tasks.pairs import placed_questions
from tasks.params import QuestionsParams
from tasks.questions import PageFinder, deal, judge, questions, split
from tasks.records import Record, file_digest, read_json, read_jsonl, write_jsonl

SHARES = {"train": 0.5, "validation": 0.2, "test": 0.3}
PARAMS = QuestionsParams(**SHARES, seed=1, max_rejected=0.1, near_duplicate=0.8, train_never=[])


def pair(number: int, page: str | None = None, **changes: object) -> Record:
    fields = {"id": f"q{number}", "question": f"Question number {number}?", "answer": f"Answer {number}."}
    return {**fields, "document": page or f"topic/page-{number // 5}", **changes}


def read_questions(path: Path, columns: dict[str, str]) -> list[Record]:
    return [record for _, record in placed_questions(path, columns)]


def write(path: Path, *lines: object) -> Path:
    texts = (line if isinstance(line, str) else json.dumps(line, ensure_ascii=False) for line in lines)
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def fault(path: Path, **columns: str) -> str:
    with pytest.raises(InputError) as error:
        read_questions(path, columns)
    return str(error.value)


def test_jsonl_json_and_csv_give_the_same_pairs(tmp_path: Path) -> None:
    rows = [pair(1, fact="fact 1"), pair(2, fact=None) | {"answer": 'With, comma and "quotes"\nand a line break'}]
    expected = [{**row, "kind": None, "tags": []} for row in rows]
    assert read_questions(write(tmp_path / "q.jsonl", *rows), {}) == expected
    assert read_questions(write(tmp_path / "q.json", rows), {}) == expected
    header = "id;question;answer;document;fact;extra"
    quoted = rows[1]["answer"].replace('"', '""')
    table = [
        header,
        "q1;Question number 1?;Answer 1.;topic/page-0;fact 1;x",
        f'q2;Question number 2?;"{quoted}";topic/page-0;;',
        "",
    ]
    assert read_questions(write(tmp_path / "q.csv", *table), {}) == expected


def test_a_byte_order_mark_and_windows_line_ends_do_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "q.csv"
    path.write_bytes("\ufeffid,question,answer,document\r\n1,\u00bfQu\u00e9?,Eso.,a/b\r\n".encode())
    expected = {"id": "1", "question": "\u00bfQu\u00e9?", "answer": "Eso.", "document": "a/b", "fact": None, "kind": None}
    expected["tags"] = []
    assert read_questions(path, {}) == [expected]
    (tmp_path / "q.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(pair(1)).encode() + b"\r\n\r\n")
    assert read_questions(tmp_path / "q.jsonl", {})[0]["id"] == "q1"


def test_their_columns_are_mapped_to_ours(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", {"Frage": "F?", "Antwort": "A.", "Seite": "it/vpn.md"})
    found = read_questions(path, {"question": "Frage", "answer": "Antwort", "document": "Seite"})
    plain = {"id": "", "question": "F?", "answer": "A.", "document": "it/vpn.md", "fact": None, "kind": None, "tags": []}
    assert found[0] | {"id": ""} == plain


def test_an_unknown_column_is_answered_with_how_to_map_it(tmp_path: Path) -> None:
    path = write(tmp_path / "q.csv", "Question,Antwort,page", "F?,A.,it/vpn")
    message = fault(path)
    assert "columns Antwort, Question, page" in message
    assert 'no record has the field "question"; map it: --column question=Question' in message
    assert "--column document=NAME" in message
    assert 'no record has the field "Answer"; map it: --column answer=' in fault(path, answer="Answer")
    assert "there is no field 'anser'; fields: id, question, answer" in fault(path, anser="Antwort")


def test_each_fault_is_listed_with_its_line(tmp_path: Path) -> None:
    path = write(
        tmp_path / "questions.jsonl",
        pair(1),
        {key: value for key, value in pair(2).items() if key != "answer"},
        "{broken",
        pair(4, question=None),
        pair(5, answer=42),
        "[1, 2]",
        "",
        pair(7, question="  "),
        {key: value for key, value in pair(8).items() if key != "document"},
        '{"id": "q9", "question": "\\ud800", "answer": "a", "document": "p"}',
    )
    message = fault(path)
    for line in (
        'questions.jsonl:2: field "answer" is missing',
        "questions.jsonl:3: not valid JSON",
        'questions.jsonl:4: field "question" is empty',
        'questions.jsonl:5: field "answer" is 42, not a text; write it in quotes',
        "questions.jsonl:6: a JSON object was expected, not list",
        'questions.jsonl:8: field "question" is empty',
        'questions.jsonl:9: field "document" is missing; write null',
        'questions.jsonl:10: field "question" holds half of a character',
    ):
        assert line in message
    assert message.startswith("8 faults in ")


def test_only_the_first_twenty_faults_are_listed(tmp_path: Path) -> None:
    message = fault(write(tmp_path / "q.jsonl", pair(0), *["{"] * 25))
    assert "q.jsonl:21: " in message
    assert "q.jsonl:22: " not in message
    assert message.endswith("and 5 more")


def test_two_questions_with_one_id_are_refused(tmp_path: Path) -> None:
    assert "q.jsonl:2: id 'q1' stands already at q.jsonl:1" in fault(write(tmp_path / "q.jsonl", pair(1), pair(1)))


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("q.jsonl", b"", "has no questions"),
        ("q.csv", b"id,question,answer,document\n", "has no questions"),
        ("q.jsonl", b"\xff\xfe\x00", "not valid UTF-16"),
        ("q.jsonl", "caf\u00e9".encode("latin-1"), "not valid UTF-8 at byte 3; save it as UTF-8"),
        ("q.json", b'{"question": "F?"}', "must hold a list"),
        ("q.json", b"[", "not valid JSON"),
        ("q.xlsx", b"", "questions are read from .jsonl"),
        ("q.csv", b"id,id\n1,2\n", "names column 'id' twice"),
        ("q.csv", b"question,answer,document\nWhat, exactly?,A.,p\n", "q.csv:2: 4 cells where the header has 3"),
        ("q.csv", b"question,answer,document\n" + b"x" * 200_000 + b",A.,p\n", "not valid CSV"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path: Path, name: str, content: bytes, reason: str) -> None:
    (tmp_path / name).write_bytes(content)
    assert reason in fault(tmp_path / name)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    assert "q.jsonl: No such file" in fault(tmp_path / "q.jsonl")


def test_a_question_without_id_gets_one_from_its_words(tmp_path: Path) -> None:
    rows = [{key: value for key, value in pair(number).items() if key != "id"} for number in (1, 2, 1)]
    ids = [row["id"] for row in read_questions(write(tmp_path / "q.jsonl", *rows), {})]
    assert len(set(ids)) == 3
    assert ids[2] == ids[0] + "-2"
    assert [row["id"] for row in read_questions(write(tmp_path / "q.jsonl", rows[1], rows[0]), {})] == [ids[1], ids[0]]


def test_a_question_that_the_corpus_does_not_answer_needs_no_answer(tmp_path: Path) -> None:
    path = write(tmp_path / "q.jsonl", pair(1), {"id": "n", "question": "Who?", "document": None}, pair(3, document=" "))
    assert [(row["document"], row["answer"]) for row in read_questions(path, {})[1:]] == [(None, ""), (None, "Answer 3.")]


def test_whole_numbers_may_name_a_question_and_its_page(tmp_path: Path) -> None:
    found = read_questions(write(tmp_path / "q.jsonl", pair(1, id=7, document=10135926)), {})[0]
    assert (found["id"], found["document"]) == ("7", "10135926")


@pytest.mark.parametrize(
    ("name", "page"),
    [
        ("it/vpn", "it/vpn"),
        ("it/vpn.md", "it/vpn"),
        ("./it/vpn.html", "it/vpn"),
        ("it\\vpn.md", "it/vpn"),
        ("vpn", "it/vpn"),
        ("/some/where/vpn.md", "it/vpn"),
        ("api/v1.2", "api/v1.2"),
        ("api/v1.2.md", "api/v1.2"),
        ("cafe\u0301", "caf\u00e9"),
        ("index", None),
        ("vpm", None),
        ("", None),
    ],
)
def test_a_page_is_found_by_id_path_or_unique_name(name: str, page: str | None) -> None:
    found, reason = PageFinder(["it/vpn", "a/index", "b/index", "api/v1.2", "caf\u00e9"]).find(name)
    assert found == page
    assert bool(reason) == (page is None)


def run(folder: Path, rows: list[Record], pages: int = 40) -> Path:
    write_jsonl(folder / "documents/documents.jsonl", [{"id": f"topic/page-{number}"} for number in range(pages)])
    write_jsonl(folder / "questions.jsonl", rows)
    questions(folder / "questions.jsonl", folder / "documents", folder / "out", PARAMS)
    return folder / "out"


def test_the_stage_deals_questions_by_page_into_three_sorted_files(tmp_path: Path) -> None:
    rows = [pair(number) for number in reversed(range(200))] + [pair(900 + n, document=None) for n in range(20)]
    out = run(tmp_path, rows)
    splits = {name: read_jsonl(out / f"{name}.jsonl") for name in SHARES}
    assert sorted(row["id"] for records in splits.values() for row in records) == sorted(row["id"] for row in rows)
    pages = {name: {row["document"] for row in records} - {None} for name, records in splits.items()}
    assert sum(map(len, pages.values())) == len(set.union(*pages.values())) == 40
    for records in splits.values():
        assert records == sorted(records, key=lambda row: row["id"])
        assert set(records[0]) == {"id", "question", "answer", "document", "fact", "kind", "tags"}
    counts = read_json(out / "counts.json")
    assert counts["ingested"] == counts["accepted"] == 220
    assert counts["unanswerable"] == 20
    first = [file_digest(out / f"{name}.jsonl") for name in SHARES]
    run(tmp_path, rows[::-1])
    assert [file_digest(out / f"{name}.jsonl") for name in SHARES] == first


def test_unknown_pages_and_repeated_questions_are_rejected_with_their_line(tmp_path: Path) -> None:
    same = pair(500, "topic/page-3", question="QUESTION  number 1")
    out = run(tmp_path, [*(pair(number) for number in range(100)), same, pair(501, "topic/nowhere"), pair(502, "page-5.md")])
    assert read_jsonl(out / "rejected.jsonl") == [
        {"id": "q500", "place": "questions.jsonl:101", "reason": "duplicate of the question at questions.jsonl:2"},
        {"id": "q501", "place": "questions.jsonl:102", "reason": "unknown page 'topic/nowhere'"},
    ]
    counts = read_json(out / "counts.json")
    assert (counts["ingested"], counts["accepted"], counts["rejected"]) == (103, 101, 2)


def test_a_question_is_no_duplicate_of_one_that_was_rejected() -> None:
    rows = [pair(1, "nowhere"), pair(2, "a/b", question="Question number 1?"), pair(3, "a/b", question="question number 1")]
    accepted, rejected = judge([(f"q.csv:{place}", row) for place, row in enumerate(rows, start=2)], ["a/b"], 0.8)
    assert [row["id"] for row in accepted] == ["q2"]
    assert [(row["id"], row["reason"]) for row in rejected] == [
        ("q1", "unknown page 'nowhere'"),
        ("q3", "duplicate of the question at q.csv:3"),
    ]


def test_faults_are_told_by_their_place_in_the_persons_own_file(tmp_path: Path) -> None:
    write_jsonl(tmp_path / "documents/documents.jsonl", [{"id": "a/b"}])
    path = write(tmp_path / "mine.csv", "Frage,answer,document", "", "What?,This.,a/b", '"And', 'so?",That.,nowhere')
    with pytest.raises(InputError, match=r"mine\.csv:4: unknown page 'nowhere'"):
        deal(placed_questions(path, {"question": "Frage"}), tmp_path / "documents", tmp_path / "out", PARAMS)


@pytest.mark.parametrize("tags", [["vpn", " remote work "], "vpn, remote work,"])
def test_kind_and_tags_are_kept_for_the_slices_of_the_report(tmp_path: Path, tags: object) -> None:
    found = read_questions(write(tmp_path / "q.jsonl", pair(1, kind="how to", tags=tags)), {})[0]
    assert (found["kind"], found["tags"]) == ("how to", ["vpn", "remote work"])
    assert 'field "tags" is 7, not a text' in fault(write(tmp_path / "q.jsonl", pair(1, tags=["a", 7])))


def test_too_many_rejected_questions_stop_the_stage(tmp_path: Path) -> None:
    with pytest.raises(InputError) as error:
        run(tmp_path, [pair(number, "nowhere" if number % 4 == 0 else None) for number in range(100)])
    assert "25 of 100 questions are rejected" in str(error.value)
    assert "questions.jsonl:1: unknown page 'nowhere'" in str(error.value)
    assert str(error.value).endswith("and 5 more")
    assert not (tmp_path / "out").exists()


def test_an_empty_split_is_refused_with_what_there_is(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no question falls to .*from 1 pages"):
        run(tmp_path, [pair(1), pair(2)])


PAGES = st.lists(st.text(min_size=1, max_size=8), min_size=1, max_size=30, unique=True)


@given(PAGES, st.text(min_size=1, max_size=8), st.integers(0, 5))
def test_a_new_page_moves_no_other_page_to_another_split(pages: list[str], added: str, seed: int) -> None:
    def dealt(names: list[str]) -> dict[str, str]:
        found = split([pair(1, name) for name in names], SHARES, seed)
        return {record["document"]: name for name, records in found.items() for record in records}

    before, after = dealt(pages), dealt([added, *pages])
    assert all(after[page] == name for page, name in before.items())


def test_shares_hold_approximately_and_the_seed_deals_anew() -> None:
    rows = [pair(number, f"page-{number}") for number in range(2000)]
    dealt = split(rows, SHARES, 1)
    for name, share in SHARES.items():
        assert len(dealt[name]) / 2000 == pytest.approx(share, abs=0.04)
    assert split(rows, SHARES, 2) != dealt
