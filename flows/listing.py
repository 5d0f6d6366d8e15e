"""The files of an indexed version by digest, listed when it is released: what is opened later is what was released, or refused.

One list per table and tag, beside the store's pieces. Lance commits a version anew when maintenance moves its tag, so a list is
true of one version number; where the tag stands at another, there is nothing to compare until the version is listed again.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from flows.aside import aside, new_file, remove, write_new
from flows.settings import Settings
from tasks.errors import IntegrityError
from tasks.failpoints import failpoint
from tasks.manifest import sealed_json
from tasks.records import Record, canonical_json, sync, value_digest
from tasks.table_files import differing, digests_of, make_durable, table_folder, tagged_version
from tasks.tables import is_local

FORMAT = 1
MEND = "To mend: restore that file from a backup, or run: tandem doctor --mend"


def check(settings: Settings, index: Mapping[str, Any]) -> bool:
    """Whether every file of the version was compared and is as it was released; False where no list is true of it.

    Raises IntegrityError naming file, expected and actual digest. `index`: "table" and "tag", as a release pins them.
    """
    listed = applying(settings, index)
    if listed is None:
        return False
    faults = differing(folder_of(settings, index), listed["files"])
    if faults:
        raise IntegrityError(f"the index of this release is damaged: {'; '.join(faults)}. {MEND}")
    return True


def applying(settings: Settings, index: Mapping[str, Any]) -> Record | None:
    """The list, where it is of the version at which the tag stands."""
    listed = read(place(settings, index)) if is_local(settings.index_uri) else None
    stands = tagged_version(folder_of(settings, index), index["tag"]) if listed else None
    return listed if listed and listed["version"] == stands else None


def note(settings: Settings, index: Mapping[str, Any]) -> None:
    """Make the version durable and list its files; of one that is listed they are compared. Needs `only_writer`, and rows that
    were re-read. On object storage neither is ours to do.

    Raises IntegrityError where a file is not what another list says: it was damaged before.
    """
    if not is_local(settings.index_uri):
        return
    folder = folder_of(settings, index)
    failpoint("listing.before-sync")
    make_durable(folder)
    if check(settings, index):
        return
    version = int(tagged_version(folder, index["tag"]) or 0)
    known = {name: digest for listed in others(settings, index) for name, digest in listed["files"].items()}
    found = digests_of(folder, version)
    faults = differing(folder, {name: digest for name, digest in known.items() if name in found and is_immutable(name)})
    if faults:
        raise IntegrityError(f"the index is damaged: {'; '.join(faults)}. {MEND}")
    write(settings, index, {"format": FORMAT, "table": index["table"], "tag": index["tag"], "version": version, "files": found})


def is_immutable(name: str) -> bool:
    """A number of a version can be given twice, after the newest was torn; the other names are random."""
    return not name.startswith("_versions/")


def write(settings: Settings, index: Mapping[str, Any], listed: Record) -> None:
    path = place(settings, index)
    with aside(path.parent, new_file) as new:
        write_new(new, f"{canonical_json(listed | {'digest': value_digest(listed)})}\n".encode())
        failpoint("listing.before-rename")
        os.replace(new, path)
    sync(path.parent)


def read(path: Path) -> Record | None:
    """Raises IntegrityError where it is not what was written."""
    if not path.exists():
        return None
    found = sealed_json(path.read_bytes(), f"the list {path} of the files of an index", FORMAT)
    digest = found.pop("digest", None)
    if digest != value_digest(found):
        raise IntegrityError(f"{path}, a list of the files of an index, was changed; delete it, then run: tandem doctor --mend")
    return found


def others(settings: Settings, index: Mapping[str, Any]) -> Iterator[Record]:
    """Lists of the same table, whose versions share files."""
    for path in sorted((settings.store / "index").glob("*.json")):
        listed = read(path)
        if listed and listed["table"] == index["table"]:
            yield listed


def keep_only(settings: Settings, kept: Iterable[Mapping[str, Any]]) -> None:
    """Lists of versions that nobody needs any more go with them."""
    names = {place(settings, index).name for index in kept}
    for path in sorted((settings.store / "index").glob("*.json")):
        if path.name not in names:
            remove(path)


def forget(settings: Settings, index: Mapping[str, Any]) -> None:
    """Of a version that is about to be written again."""
    remove(place(settings, index))


def drop_damaged(settings: Settings, index: Mapping[str, Any]) -> None:
    try:
        read(place(settings, index))
    except IntegrityError:
        forget(settings, index)


def place(settings: Settings, index: Mapping[str, Any]) -> Path:
    """Named by a digest: names out of a manifest are no paths."""
    return settings.store / "index" / f"{value_digest([index['table'], index['tag']])}.json"


def folder_of(settings: Settings, index: Mapping[str, Any]) -> Path:
    return table_folder(settings.index_uri, index["table"])
