"""What must not enter weights: pages that stay in the index, and out of every training set. Every stage that learns asks here."""

import unicodedata
from collections.abc import Iterable, Sequence
from functools import lru_cache

from pathspec import GitIgnoreSpec

from tasks.errors import InputError


def may_train(page: str | None, never: Sequence[str]) -> bool:
    """Whether a model may learn from this page; `never` is that of params/questions.yaml. What is of no page may be learnt."""
    return page is None or not compiled(tuple(never)).match_file(unicodedata.normalize("NFC", page))


@lru_cache(maxsize=8)
def compiled(never: tuple[str, ...]) -> GitIgnoreSpec:
    return GitIgnoreSpec.from_lines(unicodedata.normalize("NFC", pattern) for pattern in never)


def refuse_idle(never: Sequence[str], pages: Iterable[str]) -> None:
    """A pattern that matches nothing is a page that somebody believes to be kept out. Raises InputError naming each."""
    known = list(pages)
    idle = [pattern for pattern in never if not any(compiled((pattern.removeprefix("!"),)).match_file(page) for page in known)]
    if idle:
        raise InputError(
            f"params/questions.yaml: train_never: {', '.join(map(repr, idle))} matches none of the {len(known)} pages, so keeps "
            f"nothing out. Pages are named without an ending, such as {', '.join(map(repr, known[:3]))}; mend or remove it"
        )
