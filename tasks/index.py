"""Stage `index`: a LanceDB table version under an immutable tag, and a manifest that says what is true of its content.

Lance keeps the versions outside DVC; the DVC output is the manifest, written last. Equal content gives an equal manifest,
and a build that goes on from an older version gives the rows and the scores of a build from scratch.
"""

import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.embedding import Embedder, VectorStore, embed_missing, open_aside
from tasks.embedding_on_ray import embed_missing_on_ray
from tasks.encoders import passage_encoder
from tasks.errors import InputError, IntegrityError, RefusedError
from tasks.failpoints import failpoint
from tasks.lean_imports import import_arrow_without_pandas
from tasks.nearest import make_index, measure, served_recall
from tasks.params import IndexParams
from tasks.records import Record, read_jsonl, value_digest, write_json
from tasks.stage import fresh_folder, run_stage, say
from tasks.tables import (
    check_store,
    checkout,
    connect,
    existing_ids,
    full_text,
    only_writer,
    open_table,
    restore_newest_tag,
    tags,
)

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1  # of the table
COLUMNS = ("id", "document", "heading", "text", "embedded")
PRIMARY_KEY = b"lance-schema:unenforced-primary-key:position"
SCANNED_SHARE = 0.1  # of the rows that may stand outside the vector index, compared one by one, before it is made anew


def index(
    chunks: Path, embedder: Path, retriever: Path, out: Path, metrics: Path, store: str, vectors: Path, params: IndexParams
) -> None:
    """Bring the table at `store` to the passages in `chunks`, tag it, and write out/manifest.json."""
    started = time.monotonic()
    check_store(store)
    with ThreadPoolExecutor(1) as aside:  # opening a model takes as long as all that is done here meanwhile
        opened = open_aside(aside, passage_encoder(embedder, retriever))
        passages = read_jsonl(chunks / "passages.jsonl")
        if not passages:
            raise InputError("the corpus has no passages; ingest documents that hold text")
        connect(store)  # a bucket that is not there is said before anything is embedded
        model = opened.result()
    manifest = describe(passages, model.identity(), settings(params))
    with only_writer(store):  # until the manifest is there: maintenance drops a tag that nothing names
        _, work = bring_up_to_date(store, manifest, passages, model, vectors, params)
        check_recall(work["recall@10"], params.min_recall)
        failpoint("index.before-manifest")
        fresh_folder(out)
        write_json(metrics, {"seconds": round(time.monotonic() - started, 1), **work})
        write_json(out / "manifest.json", manifest)
        failpoint("index.after-manifest")


def settings(params: IndexParams) -> dict[str, Any]:
    """The knobs that change the table's own bytes (the others change only how it is made)."""
    return params.model_dump(include={"language", "stem", "remove_stop_words", "exact_below_rows"})


def describe(passages: list[Record], identity: dict[str, Any], table_settings: dict[str, Any]) -> dict[str, Any]:
    """The manifest: content only, no time, no place, no measurement."""
    name = value_digest([FORMAT, identity["digest"], table_settings])[:16]
    digest = value_digest(sorted(passage["id"] for passage in passages))
    return {
        "format": FORMAT,
        "table": f"passages-{name}",
        "tag": f"rows-{digest[:32]}",
        "rows": len(passages),
        "digest": digest,
        "documents": len({passage["document"] for passage in passages}),
        "embedder": identity,
    }


def bring_up_to_date(
    store: str, manifest: dict[str, Any], passages: list[Record], model: Embedder, vectors: Path, params: IndexParams
) -> tuple[Any, dict[str, Any]]:
    """Returns the table checked out at the manifest's tag, and what it took: "embedded", "inserted", "deleted" passages, Lance
    "commits", and the seconds of embedding ("embedding_seconds"); and the "recall@10" of the vector leg."""
    database = connect(store)
    table = open_table(database, manifest["table"])
    before = table.version if table is not None else 0
    if table is not None and manifest["tag"] in tags(table):
        checkout(table, manifest["tag"])
        say(f"the index already holds these {manifest['rows']} passages")
        recall = measure(table, model, manifest["embedder"], params.recall_sample).recall
        return table, {"embedded": 0, "embedding_seconds": 0.0, "inserted": 0, "deleted": 0, "commits": 0, "recall@10": recall}
    if table is not None and table.count_rows() == 0:  # left by a maintenance that died (tasks.upkeep.prune)
        restore_newest_tag(table)
    held = existing_ids(table) if table is not None else set()
    new = [passage for passage in passages if passage["id"] not in held]
    gone = sorted(held - {passage["id"] for passage in passages})
    cache = VectorStore(vectors, model.digest)
    started = time.monotonic()
    texts = [passage["embedded"] for passage in new]
    embed = embed_missing_on_ray if params.engine == "ray" else embed_missing
    embedded = embed(model, cache, texts, params.batch_tokens, params.passages_per_commit)
    work = {"embedded": embedded, "embedding_seconds": round(time.monotonic() - started, 1)}
    failpoint("index.before-rows")
    table = write_rows(database, table, manifest, new, gone, cache)
    failpoint("index.after-rows")
    recall = build_structures(table, model, manifest["embedder"], params)
    failpoint("index.after-structures")
    seal_version(table, manifest["tag"], [passage["id"] for passage in passages])
    say(f"index: {manifest['rows']} passages, {len(new)} inserted, {len(gone)} deleted, {embedded} embedded")
    return table, work | {"inserted": len(new), "deleted": len(gone), "commits": table.version - before, "recall@10": recall}


def write_rows(
    database: Any, table: Any | None, manifest: dict[str, Any], new: list[Record], gone: list[str], cache: VectorStore
) -> Any:
    """One commit, whatever the size of the change; none where a build died after it."""
    from lancedb.expr import col, lit

    if table is None:
        rows = arrow_rows(new, cache, manifest["embedder"]["dimension"])
        return database.create_table(manifest["table"], rows)
    if not new and not gone:
        return table
    rows = arrow_rows(new, cache, manifest["embedder"]["dimension"])
    set_primary_key(table)
    merge = table.merge_insert("id").when_not_matched_insert_all()
    if gone:
        merge = merge.when_not_matched_by_source_delete(col("id").isin([lit(key) for key in gone]))
    merge.execute(rows)
    return table


def arrow_rows(passages: list[Record], cache: VectorStore, dimension: int) -> "pa.Table":
    import pyarrow as pa

    fields = [pa.field(name, pa.string(), nullable=False) for name in COLUMNS]
    fields[0] = fields[0].with_metadata({PRIMARY_KEY: b"1"})  # without it two writers of one new key both insert it
    schema = pa.schema([*fields, pa.field("vector", pa.list_(pa.float32(), dimension), nullable=False)])
    columns: list[Any] = [pa.array([passage[name] for passage in passages], pa.string()) for name in COLUMNS]
    matrix = cache.get([passage["embedded"] for passage in passages]) if passages else np.empty((0, dimension), np.float32)
    columns.append(pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel(), pa.float32()), dimension))
    return pa.Table.from_arrays(columns, schema=schema)


def set_primary_key(table: Any) -> None:
    """A table keeps the key that it was made with; it can be set only once."""
    if PRIMARY_KEY not in (table.schema.field("id").metadata or {}):
        table.set_unenforced_primary_key("id")


def build_structures(table: Any, model: Embedder, identity: Mapping[str, Any], params: IndexParams) -> float:
    """One commit for the full text, at times one for the vectors and one for how they are searched; returns their recall@10.

    The full text is indexed anew each time, at 20 microseconds a passage. `optimize` would do as well, but merges fragments while
    at it: four commits that write every vector of the table again. `tandem maintain` does that, when it is worth it.
    """
    made = index_vectors(table, params)
    with ThreadPoolExecutor(1) as aside:  # it keeps one core busy
        text = aside.submit(table.create_index, "embedded", config=full_text(params))
        measured = measure(table, model, identity, params.recall_sample)
        text.result()
    return served_recall(table, model, identity, measured, params.min_recall, made)


def index_vectors(table: Any, params: IndexParams) -> bool:
    """Whether their index was made anew: it may be missing, or hold too few of the rows. One that is not worth it is dropped."""
    rows, outside = table.count_rows(), rows_outside(table)
    if rows < params.exact_below_rows:
        if outside is not None:
            table.drop_index("vector_idx")
        return False
    due = outside is None or outside > SCANNED_SHARE * rows
    if due:
        make_index(table)
    return due


def rows_outside(table: Any) -> int | None:
    """How many rows the vector index does not hold; they are found by comparing. None where there is no such index."""
    stats = table.index_stats("vector_idx")
    return None if stats is None else int(stats.num_unindexed_rows)


def seal_version(table: Any, tag: str, ids: list[str]) -> None:
    """Pin the version, re-read it, tag it: what another writer commits meanwhile is not in it."""
    version = table.version
    table.checkout(version)
    check_content(table, ids)
    failpoint("index.before-tag")
    if tag not in tags(table):
        table.tags.create(tag, version)
    failpoint("index.after-tag")


def check_content(table: Any, ids: list[str]) -> None:
    """Re-read what was written: merge_insert has been seen to insert nothing without an error (lancedb#3177)."""
    if table.count_rows() != len(ids) or existing_ids(table) != set(ids):
        raise IntegrityError(
            f"table {table.name} holds {table.count_rows()} rows where {len(ids)} were written; "
            "another writer is at work on it. Stop it and run again: dvc repro index"
        )


def check_recall(recall: float, floor: float) -> None:
    if recall < floor:
        raise RefusedError(
            f"the index finds {recall:.3f} of what an exact scan finds; min_recall in params/index.yaml is {floor}. "
            "Raise exact_below_rows there, or lower min_recall"
        )


if __name__ == "__main__":
    import_arrow_without_pandas()
    run_stage(index)
