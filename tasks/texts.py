"""Bytes to text, and the forms of a text that are compared."""

import codecs
import re
import unicodedata

# UTF-32 first: its little-endian mark starts with that of UTF-16.
MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
LINE_BREAKS = re.compile("\r\n|[\r\x0b\x0c\x85\u2028\u2029]")
SPACES = re.compile("[\xa0\u2000-\u200a\u202f\u205f\u3000]")
# Control, soft hyphen, zero-width, bidi, interlinear, tag characters and halves of surrogate pairs: unseen, so they can hide
# instructions from a reader or split a word for the search.
UNSEEN = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x9f\xad\u061c\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb"
    "\U000e0000-\U000e007f\ud800-\udfff]"
)
NOT_WORD = re.compile(r"[\W_]+")


class Unreadable(Exception):
    """A file cannot be used; the message is the reason that the reject list shows."""


def decode(data: bytes, declared: str | None = None) -> str:
    """Strict: by byte order mark, else UTF-8, else the encoding that the file itself declares. Never guesses."""
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "")
    if not encoding and b"\0" in data:
        raise Unreadable(f"binary content (a NUL byte at {data.index(0)})")
    if data.startswith((b"%PDF-", b"PK\x03\x04")):
        raise Unreadable("binary content (a PDF or an archive under the extension of a text)")
    try:
        return data.decode(encoding or "utf-8")
    except UnicodeDecodeError as error:
        if encoding or not declared or declared.lower() in ("utf-8", "utf8"):
            raise Unreadable(f"not valid {(encoding or 'utf-8').upper()} at byte {error.start}") from error
    try:
        return data.decode(declared)
    except (UnicodeDecodeError, LookupError) as error:
        raise Unreadable(f"not valid UTF-8, nor {declared}, which it declares") from error


def clean(text: str) -> tuple[str, int]:
    """Text in NFC with plain line breaks and spaces, without unseen characters; and how many of those were taken out."""
    text = SPACES.sub(" ", LINE_BREAKS.sub("\n", text))
    text, count = UNSEEN.subn("", text)
    return unicodedata.normalize("NFC", text), count


def as_asked(question: str) -> str:
    """A question as every model sees it: typed into a shell, which can hand over half a character, or written into a file."""
    return question.encode(errors="replace").decode().replace("\x00", " ").strip()


def comparable(text: str) -> str:
    """Equal for texts that differ only by case, space, punctuation or Unicode form."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return NOT_WORD.sub(" ", folded).strip() or folded.strip()
