"""One file -> its title and its Markdown, by a parser made for its format. What cannot be used is `Unreadable`, with a
reason.
"""

import io
import re
import textwrap
import warnings
import zipfile
from typing import Any, NamedTuple

import yaml

from tasks.blocks import plain
from tasks.params_files import PlainLoader
from tasks.pdf import read_pdf
from tasks.texts import Unreadable, clean, decode

FORMATS = {
    ".md": "markdown",
    ".markdown": "markdown",
    ".html": "html",
    ".htm": "html",
    ".txt": "text",
    ".pdf": "pdf",
    ".docx": "docx",
}
BOILERPLATE = "nav, footer, script, style, template, noscript, [hidden], [aria-hidden=true], [role=navigation], title"
INVISIBLE = re.compile(r"display\s*:\s*none|visibility\s*:\s*hidden", re.IGNORECASE)
FRONT_MATTER = re.compile(r"---[ \t]*\n(.*?\n)??(?:---|\.\.\.)[ \t]*(?:\n|$)", re.DOTALL)
FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
HEADING = re.compile(r" {0,3}#{1,6}[ \t]+(.+?)(?:[ \t]+#*)?[ \t]*$")
UNDERLINE = re.compile(r" {0,3}=+[ \t]*$")
UNPACKED = 10  # a docx is zipped XML, which packs 5 to 10 times; more than this times the size limit is a bomb
MAX_TITLE = 200  # characters


class Page(NamedTuple):
    title: str
    text: str  # Markdown, cleaned
    cleaned: int  # unseen characters taken out


def parse(data: bytes, kind: str, stem: str, max_bytes: int, max_pages: int) -> Page:
    """`kind` is a value of FORMATS, `stem` the file's name without extension. Raises Unreadable with a reason, nothing
    else.
    """
    if not data.strip():
        raise Unreadable("empty")
    try:
        title, source, fallback = read(data, kind, max_bytes, max_pages)
    except Unreadable:
        raise
    except Exception as error:  # a damaged file makes a parser raise anything; one such file must not stop the others
        raise Unreadable(f"broken {kind} file ({type(error).__name__}: {error})"[:300]) from error
    text, cleaned = clean(source)
    text = text.strip("\n").rstrip()
    if not text.strip():
        raise Unreadable("empty: no text is left without front matter, navigation and hidden parts")
    title = clean(title or first_heading(text) or fallback or readable(stem))[0]
    return Page(textwrap.shorten(title, MAX_TITLE, placeholder="..."), text + "\n", cleaned)


def read(data: bytes, kind: str, max_bytes: int, max_pages: int) -> tuple[str, str, str]:
    """(title that goes before the first heading, Markdown, title where there is no heading)"""
    if kind == "markdown":
        return *without_front_matter(decode(data)), ""
    if kind == "html":
        return "", *html_to_markdown(decode(data, declared_encoding(data)))
    if kind == "pdf":
        return "", read_pdf(data, max_pages), ""
    if kind == "docx":
        return "", *html_to_markdown(docx_to_html(data, UNPACKED * max_bytes))
    return "", decode(data), ""


def without_front_matter(text: str) -> tuple[str, str]:
    """Title and rest of a Markdown text. A leading `---` that starts no YAML mapping is a rule, not front matter."""
    text = text.lstrip("\ufeff").replace("\r\n", "\n")
    found = FRONT_MATTER.match(text)
    if not found:
        return "", text
    try:
        fields = yaml.load(found[1] or "", Loader=PlainLoader)
    except (yaml.YAMLError, ValueError):
        return "", text
    if not isinstance(fields, dict):
        return "", text
    title = fields.get("title")
    return (title.strip() if isinstance(title, str) else ""), text[found.end() :]


def first_heading(text: str) -> str:
    """Plain text of the first heading outside code fences, or "". A scan of lines: a full parse of every page takes
    minutes.
    """
    fence, above = "", ""
    for line in text.split("\n"):
        mark = FENCE.match(line)
        if mark and (not fence or line.strip().startswith(fence)):
            fence = "" if fence else mark[1]
        elif not fence:
            heading = HEADING.match(line)
            source = heading[1] if heading else above if UNDERLINE.match(line) else ""
            if source and (title := plain(source)):
                return title
        above = "" if fence else line.strip()
    return ""


def readable(stem: str) -> str:
    """`annual-leave_2026` -> `Annual leave 2026`"""
    words = " ".join(re.sub(r"[-_]+", " ", stem).split())
    return words[:1].upper() + words[1:]


def declared_encoding(data: bytes) -> str | None:
    from bs4.dammit import EncodingDetector

    return EncodingDetector.find_declared_encoding(data, is_html=True)


def html_to_markdown(html: str) -> tuple[str, str]:
    """(Markdown, <title>). Navigation, scripts and what a browser would not show are dropped; nothing is escaped."""
    from bs4 import BeautifulSoup
    from markdownify import MarkdownConverter

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # bs4 warns of text that resembles a file name or a feed; both are fine here
        soup = BeautifulSoup(html, "html.parser")
    title = " ".join(soup.title.get_text().split()) if soup.title else ""
    for element in [*soup.select(BOILERPLATE), *soup.find_all(is_unseen)]:
        element.decompose()
    for image in soup.find_all("img"):  # the description, never the bytes of an embedded picture
        image.replace_with(str(image.get("alt") or ""))
    converter = MarkdownConverter(
        heading_style="ATX", bullets="-", table_infer_header=True, escape_asterisks=False, escape_underscores=False
    )
    return str(converter.convert_soup(soup)), title


def is_unseen(element: Any) -> bool:
    """Hidden by its style, or the banner of a page; the header of an article holds its headline and stays."""
    banner = element.name == "header" and element.find_parent(["main", "article"]) is None
    return banner or bool(INVISIBLE.search(element.get("style") or ""))


def docx_to_html(data: bytes, max_unpacked: int) -> str:
    import mammoth

    if not zipfile.is_zipfile(io.BytesIO(data)):
        raise Unreadable("broken docx: not a zip archive (cut short, encrypted, or an old .doc)")
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        unpacked = sum(member.file_size for member in archive.infolist())
    if unpacked > max_unpacked:  # zipfile never unpacks more than is declared here
        raise Unreadable(f"unpacks to {unpacked:,} bytes, more than {UNPACKED} x max_megabytes (a zip bomb?)")
    without_pictures = mammoth.images.img_element(lambda image: {})
    return str(mammoth.convert_to_html(io.BytesIO(data), convert_image=without_pictures).value)
