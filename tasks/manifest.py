"""A release as content: one manifest that pins all an answer depends on, and nothing measured, timed or placed.

The sha256 of its canonical JSON is the release id, so the same content is the same release wherever it was made.
"""

import json
from typing import Annotated, Any, Literal, NoReturn, Self

from pydantic import Field, SerializerFunctionWrapHandler, ValidationError, model_serializer, model_validator

from tasks.errors import IntegrityError
from tasks.params import Arm, Natural, Positive, uses_adapter
from tasks.params_files import Group
from tasks.records import Record, canonical_json, text_digest

FORMAT = 1  # what this Tandem reads and writes
SHORT = 12  # digits of an id that people see
SHOWN = 60  # characters of a value in a difference

Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Name = Annotated[str, Field(min_length=1)]


class Corpus(Group):
    digest: Digest
    documents: Natural


class Index(Group):
    table: Name
    tag: Name
    rows: Natural
    digest: Digest


class Tuned(Group):
    """By the stage `retriever`, on which sides, of the embedder with which digest."""

    sides: Literal["query", "both"]
    of: Digest


class Embedder(Group):
    """`digest` is that of its folder; `fingerprint` is a few coordinates of the vectors of some probe strings."""

    source: Name
    id: str
    revision: str
    digest: Digest
    dimension: Positive
    pooling: Name
    normalised: bool
    query_prompt: str
    passage_prompt: str
    max_tokens: Positive
    backend: Name = "torch"
    fingerprint: Annotated[list[float], Field(min_length=1)]
    tuned: Tuned | None = None

    @model_serializer(mode="wrap")
    def _as_before_there_was_a_choice(self, serialise: SerializerFunctionWrapHandler) -> Record:
        """A release from before there were backends and tuned embedders keeps its text, and with it its id."""
        return without(serialise(self), {"backend": "torch", "tuned": None})


def without(record: Record, told: Record) -> Record:
    """Less the keys that have the value of a time when they were not written."""
    return {key: value for key, value in record.items() if key not in told or told[key] != value}


class Base(Group):
    source: Name
    id: str
    revision: str
    digest: Digest


class Reranker(Base):
    """A cross-encoder; `fingerprint` is its scores of some probe pairs."""

    max_tokens: Positive
    backend: Name
    fingerprint: Annotated[list[float], Field(min_length=1)]


class Adapter(Group):
    digest: Digest


class Release(Group):
    """Raises pydantic's ValidationError; `load_release` turns it into an IntegrityError."""

    format: Literal[1]
    corpus: Corpus
    index: Index
    embedder: Embedder
    query_encoder: Embedder | None = None  # where questions go through another one than passages
    reranker: Reranker | None = None  # where one orders the passages
    base: Base
    adapter: Adapter | None
    tokenizer: Annotated[dict[Name, Digest], Field(min_length=1)]  # every file of it, by name
    chat_template: Digest
    prompt: Record
    retrieval: Record
    decoding: Record
    arm: Arm

    @model_serializer(mode="wrap")
    def _as_before_there_were_these(self, serialise: SerializerFunctionWrapHandler) -> Record:
        return without(serialise(self), {"query_encoder": None, "reranker": None})

    @model_validator(mode="after")
    def whole(self) -> Self:
        if uses_adapter(self.arm) and self.adapter is None:
            raise ValueError(f"the arm {self.arm} needs an adapter")
        if self.query_encoder and (not self.query_encoder.tuned or self.query_encoder.tuned.of != self.embedder.digest):
            raise ValueError("the query encoder was not tuned from the embedder of the passages")
        if bool(self.retrieval.get("rerank")) != (self.reranker is not None):
            raise ValueError("`retrieval.rerank` and `reranker` go together: there is one of them")
        try:
            canonical_json(self.model_dump())
        except TypeError as error:
            raise ValueError(f"`prompt`, `retrieval` and `decoding` hold only what JSON holds: {error}") from error
        return self


def render(release: Release) -> str:
    """The manifest's one text: what is stored, and what the id is taken over."""
    return canonical_json(release.model_dump())


def release_id(release: Release) -> str:
    return text_digest(render(release))


def short(identity: str) -> str:
    return identity[:SHORT]


def load_release(text: str) -> Release:
    """The inverse of `render`. Raises IntegrityError on a torn text, an unknown key, NaN, or a newer format."""
    value = sealed_json(text, "release manifest", FORMAT)
    try:
        return Release.model_validate(value)
    except ValidationError as error:
        raise IntegrityError(f"release manifest: {faults(error)}. {RESTORE}") from error


RESTORE = "It is not what Tandem wrote: restore it from a backup; `tandem doctor` names every release that it breaks"


def sealed_json(data: str | bytes, what: str, newest: int) -> Record:
    """One JSON object that Tandem sealed. Raises IntegrityError on a torn text, NaN, doubled key or newer format."""
    try:
        text = data if isinstance(data, str) else data.decode("utf-8")
        value = json.loads(text, parse_constant=no_constant, object_pairs_hook=no_doubled_key)
        canonical_json(value).encode()  # 1e999 is infinite, a lone surrogate is no text: neither has a digest
    except (ValueError, RecursionError) as error:
        raise IntegrityError(f"{what} is torn or not JSON ({error}). {RESTORE}") from error
    if not isinstance(value, dict):
        raise IntegrityError(f"{what}: a JSON object was expected, not {type(value).__name__}. {RESTORE}")
    found = value.get("format")
    if type(found) is not int:  # true would pass for 1
        raise IntegrityError(f"{what}: format: a number was expected, not {found!r}. {RESTORE}")
    if found > newest:
        raise IntegrityError(f"{what} was made by a newer Tandem (format {found}; this one reads {newest}): upgrade")
    return value


def no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a number")


def no_doubled_key(pairs: list[tuple[str, Any]]) -> Record:
    """JSON itself keeps the last of two equal keys silently, so that two readers could see two releases."""
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise ValueError(f"key {next(key for key in keys if keys.count(key) > 1)!r} stands twice")
    return value


def faults(error: ValidationError) -> str:
    """`index.rows: Field required; colour: Extra inputs are not permitted`"""
    details = ((".".join(map(str, detail["loc"])) or "the whole of it", detail["msg"]) for detail in error.errors())
    return "; ".join(f"{where}: {message}" for where, message in details)


def difference(a: Release, b: Release) -> list[str]:
    """What changed from `a` to `b`, one plain sentence each; empty where the two are the same release."""
    return [
        *content("corpus", "documents", a.corpus, b.corpus),
        *content("index", "rows", a.index, b.index),
        *values("index", a.index.model_dump(include={"table"}), b.index.model_dump(include={"table"})),
        *model("embedder", a.embedder, b.embedder),
        *piece("query encoder", a.query_encoder, b.query_encoder),
        *piece("reranker", a.reranker, b.reranker),
        *model("base model", a.base, b.base),
        *piece("adapter", a.adapter, b.adapter),
        *tokenizer_files(a.tokenizer, b.tokenizer),
        *(["chat template: changed"] if a.chat_template != b.chat_template else []),
        *values("prompt", a.prompt, b.prompt),
        *values("retrieval", a.retrieval, b.retrieval),
        *values("decoding", a.decoding, b.decoding),
        *([f"arm: {a.arm} -> {b.arm}"] if a.arm != b.arm else []),
    ]


def content(what: str, unit: str, a: Corpus | Index, b: Corpus | Index) -> list[str]:
    """`corpus: 168 -> 173 documents`"""
    before, after = getattr(a, unit), getattr(b, unit)
    if before != after:
        return [f"{what}: {before} -> {after} {unit}"]
    return [f"{what}: other content, still {after} {unit}"] if a.digest != b.digest else []


def model(what: str, a: Embedder | Base, b: Embedder | Base) -> list[str]:
    """Settings of a model are told one by one; its weights by the digest of its folder."""
    before, after = (each.model_dump(exclude={"digest", "fingerprint"}) for each in (a, b))
    changed = values(what, before, after)
    if a.digest != b.digest:
        changed.append(f"{what}: other files ({short(a.digest)} -> {short(b.digest)})")
    elif isinstance(a, Embedder) and isinstance(b, Embedder) and a.fingerprint != b.fingerprint:
        changed.append(f"{what}: the same files give other vectors (fingerprint)")
    return changed


Piece = Adapter | Embedder | Reranker | None


def piece(what: str, a: Piece, b: Piece) -> list[str]:
    """`adapter: none -> 0123456789ab`"""
    if a == b:
        return []
    before, after = (short(each.digest) if each else "none" for each in (a, b))
    return [f"{what}: {before} -> {after}"]


def tokenizer_files(a: dict[str, str], b: dict[str, str]) -> list[str]:
    return [
        f"tokenizer file {name}: {'removed' if name not in b else 'added' if name not in a else 'changed'}"
        for name in sorted(a.keys() | b.keys())
        if a.get(name) != b.get(name)
    ]


def values(what: str, a: Record, b: Record) -> list[str]:
    """`retrieval k: 5 -> 8`; a long value is cut."""
    return [
        f"{what} {key}: {shown(a, key)} -> {shown(b, key)}"
        for key in sorted(a.keys() | b.keys())
        if shown(a, key, None) != shown(b, key, None)
    ]


def shown(record: Record, key: str, width: int | None = SHOWN) -> str:
    """Compared and shown as canonical JSON: 1 and true are equal in Python, and are not the same release."""
    if key not in record:
        return "(not set)"
    text = canonical_json(record[key])
    return text if width is None or len(text) <= width else f"{text[: width - 3]}..."
