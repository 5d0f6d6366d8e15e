"""A version of a local table as files: Lance fsyncs nothing that it writes and checks no digest of what it reads, where a
flipped byte may give other rows without an error. Both are done here, by those who release a version."""

from collections.abc import Mapping
from pathlib import Path
from uuid import UUID

from tasks.errors import IntegrityError, TandemError
from tasks.records import file_digest, read_json, sync

MAGIC = b"LANC"  # ends every manifest of Lance


def table_folder(store: str, table: str) -> Path:
    return Path(store) / f"{table}.lance"


def tagged_version(folder: Path, tag: str) -> int | None:
    """Without LanceDB, which takes two seconds to import; None where the tag is gone or does not read."""
    try:
        return int(read_json(folder / "_refs/tags" / f"{tag}.json")["version"])
    except (TandemError, LookupError, TypeError, ValueError, OSError):  # whoever opens the version is told what is wrong
        return None


def manifest_path(folder: Path, version: int) -> Path:
    """Lance counts downwards, so that the newest is the first of a listing."""
    return folder / "_versions" / f"{2**64 - 1 - version}.manifest"


def files_of(folder: Path, version: int) -> list[Path]:
    """What is read to answer from a version: its manifest, the data that the manifest names, the structures whose uuid stands in
    it, and every file of deletions, which it counts instead of naming (so those of other versions are among them)."""
    manifest = manifest_path(folder, version)
    said = manifest.read_bytes()
    data = [path for path in files_below(folder / "data") if path.name.encode() in said]
    structures = [path for path in files_below(folder / "_indices") if uuid_of(folder, path) in said]
    return [manifest, *data, *structures, *files_below(folder / "_deletions")]


def files_below(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def uuid_of(folder: Path, path: Path) -> bytes:
    return UUID(path.relative_to(folder / "_indices").parts[0]).bytes


def digests_of(folder: Path, version: int) -> dict[str, str]:
    """Relative path -> sha256."""
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files_of(folder, version)}


def differing(folder: Path, listed: Mapping[str, str]) -> list[str]:
    """What is not as it was listed, file by file."""
    return [fault for name, expected in sorted(listed.items()) for fault in differs(folder / name, expected)]


def differs(path: Path, expected: str) -> list[str]:
    if not path.is_file():
        return [f"{path} is missing (expected sha256 {expected})"]
    found = file_digest(path)
    return [] if found == expected else [f"{path}: expected sha256 {expected}, found {found}"]


def make_durable(folder: Path) -> None:
    """Every file of a table and every folder of it, up to the one that holds the table. What is there already costs little."""
    for path in files_below(folder):
        sync(path)
    for path in (*(path for path in folder.rglob("*") if path.is_dir()), folder, folder.parent):
        sync(path)


def torn_manifests(store: str) -> list[Path]:
    """The newest manifest of a table, where a crash of the machine left it empty or cut: Lance then opens no version at all."""
    newest = [min(folder.glob("_versions/*.manifest"), default=None) for folder in sorted(Path(store).glob("*.lance"))]
    return [path for path in newest if path is not None and not path.read_bytes().endswith(MAGIC)]


def set_aside(path: Path) -> Path:
    """Out of the way, so that the table opens at the version before; nothing is thrown away."""
    torn = path.with_suffix(".torn")
    if torn.exists():
        raise IntegrityError(f"{torn} is there already; look at it, move it away and run again: tandem doctor --mend")
    path.rename(torn)
    sync(path.parent)
    return torn
