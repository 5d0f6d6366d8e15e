"""Thirteen months of a real documentation site through the index: `python tests/benchmarks/index_replay.py DATA [--max-words N]`.

DATA is the folder of monthly snapshots, <date>.tar.gz of Markdown pages (dvc-docs; not part of this repository). Each month: the
pages that changed, came or went, the passages that were embedded, Lance commits, bytes written, seconds of the index step; and
whether every row equals that of a build from scratch, and both legs rank alike. What is embedded depends on the texts alone, so
no model is needed to count it.
"""

import argparse
import sys
import tarfile
import tempfile
import time
from pathlib import Path
from typing import Any

from tasks.chunks import passages as cut
from tasks.documents import documents
from tasks.index import bring_up_to_date, describe, settings
from tasks.params import ChunksParams, DocumentsParams, IndexParams
from tasks.params_files import load
from tasks.records import Record, read_jsonl
from tasks.search import Index, open_version

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests"))

from hashing import HashEmbedder  # noqa: E402

PARAMS = load(IndexParams, ROOT / "params").model_copy(update={"passages_per_commit": 100_000})
QUESTIONS = ("How do I push data to S3?", "dvc repro does not run a stage", "remove a remote", "what is a metrics file")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--max-words", type=int, default=load(ChunksParams, ROOT / "params").max_words)
    options = parser.parse_args()
    print("month       pages changed  passages  embedded  share  inserted  deleted  commits      KB  seconds  rows  ranks")
    with tempfile.TemporaryDirectory() as folder:
        replay(sorted(options.data.glob("*.tar.gz")), Path(folder), options.max_words)


def replay(snapshots: list[Path], folder: Path, max_words: int) -> None:
    before: dict[str, str] = {}
    for number, snapshot in enumerate(snapshots):
        pages = read_pages(snapshot, folder / str(number))
        now = {page["id"]: page["digest"] for page in pages}
        changed = len({page for page, _ in now.items() ^ before.items()})
        passages = [
            passage for page in pages for passage in cut(page, max_words, load(ChunksParams, ROOT / "params").join_below_words)
        ]
        held, started = size(folder / "index"), time.monotonic()
        manifest, work = build(folder, "index", passages)
        seconds = time.monotonic() - started
        same = compare(folder, number, manifest, passages)
        print(
            f"{snapshot.name[:10]} {len(pages):6} {changed:7} {len(passages):9} {work['embedded']:9}"
            f" {work['embedded'] / len(passages):6.1%} {work['inserted']:9} {work['deleted']:8} {work['commits']:8}"
            f" {(size(folder / 'index') - held) / 1000:7.0f} {seconds:8.2f}  {same}",
            flush=True,
        )
        before = now


def read_pages(snapshot: Path, folder: Path) -> list[Record]:
    with tarfile.open(snapshot) as archive:
        archive.extractall(folder / "raw", filter="data")
    documents(folder / "raw", folder / "documents", folder / "files.jsonl", load(DocumentsParams, ROOT / "params"))
    return read_jsonl(folder / "documents/documents.jsonl")


def build(folder: Path, name: str, passages: list[Record]) -> tuple[dict[str, Any], dict[str, Any]]:
    model: Any = HashEmbedder()
    manifest = describe(passages, model.identity(), settings(PARAMS))
    _, work = bring_up_to_date(str(folder / name), manifest, passages, model, folder / "vectors.sqlite", PARAMS)
    assert len(model.embedded) == work["embedded"]
    return manifest, work


def compare(folder: Path, number: int, manifest: dict[str, Any], passages: list[Record]) -> str:
    """Rows, then rankings, against a store that never held anything else."""
    fresh, _ = build(folder, f"fresh-{number}", passages)
    stores = [str(folder / "index"), str(folder / f"fresh-{number}")]
    rows = [open_version(store, manifest).search().limit(10**6).to_arrow().sort_by("id") for store in stores]
    model: Any = HashEmbedder()
    legs = [[Index(store, manifest, model).legs(question, 50)[:2] for question in QUESTIONS] for store in stores]
    equal = fresh == manifest and rows[0].equals(rows[1])
    return f"{'equal' if equal else 'DIFFER':5} {'equal' if keys(legs[0]) == keys(legs[1]) else 'DIFFER'}"


def keys(legs: list[Any]) -> list[list[tuple[str, float]]]:
    return [[(key, round(score, 4)) for key, score in leg] for pair in legs for leg in pair]


def size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0


if __name__ == "__main__":
    main()
