"""Slices: what a question counts towards beside the whole, so that a mean cannot hide a topic that got worse.

A question has the kind and tags that a person gave it, or else the folder of its page; and, for whoever gave none of it: how long
it is, what kind of answer it wants, on how many pages its fact stands, and whether its page changed since the live release.
"""

import re
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace

from tasks.facts import fact_tokens, find
from tasks.records import Record
from tasks.reports import Report

SHORT, MEDIUM = 7, 12  # words of a question, at most: fixed, so that a slice means the same in every release
NAMED = 6  # words of an answer that can be a name; a longer one is a sentence with a name in it
MONTHS = "january|february|march|april|may|june|july|august|september|october|november|december"
DAYS = "monday|tuesday|wednesday|thursday|friday|saturday|sunday"
DATE = re.compile(
    rf"\b({MONTHS}|{DAYS})s?\b|\b\d{{4}}-\d\d-\d\d\b|\b\d{{1,2}}:\d\d\b|\b\d{{1,2}} ?(am|pm|a\.m|p\.m)\b|\b(19|20)\d\d$", re.I
)
NUMBERS = "one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty|thirty|forty|fifty|hundred|thousand|half"
NUMBER = re.compile(rf"\d|\b({NUMBERS}|once|twice)\b", re.I)
NAME = re.compile(r"(?<!^)\b[A-Z][\w&'-]+|^([A-Z][\w&'-]+ ?)+$")  # a capital that does not just begin the answer, or nothing else


def slices(record: Record) -> list[str]:
    """Of a question as the stage `questions` writes it; its `holding`, where it has one, is what `pages_with_facts` counted."""
    holding, found = record.get("holding"), [*topics(record), f"question {length(str(record['question']))}"]
    if record["document"]:
        found.append(f"answer {answer_type(str(record.get('fact') or record.get('answer') or ''))}")
    if record["document"] and holding is not None:
        found.append(f"fact on {'no page' if holding == 0 else 'one page' if holding == 1 else 'several pages'}")
    return found


def topics(record: Record) -> list[str]:
    """Its own kind and tags, or else the folder of its page."""
    kind, tags = record.get("kind"), record.get("tags") or []
    if kind or tags:
        return [*([f"kind {kind}"] if kind else []), *(f"tag {tag}" for tag in tags)]
    if not record["document"]:
        return ["no page"]
    folder, _, page = str(record["document"]).partition("/")
    return [f"folder {folder}" if page else "folder (top)"]


def length(question: str) -> str:
    words = len(question.split())
    return "short" if words <= SHORT else "medium" if words <= MEDIUM else "long"


def answer_type(answer: str) -> str:
    """date (also a time or a weekday), number, name, yes or no, or else text. English words; digits and capitals anywhere."""
    answer = answer.strip().rstrip(".")
    if re.match(r"(yes|no)\b", answer, re.I):
        return "yes or no"
    if DATE.search(answer):
        return "date"
    if NUMBER.search(answer):
        return "number"
    return "name" if len(answer.split()) <= NAMED and NAME.search(answer) else "text"


def pages_with_facts(passages: Iterable[Record], questions: Sequence[Record]) -> dict[str, int]:
    """Question id -> number of pages that state its fact (as tasks.facts.states has it). One pass over the corpus: a passage is
    taken apart once, and searched only for the facts whose longest word it holds. A fact on several pages can be right by
    chance, one on no page is worded otherwise in the corpus."""
    facts = {str(record["fact"]) for record in questions if record.get("fact") and record["document"]}
    wanted = {fact: fact_words(fact) for fact in facts}
    by_word: dict[str, list[str]] = defaultdict(list)
    for fact, words in wanted.items():
        by_word[max(words, key=len, default="")].append(fact)
    unspaced = [fact for fact in facts if not fact.isascii()]
    pages: dict[str, set[str]] = defaultdict(set)
    for passage in passages:
        shown = f"{passage['heading']}\n{passage['text']}"
        tokens = fact_tokens(shown)
        near = (fact for word in by_word.keys() & set(tokens) for fact in by_word[word])
        stated = {fact for fact in near if find(wanted[fact], tokens) is not None} | {fact for fact in unspaced if fact in shown}
        for fact in stated:
            pages[fact].add(passage["document"])
    return {record["id"]: len(pages[record["fact"]]) for record in questions if record.get("fact") in facts}


def fact_words(fact: str) -> list[str]:
    """Less a leading article, as when an answer is scored."""
    words = fact_tokens(fact)
    return words[1:] if words[:1] == ["a"] and len(words) > 1 else words


def fresh_pages(before: Mapping[str, str], now: Mapping[str, str]) -> set[str]:
    """Pages whose text no page of the live release had: changed or new, not renamed. Both map page id to digest."""
    known = set(before.values())
    return {page for page, digest in now.items() if digest not in known}


def with_freshness(report: Report, fresh: Collection[str]) -> Report:
    """Every answer about a page also counts towards `page changed` or `page unchanged`; nothing where no page changed."""
    if not fresh:
        return report
    names = {True: "page changed", False: "page unchanged"}
    answers = tuple(
        replace(answer, slices=(*answer.slices, names[answer.document in fresh])) if answer.document is not None else answer
        for answer in report.answers
    )
    return replace(report, answers=answers)
