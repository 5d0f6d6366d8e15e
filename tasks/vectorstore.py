"""Where LanceDB tables live, and the few calls that several modules need."""

import re
from datetime import timedelta
from typing import Any

from tasks.errors import InputError

# Lance commits with put-if-absent on these; on any other scheme it falls back to an unsafe commit with a mere warning
SAFE_SCHEMES = ("s3", "gs", "az")


def check_store(store: str) -> None:
    """Raises InputError for a URI scheme on which two writers could overwrite each other's commits."""
    scheme = re.match(r"^([a-zA-Z0-9+.-]+)://", store)
    if not store:
        raise InputError("no place for the index: set TANDEM_INDEX_URI, or run through `make` or `tandem`, which set it")
    if scheme and scheme[1] not in SAFE_SCHEMES:
        raise InputError(
            f"TANDEM_INDEX_URI={store}: {scheme[1]}:// has no safe commit; use a folder or {', '.join(SAFE_SCHEMES)}"
        )


def connect(store: str) -> Any:
    """A database whose handles always see the latest commit."""
    import lancedb

    return lancedb.connect(store, read_consistency_interval=timedelta(0))


def table_names(database: Any) -> list[str]:
    return list(database.list_tables().tables)


def existing_ids(table: Any) -> set[str]:
    rows = table.search().select(["id"]).limit(table.count_rows() or 1).to_arrow()
    return set(rows["id"].to_pylist())
