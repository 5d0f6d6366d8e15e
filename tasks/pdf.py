"""A PDF knows glyphs at places, no structure. This finds lines, headings (by size), paragraphs (by gaps), lists and
tables again.
"""

import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NamedTuple

from tasks.texts import Unreadable

HEADING = 1.15  # a line this much larger than the body's type is a heading
GAP = 1.3  # lines this much further apart than usual belong to two paragraphs
LETTER = 0.5  # mean width of a letter in ems, to guess where a piece of text ends
BULLET = re.compile(r"[-*\u2022\u25cf\u2013]\s+(?=\S)")
NUMBER = re.compile(r"\d{1,3}[.)]\s+\S")


class Line(NamedTuple):
    page: int
    y: float  # points from the foot of the page
    size: float  # points
    cells: tuple[str, ...]  # more than one where wide gaps part the line

    @property
    def text(self) -> str:
        return " ".join(self.cells)


def read_pdf(data: bytes, max_pages: int) -> str:
    """The text as Markdown. Raises Unreadable for what is encrypted, cut short, too long or only pictures."""
    from pypdf import PdfReader

    if b"%%EOF" not in data[-2048:]:
        raise Unreadable("truncated PDF (its end is missing)")
    reader = PdfReader(io.BytesIO(data))
    if reader.is_encrypted:
        raise Unreadable("encrypted PDF; save it without a password")
    if len(reader.pages) > max_pages:
        raise Unreadable(f"{len(reader.pages)} pages, more than max_pdf_pages ({max_pages})")
    lines = [line for number, page in enumerate(reader.pages) for line in page_lines(page, number)]
    if not lines:
        raise Unreadable("a PDF without text (a scan?); run OCR over it first")
    return markdown(lines)


def page_lines(page: Any, number: int) -> Iterator[Line]:
    pieces: list[tuple[float, float, float, str]] = []  # x, y, size, text

    def visit(text: str, cm: Sequence[float], tm: Sequence[float], font: object, size: float) -> None:
        if text.strip():
            x, y = tm[4] * cm[0] + tm[5] * cm[2] + cm[4], tm[4] * cm[1] + tm[5] * cm[3] + cm[5]
            scale = math.hypot(tm[2], tm[3]) * math.hypot(cm[2], cm[3])
            pieces.append((x, y, round(size * scale, 1), text.replace("\n", " ")))

    page.extract_text(visitor_text=visit)
    start = 0
    for stop in range(1, len(pieces) + 1):
        if stop == len(pieces) or abs(pieces[stop][1] - pieces[start][1]) > 0.3 * pieces[start][2]:
            row = pieces[start:stop]
            yield Line(number, row[0][1], max(piece[2] for piece in row), tuple(cells(row)))
            start = stop


def cells(row: Sequence[tuple[float, float, float, str]]) -> list[str]:
    """Pieces of one line, joined unless a gap of more than an em parts them."""
    found = [row[0][3]]
    for (x, _, size, text), (next_x, _, _, next_text) in pairwise(row):
        if next_x - (x + LETTER * size * len(text)) > size:
            found.append(next_text)
        else:
            found[-1] += next_text
    return [" ".join(cell.split()) for cell in found]


def markdown(lines: Sequence[Line]) -> str:
    sizes: Counter[float] = Counter()
    for line in lines:
        sizes[line.size] += len(line.text)
    body = sizes.most_common(1)[0][0]
    larger = sorted((size for size in sizes if size > HEADING * body), reverse=True)
    levels = {size: level for level, size in enumerate(larger, start=1)}
    pitches = Counter(round(a.y - b.y) for a, b in pairwise(lines) if a.size == b.size == body and a.y > b.y)
    pitch = pitches.most_common(1)[0][0] if pitches else 1.2 * body
    return "\n\n".join(render(block, levels) for block in blocks(lines, pitch))


def blocks(lines: Sequence[Line], pitch: float) -> Iterator[list[Line]]:
    """Lines that belong together: a heading, a paragraph, a list item, a table."""
    block = [lines[0]]
    for line in lines[1:]:
        if continues(block[-1], line, pitch):
            block.append(line)
        else:
            yield block
            block = [line]
    yield block


def continues(above: Line, line: Line, pitch: float) -> bool:
    if line.page != above.page or line.size != above.size:
        return False
    if len(line.cells) > 1 or len(above.cells) > 1:
        return len(line.cells) == len(above.cells)
    near = 0 < above.y - line.y < GAP * max(pitch, 1.2 * line.size)
    return near and not BULLET.match(line.text) and not NUMBER.match(line.text)


def render(block: Sequence[Line], levels: dict[float, int]) -> str:
    text = " ".join(line.text for line in block)
    if block[0].size in levels:
        return "#" * min(levels[block[0].size], 6) + " " + text
    if len(block) > 1 and len(block[0].cells) > 1:
        rows = ["| " + " | ".join(line.cells) + " |" for line in block]
        return "\n".join([rows[0], "|" + " --- |" * len(block[0].cells), *rows[1:]])
    return BULLET.sub("- ", text, count=1) if BULLET.match(text) else text
