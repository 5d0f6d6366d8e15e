"""The rows of a release in LanceDB, looked for where its tag is gone: in the table's other versions, then in DVC's cache."""

import json
import shutil
from pathlib import Path
from typing import Any

import yaml

from flows import listing
from flows.settings import Settings
from flows.store import open_file, open_folder
from tasks.errors import IntegrityError, TandemError
from tasks.manifest import Release
from tasks.records import Record, read_json, read_jsonl
from tasks.table_files import manifest_path, set_aside, table_folder, torn_manifests
from tasks.tables import is_local


def open_rows(settings: Settings, release: Release) -> None:
    """Raises IntegrityError where its version does not open, holds other rows than the manifest names, or has a file that is not
    what was released."""
    from tasks.search import open_version
    from tasks.tables import rows_digest

    listing.check(settings, release.index.model_dump())
    table = open_version(settings.index_uri, release.index.model_dump())
    if rows_digest(table) != release.index.digest:
        raise IntegrityError(f"table {release.index.table} at {release.index.tag} holds other rows than the release pins")


def seal_rows(settings: Settings, release: Release) -> None:
    """Re-read the rows, then have them on the disk and listed by digest, before anything says that the release is there."""
    from tasks.tables import only_writer

    with only_writer(settings.index_uri):
        open_rows(settings, release)
        listing.note(settings, release.index.model_dump())


def list_again(settings: Settings, release: Release) -> str:
    """Where no list is true of its version: a release from before there were lists, or a maintenance that died before it listed.
    Returns what was done."""
    from tasks.tables import only_writer

    index = release.index.model_dump()
    if not is_local(settings.index_uri) or listing.check(settings, index):
        return ""
    with only_writer(settings.index_uri):
        listing.note(settings, index)
    return "the files of its index listed by digest"


def set_torn_aside(settings: Settings) -> list[str]:
    from tasks.tables import only_writer

    torn = torn_manifests(settings.index_uri) if is_local(settings.index_uri) else []
    if not torn:
        return []
    with only_writer(settings.index_uri):
        return [f"{path} is torn and was moved to {set_aside(path).name}" for path in torn]


def advice(settings: Settings, release: Release, lock: str) -> str:
    """What a person can do about an index that `open_rows` refuses. `lock`: digest of the dvc.lock with which it was promoted."""
    if version_with(settings, release) is not None or cached_passages(settings, lock) is not None:
        return "tandem doctor --mend"
    workspace = settings.root / "data/index/manifest.json"
    if workspace.exists() and read_json(workspace)["digest"] == release.index.digest:
        return "dvc checkout data/chunks && dvc repro --force --single-item index"
    return (
        f"restore {settings.index_uri} from a backup; its rows are neither in another version of the table nor in DVC's cache. "
        "Until then the release can neither be asked nor gone back to"
    )


def mend(settings: Settings, release: Release, lock: str) -> str:
    """Tag the version that holds the rows, or write them again. Returns what was done; empty where neither can be."""
    from tasks.tables import only_writer

    with only_writer(settings.index_uri):
        drop_dangling_tag(settings, release)
        said = find_or_write(settings, release, lock)
        if said:
            listing.forget(settings, release.index.model_dump())
            listing.note(settings, release.index.model_dump())
        return said


def find_or_write(settings: Settings, release: Release, lock: str) -> str:
    version = version_with(settings, release)
    if version is not None:
        table_of(settings, release).tags.create(release.index.tag, version)
        return f"version {version} of its table tagged {release.index.tag} again"
    passages = cached_passages(settings, lock)
    if passages is not None and write_again(settings, release, passages):
        return "its rows written again, from the passages in DVC's cache"
    return ""


def drop_dangling_tag(settings: Settings, release: Release) -> None:
    table = table_of(settings, release)
    if table is not None and is_dangling(settings, release, table):
        table.tags.delete(release.index.tag)


def is_dangling(settings: Settings, release: Release, table: Any) -> bool:
    """A tag of a version whose manifest is gone says nothing any more, and stands in the way of a new one."""
    from tasks.tables import tags

    version = tags(table).get(release.index.tag) if is_local(settings.index_uri) else None
    return version is not None and not manifest_path(table_folder(settings.index_uri, release.index.table), version).exists()


def set_damaged_aside(settings: Settings, pinned: list[tuple[Release, str]], aside: Path) -> list[str]:
    """Move a table of which a file is not what was released to `aside`, where the rows of every release in it can be written
    again. `pinned`: the releases that are kept, each with the digest of its dvc.lock. Returns what was done."""
    done = []
    for name in sorted({release.index.table for release, _ in pinned if is_damaged(settings, release)}):
        inside = [(release, lock) for release, lock in pinned if release.index.table == name]
        if all(cached_passages(settings, lock) is not None for _, lock in inside):
            shutil.move(table_folder(settings.index_uri, name), aside)
            for release, _ in inside:
                listing.forget(settings, release.index.model_dump())
            done.append(f"table {name} is damaged and was set aside; its rows are written again")
    return done


def is_damaged(settings: Settings, release: Release) -> bool:
    """By a list that is sound; one that is not goes, and the version is listed anew once its rows were re-read."""
    index = release.index.model_dump()
    listing.drop_damaged(settings, index)
    try:
        listing.check(settings, index)
    except IntegrityError:
        return True
    return False


def table_of(settings: Settings, release: Release) -> Any:
    from tasks.tables import connect, open_table

    return open_table(connect(settings.index_uri), release.index.table)


def version_with(settings: Settings, release: Release) -> int | None:
    """The newest version that holds exactly these rows, where the tag itself is gone."""
    from tasks.tables import rows_digest, tags

    try:
        table = table_of(settings, release)
        if table is None or (release.index.tag in tags(table) and not is_dangling(settings, release, table)):
            return None
        for version in sorted((each["version"] for each in table.list_versions()), reverse=True):
            table.checkout(version)
            if table.count_rows() == release.index.rows and rows_digest(table) == release.index.digest:
                return int(version)
    except (TandemError, RuntimeError, ValueError, OSError):  # a torn version among them: the others are not worth the risk
        return None
    return None


def cached_passages(settings: Settings, lock: str) -> list[Record] | None:
    """data/chunks/passages.jsonl as that dvc.lock has it, out of DVC's cache, whole or not at all."""
    try:
        outs = yaml.safe_load(open_file(settings.store, lock))["stages"].get("chunks", {}).get("outs", [])
    except TandemError:  # `tandem doctor` has a finding of its own for it
        return None
    folders = [cached(settings.root, out["md5"]) for out in outs if out["path"] == "data/chunks"]
    if not folders or not folders[0].exists():
        return None
    files = {each["relpath"]: each["md5"] for each in json.loads(folders[0].read_text(encoding="utf-8"))}
    path = cached(settings.root, files.get("passages.jsonl", "none"))
    return read_jsonl(path) if path.exists() else None


def cached(root: Path, md5: str) -> Path:
    return root / ".dvc/cache/files/md5" / md5[:2] / md5[2:]


def write_again(settings: Settings, release: Release, passages: list[Record]) -> bool:
    """With today's params, so only where they name the same table. Vectors that are known are not computed again."""
    from tasks.embedding import Embedder
    from tasks.index import bring_up_to_date, describe
    from tasks.index import settings as table_settings
    from tasks.params import IndexParams
    from tasks.params_files import load

    params = load(IndexParams, settings.root / "params")
    model = Embedder(open_folder(settings.store, release.embedder.digest))
    manifest = describe(passages, model.identity(), table_settings(params))
    if {key: manifest[key] for key in release.index.model_dump()} != release.index.model_dump():
        return False
    bring_up_to_date(settings.index_uri, manifest, passages, model, settings.vectors, params)
    return True
