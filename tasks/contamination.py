"""Questions that are one question, in whatever disguise: a model that learnt one of them cannot be judged by the other."""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from functools import lru_cache
from itertools import combinations
from typing import Any

from tasks.errors import InputError
from tasks.pairs import listing
from tasks.records import Record
from tasks.texts import UNSEEN, comparable

SHINGLE = 4  # letters: long enough to tell words, short enough to forgive another ending
# Of the 128 hashes: of two questions that are 0.6 alike 98.8 % are compared, of 0.8 all but one in ten million
BANDS, ROWS = 32, 4
NUMBER = re.compile(r"\d+")


def words_of(question: str) -> str:
    """Equal for questions that differ by case, space, punctuation, Unicode form, unseen characters or letters that look alike."""
    plain = unicodedata.normalize("NFKC", UNSEEN.sub("", question))
    return comparable("".join(look_alike(letter) for letter in plain))


@lru_cache(maxsize=4096)
def look_alike(letter: str) -> str:
    """The ASCII letter that Unicode's list of confusables (UTS 39) names for it, or itself."""
    if letter.isascii():
        return letter
    from confusable_homoglyphs.confusables import confusables_data

    similar = [glyph["c"] for glyph in confusables_data.get(letter, ())]
    found = next((each for each in similar if len(each) == 1 and each.isascii() and each.isalpha()), letter)
    return "I" if found == "l" and letter.isupper() else found  # UTS 39 writes every capital I as l


def shingles(words: str) -> frozenset[str]:
    padded = f" {words} "
    return frozenset(padded[start : start + SHINGLE] for start in range(max(1, len(padded) - SHINGLE + 1)))


class Known:
    """Questions as they come, and which of them another one repeats. MinHash proposes, the exact Jaccard index decides."""

    def __init__(self, threshold: float) -> None:
        from datasketch import MinHashLSH

        self.threshold = threshold
        self.equal: dict[str, str] = {}
        self.near: Any = MinHashLSH(params=(BANDS, ROWS), num_perm=BANDS * ROWS)
        self.questions: list[tuple[str, Record, frozenset[str]]] = []

    def add(self, name: str, record: Record) -> None:
        words = words_of(record["question"])
        self.equal.setdefault(words, name)
        self.near.insert(len(self.questions), sketch(shingles(words)))
        self.questions.append((name, record, shingles(words)))

    def find(self, record: Record) -> tuple[str, float]:
        """(name of the question that this one repeats, how alike); ("", 0) where it is new."""
        words = words_of(record["question"])
        if words in self.equal:
            return self.equal[words], 1.0
        own = shingles(words)
        for place in sorted(self.near.query(sketch(own))) if self.threshold < 1 else ():
            name, other, theirs = self.questions[place]
            alike = len(own & theirs) / len(own | theirs)
            if alike >= self.threshold and not told_apart(record, other):
                return name, alike
        return "", 0.0


def told_apart(one: Record, other: Record) -> bool:
    """Nearly equal words may ask two things (plan 1, plan 2; plan A, plan B): the numbers say so, or the facts of both."""
    if NUMBER.findall(words_of(one["question"])) != NUMBER.findall(words_of(other["question"])):
        return True
    facts = [comparable(record.get("fact") or "") for record in (one, other)]
    return all(facts) and facts[0] != facts[1]


def sketch(parts: frozenset[str]) -> Any:
    from datasketch import MinHash

    made = MinHash(num_perm=BANDS * ROWS, seed=1)
    made.update_batch([part.encode() for part in sorted(parts)])
    return made


def refuse_contaminated(splits: Mapping[str, Sequence[Record]], threshold: float) -> None:
    pairs = combinations(splits, 2)
    faults = [fault for one, other in pairs for fault in contaminations(splits[one], splits[other], threshold)]
    if faults:
        raise InputError(listing("one question or page is in two splits; remove one of each pair", faults))


def contaminations(used: Sequence[Record], held_out: Sequence[Record], threshold: float) -> list[str]:
    """What `held_out` shares with `used`: a question, in whatever disguise, or the source page."""
    known = Known(threshold)
    for record in used:
        known.add(record["id"], record)
    pages = {record["document"]: record["id"] for record in used if record["document"]}
    found = []
    for record in held_out:
        other, alike = known.find(record)
        if other:
            found.append(f"{other} and {record['id']}: the same question" + (f" ({alike:.2f} alike)" if alike < 1 else ""))
        elif page := pages.get(record["document"]):
            found.append(f"{page} and {record['id']}: the same page, {record['document']}")
    return found
