"""Raw files are read on many machines: their bytes go there, so nothing but this machine needs the folder."""

from collections.abc import Generator, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import orjson

from tasks.cluster import on_ray
from tasks.errors import IntegrityError
from tasks.kept import Kept
from tasks.params import DocumentsParams
from tasks.reading import Files, read_files, reading_rule

if TYPE_CHECKING:
    import pyarrow as pa

BLOCK_BYTES = 4_000_000  # of files that go to a process together


class ReadingWorker:
    def __init__(self, params: DocumentsParams, reading: str) -> None:
        self.params = params
        if reading_rule(params) != reading:
            raise IntegrityError(
                "another version of Tandem or of a parser is on this machine; bring the clones of all machines to one state"
            )

    def __call__(self, block: "pa.Table") -> "pa.Table":
        import pyarrow as pa

        files = zip(block["path"].to_pylist(), block["data"].to_pylist(), strict=True)
        paths, pages = zip(*read_files(files, self.params), strict=True)
        lines, notes = [bytes(page.lines) for page in pages], [orjson.dumps(page.note) for page in pages]
        return pa.table({"path": list(paths), "lines": pa.array(lines, pa.large_binary()), "note": notes})


def read_files_on_ray(files: Files, params: DocumentsParams) -> Generator[tuple[str, Kept]]:
    """As `tasks.reading.read_files`, in the order in which they are ready."""
    mend = "nothing was written; run the same command again, or set engine: local in params/documents.yaml"
    with closing(on_ray(ReadingWorker, (params, reading_rule(params)), tables(files), "reading files", mend)) as blocks:
        for block in blocks:
            for path, lines, note in zip(*(block[name].to_pylist() for name in ("path", "lines", "note")), strict=True):
                yield path, Kept(lines, orjson.loads(note))


def tables(files: Files) -> Iterator["pa.Table"]:
    """Of `BLOCK_BYTES`, or of one file."""
    group: list[tuple[str, bytes]] = []
    held = 0
    for path, data in files:
        if group and held + len(data) > BLOCK_BYTES:
            yield table(group)
            group, held = [], 0
        group.append((path, data))
        held += len(data)
    if group:
        yield table(group)


def table(group: list[tuple[str, bytes]]) -> "pa.Table":
    import pyarrow as pa

    paths, contents = zip(*group, strict=True)
    return pa.table({"path": list(paths), "data": pa.array(contents, pa.large_binary())})
