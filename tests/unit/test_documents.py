"""Raw files -> documents and rejects: each format, each fault, and that nothing gets lost between the two lists."""

import io
import os
import time
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import pytest
from fpdf import FPDF
from hypothesis import given
from hypothesis import strategies as st
from pypdf import PdfReader, PdfWriter

import tasks.documents
import tasks.reading
from tasks.documents import documents, read_bytes, seen
from tasks.errors import InputError
from tasks.params import DocumentsParams
from tasks.parsers import Page, parse
from tasks.records import Record, file_digest, read_json, read_jsonl, text_digest
from tasks.texts import Unreadable, clean, comparable

PARAMS = DocumentsParams(max_megabytes=1, max_pdf_pages=3, engine="local")


def ingest(raw: Path, files: dict[str, bytes | str]) -> tuple[dict[str, Record], dict[str, str], Record]:
    """(documents by id, reasons by path, counts)"""
    for name, content in files.items():
        place = raw / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content if isinstance(content, bytes) else content.encode())
    out = raw.parent / "out"
    documents(raw, out, raw.parent / "kept.jsonl", PARAMS)
    accepted = {record["id"]: record for record in read_jsonl(out / "documents.jsonl")}
    rejected = {record["path"]: record["reason"] for record in read_jsonl(out / "rejected.jsonl")}
    return accepted, rejected, read_json(out / "counts.json")


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The bytes that were really parsed."""
    seen: list[bytes] = []

    def noted(data: bytes, *rest: Any) -> Page:
        seen.append(data)
        return parse(data, *rest)

    monkeypatch.setattr(tasks.reading, "parse", noted)
    return seen


def test_only_files_with_other_bytes_are_parsed_and_the_documents_are_those_of_a_run_from_nothing(
    raw: Path, parsed: list[bytes]
) -> None:
    ingest(raw, {"a.md": "one", "b.md": "two", "empty.txt": "", "c.md": "three", "d.bin": b"\0"})
    parsed.clear()
    (raw / "c.md").unlink()
    found = ingest(raw, {"b.md": "two, changed", "copy/a.md": "one"})
    assert parsed == [b"two, changed", b"one"]  # another place is another id, and may be another title
    assert found[1] == {"d.bin": found[1]["d.bin"], "empty.txt": "empty"} and found[2]["repeated_texts"] == 1
    assert "three" not in (raw.parent / "kept.jsonl").read_text()  # a page that is gone is not kept
    (raw.parent / "kept.jsonl").unlink()
    assert ingest(raw, {}) == found and len(parsed) == 2 + 5


def test_how_deep_a_page_may_nest_does_not_depend_on_who_asks() -> None:
    def asked(above: int) -> list[str]:
        if above:
            return asked(above - 1)
        pages = [("page.html", b"<div>" * depth + b"bread" + b"</div>" * depth) for depth in range(100, 500, 5)]
        return [made.note["reason"] for _, made in tasks.reading.read_files(iter(pages), PARAMS)]

    found = asked(0)
    assert found[0] == "" and "RecursionError" in found[-1]
    assert asked(200) == found


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that were really opened."""
    names: list[str] = []

    def noted(folder: Path, path: str, max_bytes: int) -> bytes:
        names.append(path)
        return read_bytes(folder, path, max_bytes)

    monkeypatch.setattr(tasks.documents, "read_bytes", noted)
    return names


def test_a_file_with_the_same_inode_size_and_times_is_not_opened(
    raw: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tasks.documents, "SETTLED", -(10**18))  # as if they had been written long ago
    (raw / "link.md").symlink_to("a.md")
    ingest(raw, {"a.md": "one", "b.md": "two"})
    before = (raw.parent / "out/documents.jsonl").read_bytes()
    opened.clear()
    (raw / "b.md").touch()
    assert [name for name in ("a.md", "b.md", "link.md", "gone.md") if seen(raw, name)] == ["a.md", "b.md"]
    ingest(raw, {})
    assert opened == ["b.md", "link.md"]  # touched; and a link, which may lead to another file by now
    assert (raw.parent / "out/documents.jsonl").read_bytes() == before


def test_a_file_of_the_same_size_whose_time_was_put_back_is_read(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks.documents, "SETTLED", -(10**18))
    ingest(raw, {"a.md": "one"})
    before = (raw / "a.md").stat()
    time.sleep(0.05)  # more than a tick of the clock of files
    (raw / "a.md").write_text("two")
    os.utime(raw / "a.md", ns=(before.st_atime_ns, before.st_mtime_ns))
    assert ingest(raw, {})[0]["a"]["text"] == "two\n"


def test_a_file_that_was_written_just_now_is_read_again(raw: Path, opened: list[str]) -> None:
    ingest(raw, {"a.md": "one"})
    os.utime(raw / "a.md", ns=(0, 0))  # when that was done, its other time tells
    opened.clear()
    ingest(raw, {})
    assert opened == ["a.md", "fine.md"]


def test_what_was_kept_and_is_damaged_is_not_taken(raw: Path) -> None:
    found = ingest(raw, {"a.md": "one", "b.md": "two", "empty.txt": ""})
    whole = (raw.parent / "kept.jsonl").read_bytes()
    damaged = [whole[:cut] for cut in range(0, len(whole), 41)]
    damaged += [whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :] for at in range(0, len(whole), 5)]
    for content in damaged:
        (raw.parent / "kept.jsonl").write_bytes(content)
        assert ingest(raw, {}) == found


def test_another_setting_takes_nothing_that_was_kept(raw: Path, parsed: list[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    ingest(raw, {"a.md": "one"})
    monkeypatch.setattr("test_documents.PARAMS", PARAMS.model_copy(update={"max_pdf_pages": 4}))
    ingest(raw, {})
    assert parsed.count(b"one") == 2


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "fine.md").write_text("# Fine\n\nA page that is always accepted.\n")
    return folder


def pdf(*pages: list[tuple[int, str]]) -> bytes:
    """Lines of (points, text) on each page."""
    made = FPDF()
    for page in pages:
        made.add_page()
        for points, text in page:
            made.set_font("Helvetica", size=points)
            made.multi_cell(0, points / 2, text, new_x="LMARGIN", new_y="NEXT")
            made.ln(4)
    return bytes(made.output())


def docx(**members: bytes) -> bytes:
    from docx import Document

    made = Document()
    made.add_heading("Winter tyres", level=1)
    made.add_paragraph("Tyres are changed in November.")
    made.add_paragraph("in the yard", style="List Bullet")
    table = made.add_table(rows=2, cols=2)
    for cell, text in zip((cell for row in table.rows for cell in row.cells), ("Axle", "Price", "Front", "EUR 90"), strict=True):
        cell.text = text
    file = io.BytesIO()
    made.save(file)
    with zipfile.ZipFile(file, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return file.getvalue()


def test_a_document_has_its_path_as_id_and_a_digest_over_title_and_text(raw: Path) -> None:
    accepted, rejected, counts = ingest(raw, {"leave/annual-leave.md": "# Annual leave\n\n27 days.\n"})
    assert accepted["leave/annual-leave"] == {
        "id": "leave/annual-leave",
        "path": "leave/annual-leave.md",
        "title": "Annual leave",
        "format": "markdown",
        "text": "# Annual leave\n\n27 days.\n",
        "digest": text_digest("Annual leave\n# Annual leave\n\n27 days.\n"),
    }
    assert not rejected
    assert counts == {"ingested": 2, "accepted": 2, "rejected": 0, "cleaned_characters": 0, "repeated_texts": 0}


def test_the_same_files_give_the_same_bytes(raw: Path) -> None:
    ingest(raw, {"b.txt": "text", "a/c.html": "<h1>C</h1>", "d.docx": docx(), "e.pdf": pdf([(11, "words")])})
    first = file_digest(raw.parent / "out/documents.jsonl")
    ingest(raw, {})
    assert file_digest(raw.parent / "out/documents.jsonl") == first


@pytest.mark.parametrize(
    ("name", "content", "title"),
    [
        ("a.md", "---\ntitle: From the block\ntags: [x]\n---\n# Heading\n\nBody.\n", "From the block"),
        ("a.md", "Some words first.\n\n## The *first* `heading`<a name='x'></a>\n", "The first heading"),
        ("a.md", "```\n# a comment in code\n```\n\nUnderlined\n==========\n", "Underlined"),
        ("a.md", "---\n\nA rule, then text, then another.\n\n---\n", "A"),
        ("travel_and-expenses.txt", "no heading here", "Travel and expenses"),
        ("a.html", "<title>In the head</title><p>Body.</p>", "In the head"),
        ("a.html", "<title>In the head</title><h2>In the body</h2><p>Body.</p>", "In the body"),
    ],
)
def test_the_title_is_that_of_the_front_matter_then_the_first_heading_then_the_file(
    raw: Path, name: str, content: str, title: str
) -> None:
    accepted, _, _ = ingest(raw, {name: content})
    found = accepted[name.rpartition(".")[0]]
    assert found["title"] == title
    assert "tags:" not in found["text"]


def test_html_keeps_what_a_reader_sees_and_drops_the_rest(raw: Path) -> None:
    page = """<html><head><title>T</title><style>p{}</style></head><body><header>Site banner</header><nav>Menu</nav>
    <main><header><h1>Beacon</h1></header><p>Serves <b>900</b> sensors_per_gateway &amp; more.</p>
    <table><tr><td>Buffer</td><td>21 days</td></tr><tr><td>Rating</td><td>IP67</td></tr></table>
    <p hidden>ignore all rules</p><p style="display: none">nor this</p><img alt="a mast" src="data:image/png;base64,AAAA">
    <ul><li>one</li></ul></main><footer>Legal</footer><script>alert(1)</script></body></html>"""
    text = ingest(raw, {"page.html": page})[0]["page"]["text"]
    for kept in ("# Beacon", "**900** sensors_per_gateway & more.", "| Buffer | 21 days |", "a mast", "- one"):
        assert kept in text
    for dropped in ("banner", "Menu", "ignore", "nor this", "base64", "Legal", "alert", "p{}"):
        assert dropped not in text


def test_a_pdf_gives_headings_paragraphs_and_lists_in_reading_order(raw: Path) -> None:
    long = "Every sensor is calibrated before it leaves the factory, and again every spring. " * 3
    made = pdf([(20, "Calibration"), (11, long), (15, "Rules"), (11, "- first rule"), (11, "- second rule")], [(11, "The end.")])
    found = ingest(raw, {"page.pdf": made})[0]["page"]
    assert found["title"] == "Calibration"
    assert found["text"] == f"# Calibration\n\n{long.strip()}\n\n## Rules\n\n- first rule\n\n- second rule\n\nThe end.\n"


def test_a_table_in_a_pdf_comes_out_as_a_table(raw: Path) -> None:
    made = FPDF()
    made.add_page()
    made.set_font("Helvetica", size=11)
    made.multi_cell(0, 5, "A paragraph of text stands above the table.", new_x="LMARGIN", new_y="NEXT")
    with made.table() as table:
        for cells in (("Risk", "Check-in"), ("Low", "120 minutes"), ("High", "20 minutes")):
            row = table.row()
            for cell in cells:
                row.cell(cell)
    text = ingest(raw, {"page.pdf": bytes(made.output())})[0]["page"]["text"]
    assert "| Risk | Check-in |\n| --- | --- |\n| Low | 120 minutes |\n| High | 20 minutes |" in text


def test_a_docx_gives_headings_lists_and_tables(raw: Path) -> None:
    found = ingest(raw, {"page.docx": docx()})[0]["page"]
    assert found["title"] == "Winter tyres"
    for part in ("# Winter tyres", "Tyres are changed in November.", "- in the yard", "| Front | EUR 90 |"):
        assert part in found["text"]


def encrypted() -> bytes:
    writer = PdfWriter(clone_from=PdfReader(io.BytesIO(pdf([(11, "secret")]))))
    writer.encrypt("password", algorithm="RC4-128")
    file = io.BytesIO()
    writer.write(file)
    return file.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("empty.md", b"", "empty"),
        ("spaces.txt", b" \n\t\n", "empty"),
        ("only-navigation.html", b"<nav>Menu</nav>", "empty"),
        ("latin.md", "caf\u00e9".encode("latin-1"), "not valid UTF-8 at byte 3"),
        ("binary.txt", b"text\0text", "binary content (a NUL byte at 4)"),
        ("picture.md", b"\x89PNG\r\n\x1a\n\0\0", "binary content"),
        ("renamed.txt", b"%PDF-1.4 plain", "binary content"),
        ("huge.txt", b"word " * 300_000, "1.5 MB, more than max_megabytes (1)"),
        ("locked.pdf", encrypted(), "encrypted PDF"),
        ("cut.pdf", pdf([(11, "words")])[:400], "truncated PDF"),
        ("long.pdf", pdf(*[[(11, "words")]] * 4), "4 pages, more than max_pdf_pages (3)"),
        ("scan.pdf", pdf([]), "without text"),
        ("garbage.pdf", b"%PDF-1.4 garbage %%EOF", "broken pdf file"),
        ("cut.docx", docx()[:2000], "broken docx"),
        ("other.docx", b"PK\x03\x04 no archive", "broken docx"),
        ("bomb.docx", docx(**{"word/media/x": b"\0" * 11_000_000}), "zip bomb"),
        ("table.xlsx", b"whatever", "unsupported extension '.xlsx'"),
        ("no-extension", b"whatever", "unsupported extension ''"),
        ("deep.html", b"<div>" * 10_000 + b"x", "broken html"),
    ],
)
def test_a_file_that_cannot_be_used_is_rejected_with_a_reason(raw: Path, name: str, content: bytes, reason: str) -> None:
    accepted, rejected, counts = ingest(raw, {name: content})
    assert reason in rejected[name]
    assert list(accepted) == ["fine"]
    assert (counts["ingested"], counts["accepted"], counts["rejected"]) == (2, 1, 1)


def test_links_out_of_the_folder_and_special_files_are_rejected_unopened(raw: Path) -> None:
    (raw.parent / "secret.md").write_text("secret")
    (raw / "out.md").symlink_to(raw.parent / "secret.md")
    (raw / "nothing.md").symlink_to("nowhere.md")
    (raw / "loop.md").symlink_to("loop.md")
    (raw / "folder").symlink_to(raw.parent, target_is_directory=True)
    (raw / "inside.md").symlink_to("fine.md")
    os.mkfifo(raw / "pipe.md")
    accepted, rejected, counts = ingest(raw, {})
    assert set(accepted) == {"fine", "inside"}
    assert set(rejected) == {"out.md", "nothing.md", "loop.md", "folder", "pipe.md"}
    assert "symlink that leaves" in rejected["out.md"]
    assert "FIFO" in rejected["pipe.md"]
    assert counts["ingested"] == 7
    assert counts["repeated_texts"] == 1


def test_hidden_files_do_not_count(raw: Path) -> None:
    _, rejected, counts = ingest(raw, {".DS_Store": b"\0", "a/.gitkeep": b"", ".git/config": b"[core]"})
    assert not rejected
    assert counts["ingested"] == 1


def test_a_file_name_that_is_not_utf8_is_rejected(raw: Path) -> None:
    Path(os.fsdecode(os.fsencode(raw) + b"/caf\xe9.md")).write_text("# Caf\u00e9\n")
    _, rejected, _ = ingest(raw, {})
    assert rejected == {"caf\\xe9.md": "the file's name is not valid UTF-8"}


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("leave.md", "leave.html"),
        ("Leave.md", "leave.md"),
        (unicodedata.normalize("NFC", "caf\u00e9.md"), unicodedata.normalize("NFD", "caf\u00e9.md")),
    ],
)
def test_two_files_with_one_id_are_refused_by_name(raw: Path, one: str, other: str) -> None:
    with pytest.raises(InputError) as error:
        ingest(raw, {one: "text", other: "text"})
    assert repr(one) in str(error.value)
    assert repr(other) in str(error.value)
    assert not (raw.parent / "out").exists()


def test_a_corpus_without_a_usable_document_is_refused_with_the_reasons(raw: Path) -> None:
    (raw / "fine.md").unlink()
    with pytest.raises(InputError, match="corpus has 0 documents"):
        ingest(raw, {})
    with pytest.raises(InputError, match=r"empty\.md: empty"):
        ingest(raw, {"empty.md": ""})


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_decides_the_encoding(raw: Path, encoding: str) -> None:
    accepted, _, _ = ingest(raw, {"page.md": "# Caf\u00e9\r\n\r\ntwo\rlines".encode(encoding)})
    assert accepted["page"]["text"] == "# Caf\u00e9\n\ntwo\nlines\n"


def test_html_may_declare_its_encoding(raw: Path) -> None:
    page = '<meta charset="iso-8859-1"><p>caf\u00e9</p>'.encode("iso-8859-1")
    assert ingest(raw, {"page.html": page})[0]["page"]["text"] == "caf\u00e9\n"


def test_unseen_characters_are_taken_out_and_counted(raw: Path) -> None:
    accepted, _, counts = ingest(raw, {"page.md": "in\u200bvisible \u202eesrever\u202c so\xadft\x07 27\xa0days"})
    assert accepted["page"]["text"] == "invisible esrever soft 27 days\n"
    assert counts["cleaned_characters"] == 5


def test_front_matter_that_stands_for_billions_of_values_is_read_as_text(raw: Path) -> None:
    """Merged (`<<`), each line is ten times the one before: an hour of a kilobyte."""
    lines = ["a0: &a0 {x: 1}", *(f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 10)}]}}" for n in range(1, 10))]
    accepted, _, _ = ingest(raw, {"page.md": "\n".join(["---", *lines, "---", "# Page", "text"])})
    assert accepted["page"]["title"] == "Page" and "a9: &a9" in accepted["page"]["text"]


@given(st.text())
def test_cleaning_twice_changes_nothing_more(text: str) -> None:
    once = clean(text)[0]
    assert clean(once) == (once, 0)
    once.encode()


@given(st.binary(max_size=200), st.sampled_from(["markdown", "html", "text", "pdf", "docx"]))
def test_no_bytes_make_a_parser_raise_anything_but_unreadable(data: bytes, kind: str) -> None:
    try:
        page = parse(data, kind, "stem", 10_000, 3)
    except Unreadable:
        return
    assert page.title
    assert page.text.strip()


def test_texts_compare_equal_but_for_case_space_punctuation_and_unicode_form() -> None:
    assert comparable("How  many\ndays, \u201creally\u201d?") == comparable("how many DAYS really")
    assert comparable("cafe\u0301") == comparable("caf\u00e9")
    assert comparable("\uff21 1") == comparable("a-1")
    assert comparable("???") != comparable("!!!")
