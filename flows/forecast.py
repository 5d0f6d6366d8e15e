"""What the next build of the index would embed, and for how long: from files and SQLite, without a model or the table."""

import json
from contextlib import closing
from pathlib import Path
from typing import Any

from flows.pipeline import read_lock
from flows.settings import Settings
from tasks.chunks import passages as cut
from tasks.embedding import VectorStore
from tasks.encoders import ENCODER, PINNED, pinned
from tasks.params import ChunksParams, RetrieverParams
from tasks.params_files import load
from tasks.records import Record, folder_digest, iterate_jsonl, read_json, read_jsonl

MOST_PAGES = 2000  # that are cut into passages to count them, at a millisecond each; more are only counted themselves


def forecast(settings: Settings, repo: Any, stale: dict[str, list[str]], after: list[str]) -> Record | None:
    """{"pages": changed, "passages": to embed, "minutes": estimate, "says": a sentence}; what cannot be known cheaply is None.

    None where the index is up to date. `passages` may be too high where the vector store was deleted: rows that the table
    holds are not embedded again.
    """
    waiting = {*stale, *after}
    if "index" not in waiting:
        return None
    if "retriever" in waiting and load(RetrieverParams, settings.root / "params").sides == "both":
        return tuned_anew(settings)
    embedder = None if "models" in waiting else passage_embedder(settings, "retriever" in waiting)
    if "documents" in waiting:
        return described(None, None, None)
    if "chunks" not in waiting:
        return described(None, *to_embed(settings, stored_texts(settings), embedder, whole=True))
    pages = changed_pages(settings, repo, stale)
    return described(len(pages), *to_embed(settings, passage_texts(settings, pages), embedder, whole=False))


def tuned_anew(settings: Settings) -> Record:
    """Every passage, by an embedder that is not there yet: at the pace of the one that it is made from."""
    embedder, pace = settings.root / "data/models/embedder", None
    if embedder.exists() and settings.vectors.exists():
        with closing(VectorStore(settings.vectors, folder_digest(embedder))) as store:
            pace = store.pace()
    found = described(None, passages_in_all(settings, None), pace)
    why = "after training: `sides: both` in params/retriever.yaml embeds every passage by the tuned embedder, to judge it"
    return found | {"says": f"{found['says']}, {why}"}


def described(pages: int | None, passages: int | None, pace: float | None) -> Record:
    of_pages = "" if pages is None else f" of {pages} changed pages"
    minutes = None if passages is None or not pace else round(passages / pace / 60, 1)
    if passages is None:
        says = f"to embed: the new passages{of_pages}; how many is known when the stages above the index have run"
    elif passages == 0:
        says = "to embed: nothing, every passage has its vector"
    else:
        long = (
            "no earlier build tells how long"
            if minutes is None
            else f"about {minutes} minutes"
            if minutes >= 1
            else "under a minute"
        )
        says = f"to embed: about {passages} passages{of_pages}, {long}"
    return {"pages": pages, "passages": passages, "minutes": minutes, "says": says}


def changed_pages(settings: Settings, repo: Any, stale: dict[str, list[str]]) -> list[Record]:
    """The pages whose passages may be others than those in data/chunks: all, where the rule of cutting changed."""
    pages = read_jsonl(settings.root / "data/documents/documents.jsonl")
    if stale.get("chunks") != ["data/documents modified"]:
        return pages
    known = cut_before(settings.root, repo)
    return [page for page in pages if page["digest"] not in known]


def cut_before(root: Path, repo: Any) -> set[str]:
    """The digests of the documents that data/chunks was made of, as DVC's lock and cache still have them."""
    read = {each["path"]: each["md5"] for each in read_lock(root)["stages"]["chunks"]["deps"]}
    listing = Path(repo.cache.local.oid_to_path(read["data/documents"]))
    if not listing.exists():
        return set()
    files = {each["relpath"]: each["md5"] for each in json.loads(listing.read_text())}
    documents = Path(repo.cache.local.oid_to_path(files["documents.jsonl"]))
    return {page["digest"] for page in iterate_jsonl(documents)} if documents.exists() else set()


def passage_texts(settings: Settings, pages: list[Record]) -> list[str] | None:
    if len(pages) > MOST_PAGES:
        return None
    params = load(ChunksParams, settings.root / "params")
    return [
        passage["embedded"]
        for page in pages
        for passage in cut(page, params.max_words, params.join_below_words, params.table_cell)
    ]


def stored_texts(settings: Settings) -> list[str]:
    return [passage["embedded"] for passage in iterate_jsonl(settings.root / "data/chunks/passages.jsonl")]


def to_embed(settings: Settings, texts: list[str] | None, embedder: Path | None, whole: bool) -> tuple[int | None, float | None]:
    """How many texts have no vector yet, and how many this machine embeds in a second, where that is known.

    `whole`: `texts` are those of the whole corpus. Where they are not, and the embedder is another one than that of the index,
    the passages of pages that stay as they are count as well. `embedder`: None where it will be another one.
    """
    if embedder is None or not embedder.exists() or not settings.vectors.exists():
        return passages_in_all(settings, texts), None
    digest = folder_digest(embedder)
    with closing(VectorStore(settings.vectors, digest)) as store:
        if not whole and digest != indexed_embedder(settings):
            return passages_in_all(settings, texts), store.pace()
        return None if texts is None else len(store.missing(texts)), store.pace()


def passage_embedder(settings: Settings, switched_off: bool) -> Path:
    """`switched_off`: the stage will run, and leave the embedder of the passages as it is."""
    retriever = settings.root / "data/retriever"
    tuned = not switched_off and (retriever / PINNED).exists() and pinned(retriever)["sides"] == "both"
    return retriever / ENCODER if tuned else settings.root / "data/models/embedder"


def indexed_embedder(settings: Settings) -> str | None:
    manifest = settings.root / "data/index/manifest.json"
    return str(read_json(manifest)["embedder"]["digest"]) if manifest.exists() else None


def passages_in_all(settings: Settings, texts: list[str] | None) -> int | None:
    counted = settings.root / "data/chunks/counts.json"
    before = int(read_json(counted)["passages"]) if counted.exists() else 0
    known = [before, *([len(set(texts))] if texts is not None else [])]
    return max(known) or None
