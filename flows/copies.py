"""The copies of erased text outside LanceDB: workspace, evidence, DVC's cache and remotes, MLflow, Prefect, all below home.

What is made from the corpus and can be made again goes whole; evidence stays, with the text taken out of it.
"""

import json
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from flows import asked, erasures, ledger, pending
from flows.doctor import kept
from flows.evidence import replace_file, replacement
from flows.pipeline import repository
from flows.settings import Settings
from flows.store import open_file
from tasks.canary import SQLITE, Canary, blot_database, in_file, in_stream
from tasks.checkpoints import KEY
from tasks.errors import IntegrityError
from tasks.lineage import LINEAGE
from tasks.reading import identity
from tasks.records import canonical_json, jsonl_line
from tasks.tombstones import Tombstones, blanked

ANSWERS = ("answers", "champion answers")
FOLDERS = ("metrics", "plots")  # of which each stage has its own part
MODELS = "data/models"
VOCABULARY = ("*.safetensors", "*.onnx", "tokenizer*", "vocab.*", "merges.txt", "*.model")


# --- What stands below data/ and is made by a stage


def clear_workspace(settings: Settings, wanted: Canary, index_gone: bool) -> list[str]:
    """Outputs of stages that hold it go whole: DVC then misses them, and makes them from the corpus as it is now."""
    data = settings.root / "data"
    gone = [folder for folder in outputs(data) if holds(folder, wanted)] + ([data / "index"] if index_gone else [])
    for folder in gone:
        shutil.rmtree(folder, ignore_errors=True) if folder.is_dir() else folder.unlink(missing_ok=True)
    return [folder.relative_to(settings.root).as_posix() for folder in gone]


def outputs(data: Path) -> list[Path]:
    """Of the stages, and what an ingest left aside; neither the corpus, which is rid of it, nor the demo's, nor the models."""
    left = sorted(data.iterdir()) if data.is_dir() else []
    whole = [path for path in left if path.name not in ("raw", "raw.dvc", "demo", "models", ".gitignore", *FOLDERS)]
    return [*whole, *(path for folder in FOLDERS if (data / folder).is_dir() for path in sorted((data / folder).iterdir()))]


def holds(path: Path, wanted: Canary) -> bool:
    return any(in_file(file, wanted) for file in files_below(path) if not is_vocabulary(file))


def is_vocabulary(path: Path) -> bool:
    """Of a model: weights, and words that are nobody's text. An id may be one of them."""
    return any(fnmatch(path.name, pattern) for pattern in VOCABULARY)


def files_below(path: Path) -> list[Path]:
    if path.is_file() and not path.is_symlink():
        return [path]
    return sorted(file for file in path.rglob("*") if file.is_file() and not file.is_symlink()) if path.is_dir() else []


# --- Evidence and manifests in the store


def blot_evidence(settings: Settings, wanted: Canary) -> int:
    """Every file that a ledger entry names, with the text out of it and a pointer in its place. Returns how many changed."""
    entries = ledger.read(settings.ledger)
    tombstones, changed = erasures.standing(settings, entries), 0
    whole = {found.release for found in kept(entries)}  # without it by now, and pinned to the letter
    for name, digest in {(name, digest) for entry in entries for name, digest in named_by(entry)}:
        if digest in whole or not (settings.store / "files" / replacement(settings.store, digest)).exists():
            continue
        standing = replacement(settings.store, digest)
        content = open_file(settings.store, standing)
        changed += replace_file(settings.store, standing, blotted(name, content, wanted, tombstones)) != standing
    return changed


def named_by(entry: ledger.Entry) -> Iterator[tuple[str, str]]:
    yield from entry.evidence.items()
    for release in (entry.release, entry.candidate):
        if release:
            yield "manifest", release


def blotted(name: str, content: bytes, wanted: Canary, tombstones: Tombstones) -> bytes:
    if name in ANSWERS:
        records = [json.loads(line) for line in content.splitlines() if line.strip()]
        told = [blanked(record, tombstones.covers) for record in records]
        content = "".join(map(jsonl_line, told)).encode() if told != records else content
    elif name == "manifest":
        manifest = json.loads(content)
        manifest["prompt"]["shot_messages"] = tombstones.without(manifest["prompt"].get("shot_messages", {}))
        content = canonical_json(manifest).encode()
    elif name == "documents":
        pages = json.loads(content)
        rest = {page: digest for page, digest in pages.items() if not tombstones.covers(page)}
        content = canonical_json(rest).encode() if rest != pages else content
    return wanted.blotted(content)


# --- DVC: cache, run cache, remotes


class Objects:
    """One place of DVC's: `root`/files/md5/ab/cdef..., and `root`/runs with what each stage once made of what."""

    def __init__(self, name: str, fs: Any, root: str) -> None:
        self.name, self.fs, self.root = name, fs, root

    def files(self, below: str) -> list[str]:
        folder = self.fs.join(self.root, *below.split("/"))
        return sorted(self.fs.find(folder)) if self.fs.exists(folder) else []

    def oid(self, path: str) -> str:
        """`files/md5/ab/cdef.dir` -> `abcdef.dir`"""
        return "".join(path.replace("\\", "/").split("/")[-2:])

    def read(self, path: str) -> bytes:
        with self.fs.open(path, "rb") as file:
            return bytes(file.read())

    def holds(self, path: str, wanted: Canary) -> bool:
        with self.fs.open(path, "rb") as file:
            return in_stream(file, wanted)


def places(repo: Any) -> Iterator[Objects]:
    """The cache of this clone, then every remote that is configured."""
    yield Objects("DVC cache", repo.cache.local.fs, str(Path(repo.cache.local.path).parents[1]))
    for name in repo.config["remote"]:
        remote = repo.cloud.get_remote(name)
        yield Objects(f"DVC remote {name}", remote.fs, remote.path)


def clear_dvc(settings: Settings, wanted: Canary, pages: Sequence[str]) -> dict[str, int]:
    """Objects that hold it, lists of folders that name one of them, and runs that restore one. Returns how many by place."""
    with repository(settings.root) as repo:
        return {place.name: clear_objects(place, wanted, pages, models_in(settings, place)) for place in places(repo)}


def clear_objects(place: Objects, wanted: Canary, pages: Sequence[str], spared: set[str]) -> int:
    files = {place.oid(path): path for path in place.files("files/md5")}
    listings = {oid: json.loads(place.read(path)) for oid, path in files.items() if oid.endswith(".dir")}
    gone = {oid for oid, path in files.items() if oid not in spared and place.holds(path, wanted)}
    for listed in listings.values():
        gone |= {each["md5"] for each in listed if of_pages(each["relpath"], pages)}
        if any(each["relpath"] == LINEAGE and each["md5"] in gone for each in listed):
            gone |= {each["md5"] for each in listed}  # the weights that learnt it
    gone = (gone - spared) | {oid for oid, listed in listings.items() if gone & {each["md5"] for each in listed}}
    for oid in gone & files.keys():
        place.fs.remove(files[oid])
    runs = [path for path in place.files("runs") if any(oid.encode() in place.read(path) for oid in gone)]
    for path in runs:
        place.fs.remove(path)
        with suppress(OSError):  # DVC trips over a run that nothing is left of; object storage has no folders
            Path(path).parent.rmdir()
    return len(gone & files.keys()) + len(runs)


def of_pages(relative: str, pages: Sequence[str]) -> bool:
    """A page as it was brought, whatever its format: `documents/staff/leave.pdf` in the list of data/raw."""
    return relative.startswith("documents/") and identity(relative.removeprefix("documents/")) in pages


def models_in(settings: Settings, place: Objects) -> set[str]:
    """The objects of models that were not trained here."""
    found: set[str] = set()
    for lock in locks(settings):
        for oid in lock:
            listing = place.fs.join(place.root, "files", "md5", oid[:2], oid[2:])
            if place.fs.exists(listing):
                found |= {oid, *(each["md5"] for each in json.loads(place.read(listing)))}
    return found


def locks(settings: Settings) -> Iterator[list[str]]:
    """Of every dvc.lock at hand: the lists of data/models."""
    import yaml

    texts = [path.read_text(encoding="utf-8") for path in (settings.root / "dvc.lock",) if path.exists()]
    digests = {entry.evidence["dvc.lock"] for entry in ledger.read(settings.ledger) if "dvc.lock" in entry.evidence}
    for digest in digests:
        with suppress(IntegrityError):
            texts.append(open_file(settings.store, replacement(settings.store, digest)).decode())
    for text in texts:
        stages = (yaml.safe_load(text) or {}).get("stages") or {}
        yield [out["md5"] for stage in stages.values() for out in stage.get("outs", []) if out["path"] == MODELS and "md5" in out]


# --- MLflow, Prefect and everything else below home


def clear_runs(settings: Settings, wanted: Canary) -> int:
    """Artifacts that MLflow keeps elsewhere than below home: asked for one by one, and deleted where they hold it."""
    gone = 0
    for repository_of, path in remote_artifacts(settings):
        if in_file(Path(repository_of.download_artifacts(path)), wanted):
            repository_of.delete_artifacts(path)
            gone += 1
    return gone


def remote_artifacts(settings: Settings) -> Iterator[tuple[Any, str]]:
    """(repository, path) of every artifact of every run that lies on no disk of ours."""
    from mlflow.entities import ViewType
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    from flows.tracking import client, experiment_id

    runs = client(settings.tracking_uri).search_runs([experiment_id(settings)], run_view_type=ViewType.ALL, max_results=50_000)
    for run in runs:
        if not run.info.artifact_uri.startswith(("file:", "/")):
            found = get_artifact_repository(run.info.artifact_uri)
            yield from ((found, path) for path in artifacts_below(found, ""))


def artifacts_below(found: Any, folder: str) -> Iterator[str]:
    for each in found.list_artifacts(folder or None):
        yield from artifacts_below(found, each.path) if each.is_dir else [each.path]


def clear_home(settings: Settings, wanted: Canary) -> int:
    """Caches go whole, databases are overwritten row by row, and any other file that holds it goes. Returns how many."""
    for cache in caches(settings):
        shutil.rmtree(cache, ignore_errors=True) if cache.is_dir() else cache.unlink(missing_ok=True)
    files = [*own_files(settings), *outside_files(settings)]
    gone = 0
    for database in sorted({base for path in files if (base := database_of(path))}):
        if any(in_file(path, wanted) for path in files if database_of(path) == database):
            blot_database(database, wanted)
            gone += 1
    for path in files:
        if database_of(path) is None and in_file(path, wanted):
            path.unlink(missing_ok=True)
            gone += 1
    asked.forget(asked.place(settings), lambda told: wanted.within(json.dumps(told, ensure_ascii=False).encode()))
    return gone


def database_of(path: Path) -> Path | None:
    """The SQLite file that this is, or a part of: to take its log away would tear it."""
    base = path.with_name(re.sub("-(wal|shm|journal)$", "", path.name))
    with suppress(FileNotFoundError), base.open("rb") as file:
        return base if file.read(len(SQLITE)) == SQLITE else None
    return None


def caches(settings: Settings) -> Iterator[Path]:
    """What can be made again, and of which nobody can say what it was made from: answers by the digest of a prompt, weights of
    trainings that were interrupted, what was measured aside, DVC's notes of paths."""
    yield from (settings.answers.with_name(f"{settings.answers.name}{end}") for end in ("", "-wal", "-shm"))
    yield from (path for path in sorted(settings.checkpoints.glob("*")) if KEY.fullmatch(path.name))
    yield from (settings.home / "scratch", settings.home / "kept", settings.home / "dvc", settings.home / "reports")


def own_files(settings: Settings) -> list[Path]:
    """Below home, less what has steps of its own: ledger, store, index, vectors, and the note of what is to be removed."""
    apart = [settings.ledger, settings.store, Path(settings.index_uri), settings.vectors, pending.folder(settings)]
    return [path for path in files_below(settings.home) if not any(path.is_relative_to(place) for place in apart)]


def outside_files(settings: Settings) -> Iterable[Path]:
    """What the environment put elsewhere on this machine: Prefect's home, MLflow's artifacts and database, checkpoints."""
    import os
    from urllib.parse import unquote, urlparse

    artifacts = unquote(urlparse(settings.artifacts).path) if settings.artifacts.startswith("file:") else ""
    database = settings.tracking_uri.removeprefix("sqlite:///") if settings.tracking_uri.startswith("sqlite:///") else ""
    for place in filter(
        None, (os.environ.get("PREFECT_HOME"), artifacts, database, str(settings.checkpoints), str(settings.root / ".dvc/tmp"))
    ):
        if not Path(place).is_relative_to(settings.home):
            yield from files_below(Path(place))
