"""Whether a text states a fact, by its words and numbers: of answers when they are scored, of passages when they are used."""

import re
import unicodedata

from tasks.records import Record

Tokens = list[str]

THOUSANDS = re.compile(r"(?<=\d),(?=\d{3}(?!\d))")  # 1,200
INITIALS = re.compile(r"(?<=\b[^\W\d_])\.(?=[^\W\d_]\b)")  # p.m.
# A word or code (HR27), a number with its sign and inner separators (-3.5, 10:30, 2024-05-01), or a symbol.
FACT_TOKEN = re.compile(r"[^\W\d_][^\W_]*|(?:(?<![^\s(])-)?\d+(?:[.,:/-]\d+)*|[€£$¥°]")


def fact_tokens(text: str) -> Tokens:
    """Stricter than SQuAD's, where 3.5 equals 35 and Plan A equals Plan: numbers keep sign and separators, `a` stays inside."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = re.sub(r"[\u2010-\u2015\u2212]", "-", text)
    text = re.sub(r"['\u2018\u2019]", "", INITIALS.sub("", THOUSANDS.sub("", text)))
    text = re.sub(r"%|\bper cent\b", " percent ", text)
    return [token for token in FACT_TOKEN.findall(text) if token not in ("the", "an")]


def contains_fact(answer: str, fact: str) -> bool:
    """Whether the fact stands in the answer as one run of tokens, less a leading article."""
    wanted = fact_tokens(fact)
    wanted = wanted[1:] if wanted[:1] == ["a"] and len(wanted) > 1 else wanted
    return bool(wanted) and find(wanted, fact_tokens(answer)) is not None


def find(part: Tokens, whole: Tokens) -> int | None:
    """Where `part` begins in `whole` as one run, or None."""
    places = range(len(whole) - len(part) + 1)
    return next((place for place in places if whole[place : place + len(part)] == part), None)


def states(passage: Record, fact: str) -> bool:
    """Whether a passage holds the fact as a reader sees it: heading and text."""
    shown = f"{passage['heading']}\n{passage['text']}"
    return contains_fact(shown, fact) or (not fact.isascii() and fact in shown)  # without spaces, a sentence is one token
