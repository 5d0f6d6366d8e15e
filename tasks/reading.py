"""One raw file -> what stands of it in documents.jsonl, or the reason why it is rejected."""

import os
import posixpath
import unicodedata
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath

from tasks.kept import Kept, rule
from tasks.params import DocumentsParams
from tasks.parsers import FORMATS, parse
from tasks.records import Record, jsonl_line, text_digest
from tasks.texts import Unreadable

MEGABYTE = 1_000_000
CODE = ("documents", "reading", "parsers", "params_files", "pdf", "blocks", "boundaries", "texts")  # the modules that read a file
LIBRARIES = ("beautifulsoup4", "mammoth", "markdown-it-py", "markdownify", "pypdf", "PyYAML")

Files = Iterator[tuple[str, bytes]]  # path, content


def reading_rule(params: DocumentsParams) -> str:
    """A digest of all that decides what is made of a file; not of where."""
    return rule(params.model_dump(exclude={"engine"}), CODE, LIBRARIES)


def read_files(files: Files, params: DocumentsParams) -> Iterator[tuple[str, Kept]]:
    """(path, what was made of it), one after the other, in a thread: how deep a page may nest until a parser gives up does then
    not depend on how deep the caller stands in its own stack."""
    with ThreadPoolExecutor(1) as pool:
        for path, data in files:
            yield path, pool.submit(read_file, path, data, params).result()


def read_file(path: str, data: bytes, params: DocumentsParams) -> Kept:
    try:
        page = parse(data, FORMATS[suffix(path)], PurePosixPath(path).stem, max_bytes(params), params.max_pdf_pages)
    except Unreadable as error:
        return reject(path, error)
    made = document(path, page.title, page.text)
    note = {"path": path, "reason": "", "id": made["id"], "cleaned": page.cleaned, "text": text_digest(page.text)}
    return Kept(jsonl_line(made).encode(), note)


def reject(path: str, error: Unreadable) -> Kept:
    return Kept(b"", {"path": printable(path), "reason": str(error)})


def document(path: str, title: str, text: str) -> Record:
    kind, digest = FORMATS[suffix(path)], text_digest(f"{title}\n{text}")
    return {"id": identity(path), "path": path, "title": title, "format": kind, "text": text, "digest": digest}


def identity(path: str) -> str:
    return unicodedata.normalize("NFC", posixpath.splitext(path)[0])


def suffix(path: str) -> str:
    return posixpath.splitext(path)[1].lower()


def printable(path: str) -> str:
    """File names are bytes; those that are not UTF-8 cannot be written into JSON as they are."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def max_bytes(params: DocumentsParams) -> int:
    return int(params.max_megabytes * MEGABYTE)
