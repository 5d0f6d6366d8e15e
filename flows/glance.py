"""A glance before DVC is asked: whether anything that it would look at has another inode, size or time than when it last found
everything up to date. DVC trusts the same three, file by file; that takes it a second and more for 10,000 documents."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from flows.settings import Settings
from tasks.errors import InputError
from tasks.records import read_json, write_json

OF_THE_PROJECT = ("dvc.lock", ".dvcignore", ".dvc/config", ".dvc/config.local")


def kept(settings: Settings) -> Path:
    return settings.home / "up-to-date.json"


def nothing_touched(settings: Settings) -> bool:
    """Whether all is as `keep` found it; False where it never ran. Anything else, such as a new file, is for DVC to judge."""
    try:
        before = read_json(kept(settings))
        return bool(before["seen"] == look(before["paths"]))
    except (InputError, KeyError, TypeError):  # not there, or damaged
        return False


def keep(settings: Settings, paths: list[str], seen: str) -> None:
    """`seen`: what `look` said before DVC found everything up to date, so that a change meanwhile shows next time."""
    write_json(kept(settings), {"paths": paths, "seen": seen})


def watched(repo: Any) -> list[str]:
    """All files and folders that `dvc status` depends on: inputs, outputs, params, their stages, and DVC's copies of outputs."""
    stages = list(repo.index.stages)
    named = {item.fs_path for stage in stages for item in (*stage.deps, *stage.outs)} | {stage.path for stage in stages}
    copies = {path for stage in stages for output in stage.outs for path in copies_of(repo, output)}
    return outermost(named | copies | {os.path.join(repo.root_dir, name) for name in OF_THE_PROJECT})


def outermost(paths: Iterable[str]) -> list[str]:
    """Without those that lie in a folder among them: data/raw is an output, data/raw/documents an input."""
    kept: list[str] = []
    for path in sorted(paths, key=lambda each: each.split(os.sep)):
        if not kept or not path.startswith(kept[-1] + os.sep):
            kept.append(path)
    return kept


def copies_of(repo: Any, output: Any) -> Iterator[str]:
    """Paths in DVC's cache; of a folder that of its listing, whose files lie beside it."""
    if output.use_cache and output.hash_info:
        yield repo.cache.local.oid_to_path(output.hash_info.value)


def look(paths: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for path in paths:
        for name, status in files(path):
            found = (status.st_ino, status.st_size, status.st_mtime_ns) if status else None
            digest.update(f"{name}\0{found}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()


def files(path: str) -> Iterator[tuple[str, os.stat_result | None]]:
    """(path, status) of a file, or of all files below a folder, in one order; a status of None for what cannot be seen."""
    try:
        entries = sorted(os.scandir(path), key=lambda entry: entry.name)
    except OSError:
        yield path, status_of(path)
        return
    for entry in entries:
        if entry.is_dir(follow_symlinks=False):
            yield from files(entry.path)
        else:
            yield entry.path, status_of(entry.path)


def status_of(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except OSError:  # nothing there, or a link to nothing
        return None
