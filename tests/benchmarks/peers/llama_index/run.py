"""LlamaIndex: Markdown files into LanceDB by MiniLM with an `IngestionPipeline` that upserts and deletes by its docstore.

default: SentenceSplitter (1024 tokens, 200 overlapping), docstore and cache persisted as its documentation has it. tuned: each
section is a document of its own, so that an edit moves one passage, and no cache, whose file of vectors is read and written
whole.
"""

import sys
import time
from collections.abc import Iterator
from pathlib import Path

from llama_index.core import Document, SimpleDirectoryReader
from llama_index.core.ingestion import DocstoreStrategy, IngestionPipeline
from llama_index.core.node_parser import MarkdownNodeParser, SentenceSplitter
from llama_index.core.storage.docstore import SimpleDocumentStore
from llama_index.embeddings.huggingface import HuggingFaceEmbedding
from llama_index.vector_stores.lancedb import LanceDBVectorStore

sys.path.insert(0, str(Path(__file__).parents[1]))

import observed

TABLE = "passages"


def embedder() -> HuggingFaceEmbedding:
    model = HuggingFaceEmbedding(model_name=observed.MODEL)
    model._model = observed.counted(model._model)
    return model


def documents() -> list[Document]:
    found = SimpleDirectoryReader(str(observed.PAGES), recursive=True, filename_as_id=True).load_data()
    return sections(found) if observed.TUNED else found


def sections(pages: list[Document]) -> list[Document]:
    """A document a section, named by its page and its place there; the title alone is none."""
    parser = MarkdownNodeParser()
    cut = [(page, parser.get_nodes_from_documents([page])) for page in pages]
    return [
        Document(doc_id=f"{page.doc_id}#{place}", text=node.get_content(), metadata={"file_path": page.metadata["file_path"]})
        for page, nodes in cut
        for place, node in enumerate(nodes)
        if node.get_content().startswith("## ")
    ]


def pipeline(model: HuggingFaceEmbedding) -> IngestionPipeline:
    there = (observed.STATE / f"lancedb/{TABLE}.lance").exists()
    store = LanceDBVectorStore(uri=str(observed.STATE / "lancedb"), table_name=TABLE, mode="append" if there else "overwrite")
    made = IngestionPipeline(
        transformations=[SentenceSplitter(), model],
        docstore=SimpleDocumentStore(),
        vector_store=store,
        docstore_strategy=DocstoreStrategy.UPSERTS_AND_DELETE,
        disable_cache=observed.TUNED,
    )
    if (observed.STATE / "pipeline").exists():
        made.load(str(observed.STATE / "pipeline"))
    return made


def main() -> None:
    observed.STATE.mkdir(parents=True, exist_ok=True)
    model = embedder()
    began = time.time()
    made = pipeline(model)
    made.run(documents=documents())
    made.persist(str(observed.STATE / "pipeline"))
    observed.report(began, texts())


def texts() -> Iterator[str]:
    import lancedb

    yield from lancedb.connect(str(observed.STATE / "lancedb")).open_table(TABLE).to_arrow()["text"].to_pylist()


if __name__ == "__main__":
    main()
