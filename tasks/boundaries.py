"""Where a sequence of short texts is cut into passages, decided locally, so that an edit moves few boundaries.

The rule is that of content-defined chunking by local maxima (Bjorner, Blass, Gurevich 2010,
doi.org/10.1016/j.jcss.2009.06.004), with distances in words: an edge (between two neighbours) is a boundary where its
key is the greatest of all edges within `reach` words and both ends of the sequence are at least as far away. The key
depends on the two neighbours alone. Boundaries are then at least `reach` words apart, and an inserted, changed or
removed unit can move at most one on either side of it: no more than three runs change.
"""

import hashlib
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from typing import NamedTuple

LETTERS = 16  # characters that count as a word where there are no spaces (long links, Chinese)

# How welcome a boundary in front of a unit is
SENTENCE, ITEM, BLOCK = 1, 2, 3


class Unit(NamedTuple):
    """A text that is not cut any further, `size` words long; `glue` joins it to the unit before it."""

    text: str
    size: int
    glue: str = "\n\n"
    rank: int = BLOCK


def size(text: str) -> int:
    """Words, at least one."""
    return max(len(text.split()), len(text) // LETTERS, 1)


def runs(units: Sequence[Unit], reach: int, cap: int) -> Iterator[list[Unit]]:
    """Neighbours that make one passage each. A run above `cap` words (many equal lines, where keys tie) is cut by
    counting.
    """
    start = 0
    for stop in [*boundaries(units, reach), len(units)]:
        if stop > start:
            yield from capped(units[start:stop], cap)
        start = stop


def boundaries(units: Sequence[Unit], reach: int) -> list[int]:
    """Positions i where a run begins with units[i]."""
    ends = list(accumulate(unit.size for unit in units))  # ends[i - 1]: words before edge i
    keys = [(0, b""), *(edge_key(before, unit) for before, unit in pairwise(units))]
    inner = [i for i in range(1, len(units)) if reach <= ends[i - 1] <= ends[-1] - reach]
    return [i for i in inner if is_peak(i, ends, keys, reach)]


def is_peak(i: int, ends: Sequence[int], keys: Sequence[tuple[int, bytes]], reach: int) -> bool:
    left = i - 1
    while left > 0 and ends[i - 1] - ends[left - 1] < reach:
        if keys[left] >= keys[i]:
            return False
        left -= 1
    right = i + 1
    while right < len(keys) and ends[right - 1] - ends[i - 1] < reach:
        if keys[right] > keys[i]:
            return False
        right += 1
    return True


def edge_key(before: Unit, after: Unit) -> tuple[int, bytes]:
    """Rank first (never between "as follows:" and what follows), then a number that is arbitrary but the same every
    time.
    """
    rank = 0 if before.text.endswith(":") else after.rank
    return rank, hashlib.blake2b(f"{before.text}\0{after.text}".encode(), digest_size=8).digest()


def capped(run: Sequence[Unit], cap: int) -> Iterator[list[Unit]]:
    part: list[Unit] = []
    words = 0
    for unit in run:
        if part and words + unit.size > cap:
            yield part
            part, words = [], 0
        part.append(unit)
        words += unit.size
    yield part


def join(run: Sequence[Unit]) -> str:
    return run[0].text + "".join(unit.glue + unit.text for unit in run[1:])
