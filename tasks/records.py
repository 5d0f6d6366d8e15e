"""Reading and writing of small files: JSON Lines and JSON, whole or not at all."""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import orjson

from tasks.errors import InputError

Record = dict[str, Any]
HALF_WRITTEN = ".*.tmp"  # what `write_bytes` had not renamed yet when its process was killed


def canonical_json(value: object) -> str:
    """One text per value: sorted keys, no spaces, no NaN. Digests are taken over this form."""
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)


def flat(values: Mapping[str, Any], prefix: str = "") -> Record:
    """{"floors": {"fact": 0.5}} -> {"floors.fact": 0.5}; lists stay as they are."""
    result: Record = {}
    for key, value in values.items():
        result |= flat(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return result


def text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def value_digest(value: object) -> str:
    return text_digest(canonical_json(value))


def file_digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def folder_digests(folder: Path) -> dict[str, str]:
    """Relative path -> sha256, for every file below `folder`, sorted by path."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): file_digest(path) for path in files}


def folder_digest(folder: Path) -> str:
    """One sha256 for a folder: that of its canonical list of (path, sha256)."""
    return value_digest(folder_digests(folder))


def write_text(path: Path, text: str) -> None:
    write_bytes(path, text.encode())


def write_bytes(path: Path, *parts: bytes | memoryview) -> None:
    """Write aside, fsync, rename: a reader sees the old file or the new one, also after a power loss. What could not be
    written leaves nothing behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with aside.open("wb") as file:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
        aside.replace(path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Make a file, or the names in a folder, durable."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_json(path: Path, value: object) -> None:
    """Readable JSON for people (indented, sorted); digests are taken over `canonical_json` instead."""
    write_text(path, json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> Any:
    """Raises InputError naming the file where it is missing, empty or not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} is missing; the stage that writes it has not run. Run: dvc repro") from error
    except (ValueError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON ({error}); it may have been cut short. Run the stage again") from error


def write_jsonl(path: Path, records: Iterable[Record]) -> None:
    write_text(path, "".join(map(jsonl_line, records)))


def jsonl_line(record: Record) -> str:
    return json.dumps(record, ensure_ascii=False, allow_nan=False) + "\n"


def iterate_jsonl(path: Path) -> Iterator[Record]:
    """Raises InputError naming file and line where a line is not a JSON object."""
    if not path.exists():
        raise InputError(f"{path} is missing; the stage that writes it has not run. Run: dvc repro")
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield parse_line(line, path, number)


def parse_line(line: bytes, path: Path, number: int) -> Record:
    try:
        record = orjson.loads(line)  # three times as fast as json, and no NaN
    except ValueError as error:
        raise InputError(f"{path}:{number}: not valid JSON ({error})") from error
    if not isinstance(record, dict):
        raise InputError(f"{path}:{number}: a JSON object was expected, not {type(record).__name__}")
    return record


def read_jsonl(path: Path) -> list[Record]:
    return list(iterate_jsonl(path))
