"""LangChain: Markdown files into LanceDB by MiniLM with `index()` and a SQLRecordManager.

default: pieces of 1000 characters, 200 overlapping, as its tutorials cut, batches of 100, cleanup "full" (the only one that
removes what left the folder). tuned: a passage a section, batches of 1000, and vectors cached by text (CacheBackedEmbeddings).
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from langchain_classic.embeddings import CacheBackedEmbeddings
from langchain_classic.indexes import SQLRecordManager
from langchain_classic.storage import LocalFileStore
from langchain_community.vectorstores import LanceDB
from langchain_core.documents import Document
from langchain_core.embeddings import Embeddings
from langchain_core.indexing import index
from langchain_huggingface import HuggingFaceEmbeddings
from langchain_text_splitters import MarkdownHeaderTextSplitter, RecursiveCharacterTextSplitter

sys.path.insert(0, str(Path(__file__).parents[1]))

import observed

TABLE = "passages"


def embedder() -> Embeddings:
    model = HuggingFaceEmbeddings(model_name=observed.MODEL, encode_kwargs={"normalize_embeddings": True})
    model._client = observed.counted(model._client)
    if not observed.TUNED:
        return model
    store = LocalFileStore(observed.STATE / "vectors")
    return CacheBackedEmbeddings.from_bytes_store(model, store, namespace="minilm", key_encoder="sha256")


def passages() -> Iterator[Document]:
    pieces = RecursiveCharacterTextSplitter(chunk_size=1000, chunk_overlap=200)
    sections = MarkdownHeaderTextSplitter([("#", "page"), ("##", "section")])
    for path in sorted(observed.PAGES.rglob("*.md")):
        source = path.relative_to(observed.PAGES).as_posix()
        text = path.read_text(encoding="utf-8")
        found = sections.split_text(text) if observed.TUNED else pieces.create_documents([text])
        for passage in found:
            yield Document(passage.page_content, metadata={**passage.metadata, "source": source})


def main() -> None:
    observed.STATE.mkdir(parents=True, exist_ok=True)
    model = embedder()
    began = time.time()
    records = SQLRecordManager("passages", db_url=f"sqlite:///{observed.STATE / 'records.sqlite'}")
    records.create_schema()
    store = LanceDB(uri=str(observed.STATE / "lancedb"), table_name=TABLE, embedding=model, mode="append")
    size, encoder = (1000, "blake2b") if observed.TUNED else (100, "sha1")
    index(passages(), records, store, batch_size=size, cleanup="full", source_id_key="source", key_encoder=encoder)
    observed.report(began, texts(store))


def texts(store: LanceDB) -> Iterator[str]:
    yield from store.get_table().to_arrow()["text"].to_pylist()


if __name__ == "__main__":
    main()
