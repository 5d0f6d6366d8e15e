"""Before an erasure: which pages are meant, and which releases, adapters, embedders and prompts knew them. Changes nothing."""

import difflib
import json
import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from flows.doctor import kept
from flows.erasures import lineage_in
from flows.housekeeping import pinned
from flows.ledger import Entry, Found
from flows.settings import Settings
from tasks.canary import SHORTEST, own_lines
from tasks.documents import list_files
from tasks.errors import InputError, IntegrityError
from tasks.manifest import Release
from tasks.pairs import placed_questions
from tasks.prompts import one_line, unpinned
from tasks.questions import PageFinder
from tasks.reading import identity
from tasks.records import Record, iterate_jsonl, read_json
from tasks.rewriting import pages_of, rest_of
from tasks.tombstones import Erased, Erasure, Tombstones, document_key, pairs_of, shot_key

NEAREST = 3  # pages that a message lists


@dataclass(frozen=True)
class Survey:
    documents: list[str]
    erasure: Erasure
    lines: list[str]
    unsaid: list[int]  # releases whose adapter does not say what it learnt


def survey(settings: Settings, entries: list[Entry], names: Sequence[str]) -> Survey:
    """Raises InputError for a page that no release and no corpus knows, and where nothing else would be left."""
    releases = {found: pinned(settings, found) for found in kept(entries)}
    every = [manifest_of(release) for release in releases.values()] + workspace_index(settings)
    indexes = [each for each in every if reads(settings, each)]
    others = [rest_of(settings.index_uri, each, []) for each in indexes]
    known = {row["document"] for rows in others for row in rows} | in_corpus(settings) | learnt(settings, releases)
    documents = resolved(names, known)
    passages = [row for each in indexes for row in pages_of(settings.index_uri, each, documents)]
    brought = texts_of(settings)
    pairs = [*asked_about(settings, known, documents), *judged_about(settings, entries, documents)]
    rest = [row["text"] for rows in others for row in rows if row["document"] not in documents]
    rest += [text for page, text in brought if page not in documents]
    if not in_corpus(settings) - set(documents):
        raise InputError("nothing would be left of the corpus; to remove an assistant whole: make clean")
    erasure = knew(settings, releases, documents, passages, pairs)
    said = [{"answer": answer["content"]} for release in releases.values() for question, answer in turns(release)
            if shot_key(question, answer) in erasure.shots]  # fmt: skip
    rows = [*passages, *({"text": text} for page, text in brought if page in documents)]
    lines = own_lines(rows, [*pairs, *said], [*rest, *asked_otherwise(settings, known, documents)])
    unsaid = [found.number for found, release in releases.items() if says_nothing(settings, release)]
    return Survey(documents, erasure, lines, unsaid)


def manifest_of(release: Release) -> Record:
    return release.index.model_dump() | {"embedder": release.embedder.model_dump()}


def workspace_index(settings: Settings) -> list[Record]:
    path = settings.root / "data/index/manifest.json"
    return [read_json(path)] if path.exists() else []


def reads(settings: Settings, manifest: Record) -> bool:
    """A tombstone does not wait for an index that is gone or torn, which nobody can search either; the purge stops there."""
    from tasks.search import open_version

    try:
        open_version(settings.index_uri, manifest)
    except IntegrityError:
        return False
    return True


def in_corpus(settings: Settings) -> set[str]:
    raw = settings.root / "data/raw/documents"
    return {identity(path) for path in list_files(raw)} if raw.is_dir() else set()


def texts_of(settings: Settings) -> list[tuple[str, str]]:
    """(page, text) as it was brought and as it was read. Of a PDF or docx only the latter."""
    raw, read = settings.root / "data/raw/documents", settings.root / "data/documents/documents.jsonl"
    files = [(identity(path), raw / path) for path in list_files(raw)] if raw.is_dir() else []
    brought = [
        (page, path.read_bytes().decode("utf-8", "ignore")) for page, path in files if path.suffix not in (".pdf", ".docx")
    ]
    return brought + [(record["id"], record["text"]) for record in (iterate_jsonl(read) if read.exists() else ())]


def resolved(names: Sequence[str], known: set[str]) -> list[str]:
    finder, documents = PageFinder(known), set()
    for name in names:
        page, reason = finder.find(name)
        if page is None:
            near = difflib.get_close_matches(name, sorted(known), NEAREST, 0.3)
            hint = f"; the nearest: {', '.join(map(repr, near))}" if near else ""
            raise InputError(f"{reason or f'unknown page {name!r}'}: neither the corpus nor a release has it{hint}")
        documents.add(page)
    return sorted(documents)


# --- Questions and answers


def asked_about(settings: Settings, known: set[str], documents: Sequence[str]) -> list[Record]:
    return [record for record, page in asked(settings, known) if page in documents]


def asked_otherwise(settings: Settings, known: set[str], documents: Sequence[str]) -> Iterator[str]:
    """What is said about other pages, or about none: it tells nothing of those that go."""
    for record, page in asked(settings, known):
        if page not in documents:
            yield f"{record['question']}\n{record['answer']}"


def asked(settings: Settings, known: set[str]) -> Iterator[tuple[Record, str | None]]:
    path, finder = settings.root / "data/raw/questions.jsonl", PageFinder(known)
    for _, record in placed_questions(path, {}) if path.exists() and path.stat().st_size else []:
        yield record, finder.find(record["document"])[0] if record["document"] else None


def judged_about(settings: Settings, entries: list[Entry], documents: Sequence[str]) -> Iterator[Record]:
    """Test questions about the pages, as earlier evaluations asked them."""
    for entry in entries:
        for name in ("answers", "champion answers"):
            path = settings.store / "files" / entry.evidence.get(name, "none")
            for line in path.read_bytes().splitlines() if path.is_file() else ():
                record = json.loads(line)
                if record.get("document") in documents:
                    yield {"text": record.get("text"), "reference": record.get("reference")}


# --- Who knew


def knew(
    settings: Settings, releases: dict[Found, Release], documents: list[str], passages: list[Record], pairs: list[Record]
) -> Erasure:
    salt = secrets.token_hex(32)
    erasure = Erasure(
        format=1,
        salt=salt,
        documents=sorted(document_key(salt, document) for document in documents),
        passages=sorted({row["id"] for row in passages}),
        shots=sorted({key for release in releases.values() for key in tainted_shots(release, passages, pairs)}),
        adapters=[],
        encoders=[],
        releases={},
    )
    tombstones = Tombstones((Erased(erasure, "", "", 0),))
    learnt = sorted(digest for digest, lineage in models(settings, releases) if tombstones.learnt(lineage))
    adapters = {release.adapter.digest for release in releases.values() if release.adapter} | lone_adapters(settings)
    weights = {
        "adapters": [each for each in learnt if each in adapters],
        "encoders": [each for each in learnt if each not in adapters],
    }
    erasure = erasure.model_copy(update=weights)
    return erasure.model_copy(update={"releases": by_number(settings, releases, documents, erasure)})


def by_number(settings: Settings, releases: dict[Found, Release], documents: list[str], erasure: Erasure) -> dict[str, list[int]]:
    def numbers(knows: Any) -> list[int]:
        return sorted({found.number for found, release in releases.items() if knows(release)})

    return {
        "index": numbers(
            lambda release: reads(settings, index := manifest_of(release)) and pages_of(settings.index_uri, index, documents)
        ),
        "adapter": numbers(lambda release: release.adapter and release.adapter.digest in erasure.adapters),
        "encoder": numbers(lambda release: any(each.digest in erasure.encoders for each in tuned(release))),
        "prompt": numbers(lambda release: set(erasure.shots) & {shot_key(*pair) for pair in turns(release)}),
    }


def models(settings: Settings, releases: dict[Found, Release]) -> Iterator[tuple[str, Record | None]]:
    """Every adapter in the store, and every embedder that was tuned here, with what it says that it learnt."""
    for digest in lone_adapters(settings) | {each.digest for release in releases.values() for each in tuned(release)}:
        yield digest, lineage_in(settings.store / "objects" / digest)


def learnt(settings: Settings, releases: dict[Found, Release]) -> set[str]:
    """Pages that no index has any more, and that weights which are still there learnt from."""
    return {page for _, lineage in models(settings, releases) if lineage for page in lineage.get("documents", ())}


def lone_adapters(settings: Settings) -> set[str]:
    """Those of refused candidates too, and of releases that were dropped and not freed yet."""
    return {path.parent.name for path in (settings.store / "objects").glob("*/adapter_config.json")}


def tuned(release: Release) -> list[Any]:
    return [each for each in (release.query_encoder, release.embedder) if each is not None and each.tuned]


def says_nothing(settings: Settings, release: Release) -> bool:
    return release.adapter is not None and lineage_in(settings.store / "objects" / release.adapter.digest) is None


def turns(release: Release) -> list[Any]:
    _, shots = unpinned(release.prompt)
    return [pair for arm in shots.values() for pair in pairs_of(arm)]


def tainted_shots(release: Release, passages: list[Record], pairs: list[Record]) -> Iterator[str]:
    """Turns that show a passage of the pages, or ask about one of them."""
    shown = {one_line(row["text"]) for row in passages} | {str(each.get("question") or each.get("text")) for each in pairs}
    telling = [text for text in shown if len(text) >= SHORTEST // 2]
    for question, answer in turns(release):
        if any(text in one_line(question["content"]) for text in telling):
            yield shot_key(question, answer)
