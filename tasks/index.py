"""Stage `index`: a LanceDB table version under an immutable tag, and a manifest that says what is true of its content.

Lance keeps the versions outside DVC; the DVC output is the manifest, written last. Equal content gives an equal manifest.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.embedding import Embedder, VectorStore, embed_missing
from tasks.errors import InputError, IntegrityError
from tasks.params import IndexParams
from tasks.records import Record, read_jsonl, value_digest, write_json
from tasks.stage import fresh_folder, run_stage, say
from tasks.vectorstore import check_store, connect, existing_ids, table_names

if TYPE_CHECKING:
    import pyarrow as pa

FORMAT = 1
COLUMNS = ("id", "document", "heading", "text", "embedded")
PRIMARY_KEY = b"lance-schema:unenforced-primary-key:position"


def index(chunks: Path, embedder: Path, out: Path, metrics: Path, store: str, vectors: Path, params: IndexParams) -> None:
    """Bring the table at `store` to the passages in `chunks`, tag it, and write out/manifest.json."""
    started = time.monotonic()
    check_store(store)
    passages = read_jsonl(chunks / "passages.jsonl")
    model = Embedder(embedder)
    manifest = describe(passages, model.identity(), settings(params))
    table, work = bring_up_to_date(store, manifest, passages, model, vectors, params)
    recall = measure_recall(table, model, passages, params)
    fresh_folder(out)
    write_json(metrics, {"recall@10": recall, "seconds": round(time.monotonic() - started, 1), **work})
    write_json(out / "manifest.json", manifest)


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
) -> tuple[Any, dict[str, int]]:
    """Returns the table checked out at the manifest's tag, and what it took."""
    database = connect(store)
    table = open_or_none(database, manifest["table"])
    if table is not None and manifest["tag"] in table.tags.list():
        table.checkout(manifest["tag"])
        say(f"the index already holds these {manifest['rows']} passages")
        return table, {"embedded": 0, "inserted": 0, "deleted": 0}
    held = existing_ids(table) if table is not None else set()
    new = [passage for passage in passages if passage["id"] not in held]
    gone = sorted(held - {passage["id"] for passage in passages})
    cache = VectorStore(vectors, model.digest)
    texts = [passage["embedded"] for passage in new]
    embedded = embed_missing(model, cache, texts, params.batch_tokens, params.passages_per_commit)
    rows = arrow_rows(new, cache, manifest["embedder"]["dimension"])
    table = write_rows(database, table, manifest["table"], rows, gone, params)
    check_content(table, manifest)
    table.tags.create(manifest["tag"], table.version)
    table.checkout(manifest["tag"])
    say(f"index: {manifest['rows']} passages, {len(new)} inserted, {len(gone)} deleted, {embedded} embedded")
    return table, {"embedded": embedded, "inserted": len(new), "deleted": len(gone)}


def open_or_none(database: Any, name: str) -> Any | None:
    return database.open_table(name) if name in table_names(database) else None


def arrow_rows(passages: list[Record], cache: VectorStore, dimension: int) -> "pa.Table":
    import pyarrow as pa

    fields = [pa.field(name, pa.string(), nullable=False) for name in COLUMNS]
    schema = pa.schema([*fields, pa.field("vector", pa.list_(pa.float32(), dimension), nullable=False)])
    columns: list[Any] = [pa.array([passage[name] for passage in passages], pa.string()) for name in COLUMNS]
    matrix = cache.get([passage["embedded"] for passage in passages]) if passages else np.empty((0, dimension), np.float32)
    columns.append(pa.FixedSizeListArray.from_arrays(pa.array(matrix.ravel(), pa.float32()), dimension))
    return pa.Table.from_arrays(columns, schema=schema)


def write_rows(database: Any, table: Any | None, name: str, rows: "pa.Table", gone: list[str], params: IndexParams) -> Any:
    """One commit for the rows, at most two for the index structures, whatever the size of the change."""
    from lancedb.expr import col, lit

    if table is None:
        table = database.create_table(name, rows)
        build_structures(table, params)
        return table
    table.checkout_latest()
    if not table.list_indices():  # whoever made it died before this
        build_structures(table, params)
    merge = table.merge_insert("id").when_not_matched_insert_all()
    if gone:
        merge = merge.when_not_matched_by_source_delete(col("id").isin([lit(key) for key in gone]))
    merge.execute(rows)
    keep_everything_and_optimize(table)
    return table


def build_structures(table: Any, params: IndexParams) -> None:
    from lancedb.index import FTS, IvfFlat

    if PRIMARY_KEY not in (table.schema.field("id").metadata or {}):  # it can be set only once
        table.set_unenforced_primary_key("id")  # without it two writers of one new key both insert it
    text = FTS(language=params.language, stem=params.stem, remove_stop_words=params.remove_stop_words, with_position=False)
    table.create_index("embedded", config=text)
    if table.count_rows() >= params.exact_below_rows:
        table.create_index("vector", config=IvfFlat(distance_type="cosine"))


def keep_everything_and_optimize(table: Any) -> None:
    """Fold new rows into the structures. The cutoff keeps old versions: cleaning up beside a tag raises."""
    from datetime import timedelta

    table.optimize(cleanup_older_than=timedelta(days=36500))


def check_content(table: Any, manifest: dict[str, Any]) -> None:
    """Re-read what was written: merge_insert has been seen to insert nothing without an error (lancedb#3177)."""
    digest = value_digest(sorted(existing_ids(table)))
    if table.count_rows() != manifest["rows"] or digest != manifest["digest"]:
        raise IntegrityError(
            f"table {manifest['table']} holds {table.count_rows()} rows where {manifest['rows']} were written; "
            "another writer is at work on it. Stop it and run again: dvc repro index"
        )


def measure_recall(table: Any, model: Embedder, passages: list[Record], params: IndexParams) -> float:
    """Recall@10 of the vector leg as served against an exact scan, passages as queries, evenly spread over the table."""
    if not passages:
        raise InputError("the corpus has no passages; ingest documents that hold text")
    rows = table.search().select(["embedded", "vector"]).limit(table.count_rows()).to_arrow()
    matrix = np.stack(rows["vector"].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(rows.num_rows, -1))
    step = max(1, rows.num_rows // params.recall_sample)
    queries = model.queries([str(text) for text in rows["embedded"][::step].to_pylist()])
    return round(float(np.mean([recall_of(table, matrix, query) for query in queries])), 4)


def recall_of(table: Any, matrix: np.ndarray, query: np.ndarray, k: int = 10) -> float:
    """By similarity, not by id: equal passages on two pages tie, and either is right."""
    k = min(k, len(matrix))
    threshold = np.sort(matrix @ query)[-k] - 1e-5
    found = table.search(query, vector_column_name="vector").distance_type("cosine").limit(k).to_arrow()["_distance"].to_numpy()
    return float(np.count_nonzero(1 - found >= threshold)) / k


if __name__ == "__main__":
    run_stage(index)
