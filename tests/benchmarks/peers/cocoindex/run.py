"""CocoIndex: Markdown files into LanceDB by MiniLM, in the shape of its own example (examples/text_embedding_lancedb).

default: its example's splitter (2000 bytes, 500 overlapping). tuned: a passage a section, so that an edit moves one.
`cocoindex update run.py` is what its users run; `python run.py` does the same and reports what it did.
"""

import pathlib
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Annotated, Any

import cocoindex as coco
from cocoindex.connectors import lancedb, localfs
from cocoindex.ops.sentence_transformers import SentenceTransformerEmbedder
from cocoindex.ops.text import RecursiveSplitter, SeparatorSplitter
from cocoindex.resources.chunk import Chunk
from cocoindex.resources.file import FileLike, PatternFilePathMatcher
from cocoindex.resources.id import IdGenerator
from numpy.typing import NDArray

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

import observed

TABLE = "passages"


class Embedder(SentenceTransformerEmbedder):  # type: ignore[misc]
    def _get_model(self) -> Any:
        fresh = self._model is None
        model = super()._get_model()
        return observed.counted(model) if fresh else model


DATABASE = coco.ContextKey[lancedb.LanceAsyncConnection]("database")
EMBEDDER = coco.ContextKey[Embedder]("embedder")
SECTIONS = SeparatorSplitter([r"\n\n## "])
PIECES = RecursiveSplitter()


@dataclass
class Passage:
    id: int
    filename: str
    start: int
    text: str
    embedding: Annotated[NDArray[Any], EMBEDDER]


@coco.lifespan
async def resources(builder: coco.EnvironmentBuilder) -> AsyncIterator[None]:
    builder.settings.db_path = observed.STATE / "cocoindex.db"
    builder.provide(DATABASE, await lancedb.connect_async(str(observed.STATE / "lancedb")))
    builder.provide(EMBEDDER, Embedder(observed.MODEL))
    yield


def cut(text: str) -> list[Chunk]:
    if observed.TUNED:
        return SECTIONS.split(text)[1:]  # the title stands before the first section
    return PIECES.split(text, chunk_size=2000, chunk_overlap=500, language="markdown")


@coco.fn
async def declare(chunk: Chunk, filename: str, ids: IdGenerator, table: lancedb.TableTarget[Passage]) -> None:
    vector = await coco.use_context(EMBEDDER).embed(chunk.text)
    number = await ids.next_id(chunk.text)
    table.declare_row(row=Passage(number, filename, chunk.start.char_offset, chunk.text, vector))


@coco.fn(memo=True)
async def process_file(file: FileLike, table: lancedb.TableTarget[Passage]) -> None:
    text = await file.read_text()
    await coco.map(declare, cut(text), str(file.file_path.path), IdGenerator(), table)


@coco.fn
async def process(pages: pathlib.Path) -> None:
    schema = await lancedb.TableSchema.from_class(Passage, primary_key=["id"])
    table = await lancedb.mount_table_target(DATABASE, TABLE, schema)
    files = localfs.walk_dir(pages, recursive=True, path_matcher=PatternFilePathMatcher(included_patterns=["**/*.md"]))
    await coco.mount_each(process_file, files.items(), table)


app = coco.App(coco.AppConfig(name="Passages"), process, pages=observed.PAGES)


def main() -> None:
    observed.STATE.mkdir(parents=True, exist_ok=True)
    began = time.time()
    app.update_blocking()
    observed.report(began, texts())


def texts() -> Iterator[str]:
    import lancedb as plain

    yield from plain.connect(str(observed.STATE / "lancedb")).open_table(TABLE).to_arrow()["text"].to_pylist()


if __name__ == "__main__":
    main()
