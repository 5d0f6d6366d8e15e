"""The office documents of the demo handbook: data/demo/office/<topic>/<page>.md -> data/demo/handbook/<topic>/<page>.pdf or .docx

Run it after an edit: python data/demo/office/render.py [source folder] [target folder]. The first line of a page names its
format. The same page gives the same bytes, as long as fpdf2, python-docx and zlib stay the same.
"""

import datetime
import io
import re
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

HERE = Path(__file__).parent
FORMAT = re.compile(r"<!-- format: (pdf|docx) -->\n")
DATE = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
POINTS = {1: 20, 2: 15, 3: 13}  # size of a heading by its level; the text has 11
LINE = 5  # mm
BLANK = 4  # mm between two blocks
GUTTER = 14  # mm between the longest cell of a column and the next one


def main(source: Path, target: Path) -> None:
    pages = sorted(source.rglob("*.md"))
    for page in pages:
        text = page.read_text(encoding="ascii")
        found = FORMAT.match(text)
        if not found:
            sys.exit(f"{page}: the first line must be <!-- format: pdf --> or <!-- format: docx -->")
        place = (target / page.relative_to(source)).with_suffix("." + found[1])
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(RENDERERS[found[1]](blocks(text[found.end() :])))
    print(f"{len(pages)} pages rendered into {target}")


def blocks(text: str) -> list[tuple[str, Any]]:
    """("h1", "..."), ("paragraph", "..."), ("bullet_list" or "ordered_list", ["..."]), ("table", [["...", ...], ...])"""
    return [block(node) for node in SyntaxTreeNode(MarkdownIt("commonmark").enable("table").parse(text)).children]


def block(node: SyntaxTreeNode) -> tuple[str, Any]:
    if node.type == "heading":
        return node.tag, words(node)
    if node.type in ("bullet_list", "ordered_list"):
        return node.type, [words(item) for item in node.children]
    if node.type == "table":
        return "table", [[words(cell) for cell in row.children] for part in node.children for row in part.children]
    if node.type == "paragraph":
        return "paragraph", words(node)
    raise SystemExit(f"no way to render {node.type}; use headings, paragraphs, lists and tables")


def words(node: SyntaxTreeNode) -> str:
    """What a reader sees: no markup, no line breaks of the source."""
    leaves = (leaf for leaf in node.walk() if leaf.type in ("text", "code_inline", "softbreak", "hardbreak"))
    return "".join(leaf.content if leaf.content else " " for leaf in leaves)


def to_pdf(page: list[tuple[str, Any]]) -> bytes:
    from fpdf import FPDF

    pdf = FPDF()
    pdf.set_creation_date(DATE)
    pdf.set_title(page[0][1])
    pdf.add_page()
    for kind, content in page:
        pdf.set_font("Helvetica", "B" if kind.startswith("h") else "", POINTS[int(kind[1])] if kind[0] == "h" else 11)
        if kind == "table":
            pdf_table(pdf, content)
        else:
            for line in lines(kind, content):
                height = LINE if pdf.font_size_pt == 11 else 1.2 * pdf.font_size
                pdf.multi_cell(0, height, line, align="L", new_x="LMARGIN", new_y="NEXT")
        pdf.ln(BLANK)
    return bytes(pdf.output())


def pdf_table(pdf: Any, rows: list[list[str]]) -> None:
    """Columns as wide as their longest cell, so that none wraps and is read out of order, with gaps that a reader sees."""
    widths = [max(pdf.get_string_width(cell) for cell in column) + GUTTER for column in zip(*rows, strict=True)]
    scale = min(1, pdf.epw / sum(widths))
    with pdf.table(col_widths=[scale * width for width in widths], width=scale * sum(widths), align="LEFT") as table:
        for cells in rows:
            row = table.row()
            for cell in cells:
                row.cell(cell)


def lines(kind: str, content: Any) -> list[str]:
    if kind == "bullet_list":
        return [f"- {item}" for item in content]
    if kind == "ordered_list":
        return [f"{number}. {item}" for number, item in enumerate(content, start=1)]
    return [content]


def to_docx(page: list[tuple[str, Any]]) -> bytes:
    from docx import Document

    document = Document()
    document.core_properties.created = document.core_properties.modified = DATE
    document.core_properties.title = page[0][1]
    for kind, content in page:
        if kind == "table":
            table = document.add_table(rows=len(content), cols=len(content[0]), style="Table Grid")
            for row, cells in zip(table.rows, content, strict=True):
                for cell, text in zip(row.cells, cells, strict=True):
                    cell.text = text
        elif kind.endswith("list"):
            for item in content:
                document.add_paragraph(item, style="List Bullet" if kind == "bullet_list" else "List Number")
        elif kind == "paragraph":
            document.add_paragraph(content)
        else:
            document.add_heading(content, level=int(kind[1]))
    file = io.BytesIO()
    document.save(file)
    return without_times(file)


def without_times(file: io.BytesIO) -> bytes:
    """A zip archive holds the time of writing of each member; the same page must give the same bytes."""
    result = io.BytesIO()
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(result, "w") as new:
        for name in sorted(old.namelist()):
            new.writestr(zipfile.ZipInfo(name), old.read(name), zipfile.ZIP_DEFLATED)
    return result.getvalue()


RENDERERS: dict[str, Callable[[list[tuple[str, Any]]], bytes]] = {"pdf": to_pdf, "docx": to_docx}

if __name__ == "__main__":
    folders = [Path(argument) for argument in sys.argv[1:3]]
    main(*(folders or [HERE, HERE.parent / "handbook"]))
