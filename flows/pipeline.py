"""The DVC edge. DVC says what is stale and runs it; this module asks, watches and reports."""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from flows import listing
from flows.children import Watch, dvc, dvc_error, ignored
from flows.settings import Settings
from tasks.errors import InputError, TandemError
from tasks.failpoints import failpoint
from tasks.records import read_json, write_text
from tasks.stage import MEASURE

SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a dvc.lock takes 0.1 s in Python, a hundredth in C


@dataclass(frozen=True)
class StageRun:
    """One stage brought up to date: executed, restored from DVC's run cache, or found fresh."""

    stage: str
    outcome: str  # "executed" | "restored" | "cached"
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)


def order_in(repo: Any, target: str) -> list[str]:
    """`target` and everything above it, in an order in which DVC could run them."""
    import networkx
    from dvc.stage import PipelineStage

    try:
        stages = repo.stage.collect(target)
    except Exception as error:
        raise dvc_error(error) from error
    order = list(networkx.dfs_postorder_nodes(repo.index.graph, stages[0]))
    return [stage.addressing for stage in order if isinstance(stage, PipelineStage)]


def stage_reasons(repo: Any, stages: Sequence[str] = ()) -> dict[str, list[str]]:
    """Stage -> why it would run, in plain words; of all of them, and of what `dvc add` took in, where none is named.

    Upstream staleness is not followed: ask again after each stage.
    """
    try:
        status = repo.status(targets=list(stages) or None)
    except Exception as error:
        raise dvc_error(error) from error
    known = read_lock(Path(repo.root_dir))["stages"]
    reasons = {name: list(plain_reasons(changes)) for name, changes in status.items() if changes != ["always changed"]}
    return {name: why if name in known or name.endswith(".dvc") else ["has not run yet"] for name, why in reasons.items()}


def plain_reasons(changes: list[Any]) -> Iterator[str]:
    """DVC's status as sentences: `data/chunks modified`, `params/adapter.yaml: rank modified`."""
    for change in changes:
        if isinstance(change, str):
            yield change
            continue
        for detail in change.values():
            for path, what in detail.items():
                yield from flatten(path, what)


def flatten(path: str, what: Any) -> Iterator[str]:
    if isinstance(what, dict):
        for key, inner in what.items():
            yield f"{path}: {key} {inner}"
    else:
        yield f"{path} {what}"


@contextmanager
def repository(root: Path) -> Iterator[Any]:
    """DVC in this process (0.3 s; the command line costs 0.7), with its torn files named before it trips over them."""
    from dvc.repo import Repo

    check_metadata(root)
    with chdir(root):  # DVC takes and gives the names of stages relative to the folder that we are in
        try:
            repo = Repo(str(root))
        except Exception as error:
            raise dvc_error(error) from error
        try:
            yield repo
        finally:
            repo.close()


def check_metadata(root: Path) -> None:
    """Raises InputError where a file of DVC is torn; an empty lock of its own, which locks nothing, is removed: DVC refuses every
    command until somebody does."""
    for path, state in torn_metadata(root):
        raise InputError(
            f"{path.relative_to(root)} is {state} (an interrupted DVC command?); run: tandem doctor --mend; where that cannot "
            "mend it, delete it and ingest again: tandem ingest"
        )
    lock = rwlock(root)
    if lock.exists() and lock.stat().st_size == 0:
        lock.unlink()


def torn_metadata(root: Path) -> Iterator[tuple[Path, str]]:
    """An interrupted `dvc add` leaves a .dvc file empty or cut, which DVC reads as "nothing to do" (and loses documents)."""
    for path in sorted(root.glob("data/*.dvc")):
        if state := torn_pointer(path):
            yield path, state
    lock = root / "dvc.lock"
    if lock.exists() and lock.stat().st_size == 0:
        yield lock, "empty"


def torn_pointer(path: Path) -> str:
    """What is wrong with a .dvc file, in a word; empty where it names an output by its digest."""
    text = path.read_text(encoding="utf-8", errors="replace")
    if not text:
        return "empty"
    try:
        outs = yaml.load(text, SAFE_LOADER)["outs"]
        return "" if all(len(out["md5"].removesuffix(".dir")) == 32 and out["path"] for out in outs) else "torn"
    except (yaml.YAMLError, LookupError, TypeError, AttributeError):
        return "torn"


def lock_is_torn(root: Path) -> bool:
    """Cut within a line; one that was cut between two stages is sound, and DVC runs again what it has lost."""
    try:
        return not isinstance(read_lock(root).get("stages"), dict) if (root / "dvc.lock").stat().st_size else False
    except FileNotFoundError:
        return False
    except (yaml.YAMLError, AttributeError, UnicodeDecodeError):
        return True


def rwlock(root: Path) -> Path:
    return root / ".dvc/tmp/rwlock"


Execute = Callable[[str, list[str]], StageRun]


def reproduce(
    settings: Settings,
    target: str,
    execute: Execute,
    fresh: Callable[[str], StageRun],
    leave: tuple[str, ...] = (),
    look: Callable[[Any], None] = ignored,
) -> list[StageRun]:
    """Bring `target` up to date, stage by stage. `execute` runs a stale one, `fresh` notes one that is not; those to `leave`
    are not looked at. `look` is shown the repository before DVC is asked about it."""
    with repository(settings.root) as repo:
        look(repo)
        order = [stage for stage in order_in(repo, target) if stage not in leave]
        reasons = stage_reasons(repo, order)
    return bring_up_to_date(settings, order, reasons, execute, fresh)


def reproduce_only(settings: Settings, stages: list[str], execute: Execute, fresh: Callable[[str], StageRun]) -> list[StageRun]:
    """Bring exactly these up to date, in this order, whatever stands stale above them."""
    with repository(settings.root) as repo:
        reasons = stage_reasons(repo, stages)
    return bring_up_to_date(settings, stages, reasons, execute, fresh)


def bring_up_to_date(
    settings: Settings, order: list[str], reasons: dict[str, list[str]], execute: Execute, fresh: Callable[[str], StageRun]
) -> list[StageRun]:
    """DVC was asked about all of them at once. After a stage that ran it is asked again about each of the rest: equal bytes
    leave them fresh."""
    runs: list[StageRun] = []
    for stage in order:
        if any(run.outcome != "cached" for run in runs):
            with repository(settings.root) as repo:
                reasons = stage_reasons(repo, [stage])
        runs.append(bring_one(settings, stage, reasons.get(stage, []), execute, fresh))
    return runs


def bring_one(settings: Settings, stage: str, reasons: list[str], execute: Execute, fresh: Callable[[str], StageRun]) -> StageRun:
    run = execute(stage, reasons) if reasons else fresh(stage)
    if stage == "index" and not index_reads(settings):
        listing.forget(settings, read_json(settings.root / "data/index/manifest.json"))  # what is written again has other files
        return execute(stage, ["its table is gone from the store"])
    return run


def index_reads(settings: Settings) -> bool:
    """DVC restores a manifest without knowing whether Lance still has the table version that it names."""
    from tasks.search import open_version

    try:
        open_version(settings.index_uri, read_json(settings.root / "data/index/manifest.json"))
    except TandemError:
        return False
    return True


def run_stage(
    settings: Settings, stage: str, reasons: list[str], watch: Watch, started_as: Callable[[int], None], *options: str
) -> StageRun:
    """`dvc repro --single-item stage` in a process group of its own, so that nothing of it survives us."""
    started = time.monotonic()
    force = ["--force"] if stage == "index" and "its table is gone from the store" in reasons else []
    lines = dvc(settings, "repro", "--single-item", *force, *options, stage, watch=watch, started_as=started_as)
    restored = any("is cached - skipping run" in line for line in lines)
    return StageRun(stage, "restored" if restored else "executed", round(time.monotonic() - started, 1), reasons)


def point(line: str) -> tuple[int, dict[str, float]] | None:
    """A stage's `@measure` line as (step, values), None for any other line."""
    if not line.startswith(MEASURE):
        return None
    values = json.loads(line[len(MEASURE) :])
    return int(values.pop("step")), values


def read_lock(root: Path) -> dict[str, Any]:
    path = root / "dvc.lock"
    return yaml.load(path.read_text(encoding="utf-8"), SAFE_LOADER) if path.exists() else {"schema": "2.0", "stages": {}}


def restore_stage(settings: Settings, stage: str, lock_text: str) -> None:
    """Put one stage's entry of an older dvc.lock back and check its outputs out: the workspace then holds what it made then."""
    old = yaml.safe_load(lock_text)["stages"]
    if stage not in old:
        raise InputError(f"the live release's dvc.lock has no stage {stage}; run: tandem release")
    lock = read_lock(settings.root)
    if lock["stages"].get(stage) != old[stage]:
        lock["stages"][stage] = old[stage]
        failpoint("pipeline.before-lock")
        write_text(settings.root / "dvc.lock", yaml.safe_dump(lock, sort_keys=False))
    failpoint("pipeline.before-checkout")
    with repository(settings.root) as repo:
        try:
            repo.checkout(targets=[stage], force=True)
        except Exception as error:
            raise dvc_error(error) from error
    failpoint("pipeline.after-checkout")


def add_raw(settings: Settings, started_as: Callable[[int], None]) -> None:
    """Version the ingested documents and questions: `dvc add data/raw`. What has not changed stays as it is."""
    dvc(settings, "add", "--quiet", "data/raw", started_as=started_as)
