"""What was erased, as it may be kept for ever: digests under a salt. Neither an id nor a text can be read from them."""

import hmac
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from typing import Annotated, Literal, NamedTuple

from pydantic import Field

from tasks.params_files import Group
from tasks.records import Record, value_digest

FORMAT = 1
Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Message = dict[str, str]


class Erasure(Group):
    """One erasure, sealed beside the ledger. `passages`, `shots`, `adapters` and `encoders` are what was known to hold or to have
    learnt the pages; `releases`: the numbers of those that did, by what knew ("index", "adapter", "encoder", "prompt")."""

    format: Literal[1]
    salt: Digest
    documents: list[Digest]
    passages: list[str]
    shots: list[Digest]
    adapters: list[Digest]
    encoders: list[Digest]
    releases: dict[str, list[int]]


class Erased(NamedTuple):
    """An erasure that stands, and what its ledger entry says of it."""

    erasure: Erasure
    at: str
    why: str
    sequence: int


def document_key(salt: str, document: str) -> str:
    """A page's id is a name, and may be a person's: whoever only reads the ledger cannot look it up in a table of digests."""
    return hmac.new(bytes.fromhex(salt), document.encode("utf-8", "surrogatepass"), sha256).hexdigest()


def shot_key(question: Message, answer: Message) -> str:
    return value_digest([question, answer])


@dataclass(frozen=True)
class Tombstones:
    """All that stand."""

    erased: tuple[Erased, ...] = ()

    @cached_property
    def _documents(self) -> list[tuple[str, frozenset[str], Erased]]:
        return [(each.erasure.salt, frozenset(each.erasure.documents), each) for each in self.erased]

    @cached_property
    def _shots(self) -> frozenset[str]:
        return frozenset(key for each in self.erased for key in each.erasure.shots)

    def of(self, document: str) -> Erased | None:
        """The erasure of this page, if there is one."""
        return next((each for salt, keys, each in self._documents if document_key(salt, document) in keys), None)

    def covers(self, document: str | None) -> bool:
        return document is not None and self.of(document) is not None

    def learnt(self, lineage: Mapping[str, Sequence[str]] | None) -> Erased | None:
        """The erasure of a page that a model of this lineage learnt from, as a question's page or among the passages of its
        examples. A model that does not say what it learnt counts as having learnt it."""
        if lineage is None:
            return self.erased[0] if self.erased else None
        passages = set(lineage.get("passages", ()))
        by_page = next(filter(None, map(self.of, lineage.get("documents", ()))), None)
        return by_page or next((each for each in self.erased if passages & set(each.erasure.passages)), None)

    def withheld(self, digest: str | None) -> Erased | None:
        """The erasure for which the adapter, or the tuned embedder, with this digest may not answer any more."""
        models = ((each, {*each.erasure.adapters, *each.erasure.encoders}) for each in self.erased)
        return next((each for each, digests in models if digest in digests), None)

    def without(self, shots: Mapping[str, Sequence[Message]]) -> dict[str, list[Message]]:
        """Few-shot turns, less those that show an erased page or a question about one."""
        return {arm: kept_turns(turns, lambda question, answer: shot_key(question, answer) in self._shots)
                for arm, turns in shots.items()}  # fmt: skip


def pairs_of(turns: Sequence[Message]) -> Iterable[tuple[Message, Message]]:
    return zip(turns[::2], turns[1::2], strict=True)


def kept_turns(turns: Sequence[Message], drop: Callable[[Message, Message], bool]) -> list[Message]:
    return [message for pair in pairs_of(turns) if not drop(*pair) for message in pair]


BLANK = "[erased]"


def blanked(record: Record, covers: Callable[[str | None], bool]) -> Record:
    """One answer of an evaluation without what it says of an erased page. Its scores stay, and so does what they prove.

    An answer that was given with a passage of such a page may state it in other words, so it goes with it.
    """
    about, passages = covers(record.get("document")), record.get("passages") or []
    seen = [passage for passage in passages if covers(passage["document"])]
    ranked = record.get("ranked_pages", [])
    if not about and not seen and not any(map(covers, ranked)):
        return record
    gone = {"text": BLANK, "reference": BLANK, "fact": BLANK, "document": BLANK} if about else {}
    said = {"answer": BLANK} if about or seen else {}
    kept = {"passages": [each for each in passages if not covers(each["document"])]} if "passages" in record else {}
    pages = {"ranked_pages": [BLANK if covers(page) else page for page in ranked]} if ranked else {}
    return record | {key: value for key, value in (gone | said).items() if record.get(key) is not None} | kept | pages
