"""Pages out of a LanceDB table for good: every version that stays is written again, without their rows, into new files.

To delete rows only marks them, and compaction leaves a fragment alone that lost less than a tenth of its rows. So the oldest
version that stays overwrites the table with what it may keep, the later ones are brought up to date from there, and then the
versions before, with all their files, can go (tasks.upkeep.keep_versions, `drop_orphans`).
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tasks.embedding import Embedder
from tasks.errors import IntegrityError
from tasks.index import COLUMNS, FORMAT, build_structures, check_content, set_primary_key, settings
from tasks.params import IndexParams
from tasks.records import Record, value_digest
from tasks.search import open_version
from tasks.tables import checkout, connect, existing_ids, is_local, open_table, table_names, tags
from tasks.upkeep import OURS


class Form(NamedTuple):
    """A version that stays: the tag under which it lies now, and the manifest that it will have."""

    tag: str
    manifest: Record  # {"table", "tag", "rows", "digest", "embedder"}


def pages_of(store: str, manifest: Record, pages: Sequence[str]) -> list[Record]:
    """The rows of these pages in one version, without vectors."""
    table = open_table(connect(store), manifest["table"])
    if table is None or manifest["tag"] not in tags(table):
        return []
    checkout(table, manifest["tag"])
    return list(table.search().where(among(pages)).select(list(COLUMNS)).limit(table.count_rows() or 1).to_list())


def rest_of(store: str, manifest: Record, pages: Sequence[str]) -> list[Record]:
    """The other rows, ids and texts only."""
    table = open_version(store, manifest)
    rows = table.search().where(outside(pages)).select(["id", "document", "text"]).limit(table.count_rows() or 1)
    return list(rows.to_list())


def among(pages: Sequence[str]) -> Any:
    from lancedb.expr import col, lit

    return col("document").isin([lit(page) for page in pages])


def outside(pages: Sequence[str]) -> Any:
    from lancedb.expr import lit

    return among(pages).eq(lit(False))


def amended_manifest(store: str, manifest: Record, pages: Sequence[str]) -> Record:
    """As `tasks.index.describe` makes it, of the rows that are left."""
    rows = rest_of(store, manifest, pages)
    digest = value_digest(sorted(row["id"] for row in rows))
    documents = {"documents": len({row["document"] for row in rows})} if "documents" in manifest else {}
    return {**manifest, "tag": f"rows-{digest[:32]}", "rows": len(rows), "digest": digest, **documents}


def names_table(table: str, embedder: str, params: IndexParams) -> bool:
    """Whether these params make a table of that name: those that its full-text index has to be made with."""
    return table == f"{OURS}{value_digest([FORMAT, embedder, settings(params)])[:16]}"


def ever_held(store: str, name: str, pages: Sequence[str]) -> bool:
    """Whether any version that is still there holds a row of them: then the files that versions share do."""
    database = connect(store)
    table = open_table(database, name)
    if table is None:
        return False
    for version in table.list_versions():
        old = database.open_table(name)
        old.checkout(version["version"])
        if old.search().where(among(pages)).select(["id"]).limit(1).to_list():
            return True
    return False


def rewrite(store: str, name: str, forms: Sequence[Form], pages: Sequence[str], params: IndexParams, model: Embedder) -> None:
    """Needs `only_writer`. Every form gets its version, under its tag; what was there before stays until it is pruned."""
    table = open_table(connect(store), name)
    order = tags(table) if table is not None else {}
    written: Any = None
    for form in sorted(forms, key=lambda form: order[form.tag]):
        source: Any = open_table(connect(store), name)
        checkout(source, form.tag)
        written = brought(store, name, written, source, pages)
        build_structures(written, model, form.manifest["embedder"], params)
        place_tag(store, name, form)


def brought(store: str, name: str, written: Any, source: Any, pages: Sequence[str]) -> Any:
    """The newest version of the table, with exactly the rows of `source` that may stay, in files that hold no other."""
    from lancedb.expr import col, lit

    rows = source.search().where(outside(pages)).select([*COLUMNS, "vector"]).limit(source.count_rows() or 1).to_arrow()
    if written is None:
        made = connect(store).create_table(name, rows, mode="overwrite")
        set_primary_key(made)
        return made
    ids = set(rows["id"].to_pylist())
    gone = sorted(existing_ids(written) - ids)
    merge = written.merge_insert("id").when_not_matched_insert_all()
    if gone:
        merge = merge.when_not_matched_by_source_delete(col("id").isin([lit(key) for key in gone]))
    merge.execute(rows)
    return written


def place_tag(store: str, name: str, form: Form) -> None:
    table: Any = open_table(connect(store), name)
    version = table.version
    table.checkout(version)
    ids = sorted(existing_ids(table))
    check_content(table, ids)
    if value_digest(ids) != form.manifest["digest"]:
        raise IntegrityError(f"somebody else writes to table {name}; nothing of it was freed. Run it again: tandem maintain")
    if form.manifest["tag"] in tags(table):
        table.tags.update(form.manifest["tag"], version)
    else:
        table.tags.create(form.manifest["tag"], version)


# --- Files of a local store that no version names


def orphans(store: str) -> list[Path]:
    """Data, deletion and index files of our tables that no manifest names: a killed build left them, or a cleanup stranded them.
    What is in them cannot be read by a version, so it can only go."""
    if not is_local(store):
        return []
    return [
        path for name in table_names(connect(store)) if name.startswith(OURS) for path in unnamed(Path(store) / f"{name}.lance")
    ]


def unnamed(table: Path) -> Iterable[Path]:
    manifests = b"".join(path.read_bytes() for path in sorted((table / "_versions").glob("*.manifest")))
    for path in sorted((table / "data").rglob("*")):
        if path.is_file() and path.relative_to(table / "data").as_posix().encode() not in manifests:
            yield path
    for folder in sorted((table / "_indices").glob("*")):
        if folder.is_dir() and bytes.fromhex(folder.name.replace("-", "")) not in manifests:
            yield from sorted(path for path in folder.rglob("*") if path.is_file())


def drop_orphans(store: str) -> int:
    """Needs `only_writer`, and nobody who builds elsewhere: what is being made has no manifest yet either."""
    found = orphans(store)
    for path in found:
        path.unlink()
    return len(found)
