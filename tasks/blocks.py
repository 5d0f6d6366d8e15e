"""Markdown -> sections of units: headings, paragraphs, sentences, list items, tables, code. All text is a slice of the
source.
"""

import functools
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.tree import SyntaxTreeNode

from tasks.boundaries import BLOCK, ITEM, LETTERS, SENTENCE, Unit, join, runs, size

WHOLE = 4  # a table or code block up to this many times max_words stays whole
ABBREVIATIONS = "".join(rf"(?<!\b{word}\.)" for word in (r"e\.g", r"i\.e", "etc", "cf", "vs", "Mr", "Dr", "Mrs", "ca"))
SENTENCE_END = re.compile(rf"(?<=[.!?]){ABBREVIATIONS}[)\"'\]*_\u201d]*\s+|(?<=[\u3002\uff01\uff1f])")
LISTS = ("bullet_list", "ordered_list")
SOLID = ("table", "fence", "code_block")


class Section(NamedTuple):
    headings: tuple[str, ...]  # outermost first, as plain text
    units: list[Unit]


@functools.cache
def parser() -> MarkdownIt:
    """Blocks only: parsing of what is inside a line takes most of the time, and only headings need it. A link
    definition is kept as a paragraph: it would vanish otherwise.
    """
    return MarkdownIt("commonmark").enable("table").disable(["inline", "text_join", "reference"])


@functools.cache
def line_parser() -> MarkdownIt:
    return MarkdownIt("commonmark")


def plain(line: str) -> str:
    """The words of a line of Markdown: no emphasis, link targets, tags or escapes."""
    tokens = line_parser().parseInline(line)[0].children or []
    words = (" " if token.type.endswith("break") else token.content for token in tokens if token.type != "html_inline")
    return " ".join("".join(words).split())


def sections(text: str, max_words: int, table_cell: str = "") -> list[Section]:
    """In reading order. `table_cell` is the sentence that a table's cell becomes, "" for tables as they are. A section
    without text appears only where no deeper one follows; its last heading is then its text.
    """
    lines = text.split("\n")
    trail: list[tuple[int, str]] = []
    found: list[tuple[int, Section]] = [(0, Section((), []))]  # with the level of the heading
    for node in SyntaxTreeNode(parser().parse(text)).children:
        heading = plain(node.children[0].content) if node.type == "heading" else ""
        if heading and size(heading) <= max_words:  # a paragraph with a stray line of dashes below it is no heading
            level = int(node.tag[1])
            trail = [*(outer for outer in trail if outer[0] < level), (level, heading)]
            found.append((level, Section(tuple(words for _, words in trail), [])))
        else:
            found[-1][1].units.extend(units(node, lines, max_words, table_cell))
    return list(with_text(found))


def with_text(found: Sequence[tuple[int, Section]]) -> Iterator[Section]:
    following = [level for level, _ in found[1:]] + [0]
    for (level, section), next_level in zip(found, following, strict=True):
        if section.units:
            yield section
        elif section.headings and next_level <= level:
            yield Section(section.headings, [unit(section.headings[-1])])


def unit(text: str, glue: str = "\n\n", rank: int = BLOCK) -> Unit:
    return Unit(text, size(text), glue, rank)


def units(
    node: SyntaxTreeNode, lines: Sequence[str], max_words: int, table_cell: str, glue: str = "\n\n", rank: int = BLOCK
) -> Iterator[Unit]:
    """What is too long is replaced by its parts: a list by items, an item or quote by its blocks, a paragraph by
    sentences.
    """
    if node.type == "hr" or node.map is None:
        return
    source = lines[node.map[0] : node.map[1]]
    text = textwrap.dedent("\n".join(source)).strip("\n").rstrip()
    if node.type == "table" and table_cell:
        yield from told(node, max_words, table_cell)
    elif node.type in SOLID:
        yield from solid(node, text, max_words)
    elif node.type in LISTS:
        for number, item in enumerate(node.children):
            yield from units(item, lines, max_words, table_cell, *(("\n", ITEM) if number else (glue, rank)))
    elif size(text) <= max_words:
        if text.strip():
            yield unit(text, glue, rank)
    elif node.children and node.type != "paragraph":
        for number, child in enumerate(node.children):
            yield from units(child, lines, max_words, table_cell, *(("\n", ITEM) if number else (glue, rank)))
    else:
        yield from sentences(text, max_words, glue, rank)


def sentences(text: str, max_words: int, glue: str, rank: int) -> Iterator[Unit]:
    start = 0
    for stop in [*(found.end() for found in SENTENCE_END.finditer(text)), len(text)]:
        for piece in pieces(text[start:stop].strip(), WHOLE * max_words):
            yield unit(piece, glue, rank)
            glue, rank = " ", SENTENCE
        start = stop


def told(table: SyntaxTreeNode, max_words: int, cell: str) -> Iterator[Unit]:
    """A table as sentences, a unit a row: "Sandbox for Reading telemetry is 60 per minute. ..." A reader needs no header then."""
    rows = [[item.children[0].content.strip() for item in row.children] for part in table.children for row in part.children]
    if len(rows) < 2:
        yield unit(" ".join(rows[0]))
    for first, *values in rows[1:]:
        cells = zip(rows[0][1:], values, strict=True)
        sentences = [cell.format(column=column, row=first, value=value) for column, value in cells if value]
        for piece in pieces(" ".join(sentences) or first, WHOLE * max_words):
            yield unit(piece)


def solid(node: SyntaxTreeNode, text: str, max_words: int) -> Iterator[Unit]:
    """A table or code block: whole, or, where it is very long, runs of rows or lines, each with the header row or
    fence.
    """
    if size(text) <= WHOLE * max_words:
        if node.type == "code_block":  # the indent is what makes it code
            text = textwrap.indent(text, "    ")
        if text.strip():
            yield unit(text)
        return
    head, rows, foot = parts(node, text.split("\n"))
    cut = [Unit(piece, size(piece), "\n") for row in rows if row.strip() for piece in pieces(row, WHOLE * max_words)]
    for run in runs(cut, max_words, WHOLE * max_words):
        yield unit("\n".join([*head, join(run), *foot]))


def parts(node: SyntaxTreeNode, lines: list[str]) -> tuple[list[str], list[str], list[str]]:
    """(what every piece begins with, rows or lines, what every piece ends with)"""
    if node.type == "table":
        return lines[:2], lines[2:], []
    if node.type == "code_block":
        return [], ["    " + line for line in lines], []
    closed = len(lines) > 1 and lines[-1].strip().startswith(node.markup)
    return lines[:1], lines[1:-1] if closed else lines[1:], [node.markup]


def pieces(text: str, limit: int) -> list[str]:
    """The last resort, for one sentence, row or line above `limit` words: cut at spaces, and within a word that never
    ends.
    """
    if size(text) <= limit:
        return [text] if text else []
    longest = LETTERS * limit
    words = [word[i : i + longest] for word in text.split() for i in range(0, len(word), longest)]
    found, room = [[words[0]]], limit - size(words[0])
    for word in words[1:]:
        if room < size(word):
            found.append([])
            room = limit
        found[-1].append(word)
        room -= size(word)
    return [" ".join(part) for part in found]
