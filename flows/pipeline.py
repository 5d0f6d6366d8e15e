"""The DVC edge. DVC says what is stale and runs it; this module asks, watches and reports."""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import chdir, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import yaml

from flows.faults import explain_text
from flows.settings import Settings, child_environment
from tasks.errors import ConflictError, InputError, PreemptedError, RefusedError, TandemError
from tasks.stage import MEASURE

SAFE_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # a dvc.lock takes 0.1 s in Python, a hundredth in C
Watch = Callable[[str], None]  # receives each line that a stage prints


@dataclass(frozen=True)
class StageRun:
    """One stage brought up to date: executed, restored from DVC's run cache, or found fresh."""

    stage: str
    outcome: str  # "executed" | "restored" | "cached"
    seconds: float = 0.0
    reasons: list[str] = field(default_factory=list)


def stage_order(root: Path, target: str) -> list[str]:
    """`target` and everything above it, in an order in which DVC could run them."""
    with repository(root) as repo:
        return order_in(repo, target)


def order_in(repo: Any, target: str) -> list[str]:
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
    """An interrupted `dvc add` leaves an empty .dvc file, which DVC reads as "nothing to do" (and loses documents)."""
    for path in [*root.glob("data/*.dvc"), root / "dvc.lock"]:
        if path.exists() and path.stat().st_size == 0:
            raise InputError(
                f"{path.relative_to(root)} is empty (an interrupted DVC command?); delete it and ingest again: tandem ingest"
            )
    lock = root / ".dvc/tmp/rwlock"
    if lock.exists() and lock.stat().st_size == 0:
        lock.unlink()  # DVC refuses every command until a person deletes it; an empty lock locks nothing


def dvc_error(error: Exception) -> TandemError:
    text = str(error).strip() or type(error).__name__
    if is_busy(text):  # first: what is busy may be the corpus, and is then there
        return ConflictError(f"another DVC command is at work here; wait for it and run again ({text})")
    if "data/raw" in text or "missing data 'source'" in text:
        return InputError(f"there is no corpus yet. Run: tandem ingest --documents PATH --questions FILE ({text})")
    return InputError(f"DVC: {text}")


def is_busy(text: str) -> bool:
    """DVC's words for its two locks, of paths and of the repository."""
    return "is busy, it is being blocked" in text or "Unable to acquire lock" in text


Execute = Callable[[str, list[str]], StageRun]


def reproduce(
    settings: Settings, target: str, execute: Execute, fresh: Callable[[str], StageRun], leave: tuple[str, ...] = ()
) -> list[StageRun]:
    """Bring `target` up to date, stage by stage. `execute` runs a stale one, `fresh` notes one that is not; those to `leave`
    are not looked at.

    Staleness is asked before each stage, not once: a stage that ran and gave equal bytes leaves the rest fresh.
    """
    order = [stage for stage in stage_order(settings.root, target) if stage not in leave]
    return [bring_up_to_date(settings, stage, execute, fresh) for stage in order]


def reproduce_only(settings: Settings, stages: list[str], execute: Execute, fresh: Callable[[str], StageRun]) -> list[StageRun]:
    """Bring exactly these up to date, in this order, whatever stands stale above them."""
    return [bring_up_to_date(settings, stage, execute, fresh) for stage in stages]


def bring_up_to_date(settings: Settings, stage: str, execute: Execute, fresh: Callable[[str], StageRun]) -> StageRun:
    with repository(settings.root) as repo:
        reasons = stage_reasons(repo, [stage]).get(stage, [])
    run = execute(stage, reasons) if reasons else fresh(stage)
    if stage == "index" and not index_reads(settings):
        return execute(stage, ["its table is gone from the store"])
    return run


def index_reads(settings: Settings) -> bool:
    """DVC restores a manifest without knowing whether Lance still has the table version that it names."""
    from tasks.records import read_json
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
    command = [sys.executable, "-m", "dvc", "repro", "--single-item", *force, *options, stage]
    lines = list(watched(command, settings, watch, started_as))
    restored = any("is cached - skipping run" in line for line in lines)
    return StageRun(stage, "restored" if restored else "executed", round(time.monotonic() - started, 1), reasons)


def watched(
    command: list[str],
    settings: Settings,
    watch: Watch,
    started_as: Callable[[int], None] = lambda pid: None,
    folder: Path | None = None,
) -> Iterator[str]:
    """Yield the lines of a command's output as they come. Raises the error that its exit code and last words mean."""
    environment = os.environ | child_environment(settings) | {"SHELL": "/bin/sh"}  # DVC would take the person's, perhaps fish
    process = subprocess.Popen(
        command, cwd=folder or settings.root, env=environment, text=True, errors="replace", start_new_session=True,
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
    )  # fmt: skip
    started_as(process.pid)
    lines: list[str] = []
    try:
        with passing_on_sigterm(process.pid):
            for line in process.stdout or ():
                lines.append(line.rstrip("\n"))
                watch(lines[-1])
                yield lines[-1]
            process.wait()
    finally:
        kill_group(process)
    if process.returncode:
        raise stage_error(lines, process.returncode)


@contextmanager
def passing_on_sigterm(leader: int) -> Iterator[None]:
    """While it runs, SIGTERM is for the stage: one that can keeps its progress, and its exit code then says so. DVC and the shell
    between us would only die of it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python lets only that one handle signals
        return
    before = signal.signal(signal.SIGTERM, lambda number, frame: ask_to_stop(leader))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before if before is not None else signal.SIG_DFL)


def ask_to_stop(leader: int) -> None:
    """The processes at the ends of the tree; a launcher above them waits for what they say."""
    with suppress(psutil.NoSuchProcess):
        first = psutil.Process(leader)
        for process in [first, *first.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                if not process.children():
                    process.terminate()


def kill_group(process: "subprocess.Popen[str]") -> None:
    """A stage that outlived its parent would go on writing into an output that the next run also writes."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def stage_error(lines: list[str], code: int) -> TandemError:
    """The stage's own last message, which says how to mend it, rather than DVC's "failed to run"."""
    of_dvc = "\n".join(line for line in lines if line.startswith("ERROR: "))
    if is_busy(of_dvc) or is_busy("\n".join(lines[-1:])):
        return dvc_error(ValueError(of_dvc or lines[-1]))
    status = exit_status(of_dvc, code)
    if status < 0:
        return TandemError(killed(running_stage(lines), -status))
    if "missing data 'source'" in of_dvc or re.search("No such file or directory: .*data/raw", of_dvc):
        return dvc_error(ValueError(lines[-1]))
    said = [line for line in lines if line and not line.startswith((MEASURE, "ERROR: failed", "> ", "Running stage"))]
    message = "\n".join((said or lines)[-15:]) or f"{running_stage(lines)} ended with exit code {status} and said nothing"
    if any(line.startswith("Traceback") for line in said):
        message = f"{running_stage(lines)} broke off: {explain_text(said[-1]) or said[-1]} (its traceback stands above)"
    return {2: InputError, 3: RefusedError, PreemptedError.exit_code: PreemptedError}.get(status, TandemError)(message)


def exit_status(of_dvc: str, code: int) -> int:
    """The stage's, where DVC tells it, else DVC's own. Negative: the signal that ended it (a shell adds 128 to its number)."""
    told = re.search(r"exited with (-?\d+)\b", of_dvc)
    status = int(told[1]) if told else code
    return 128 - status if told and 128 < status < 128 + signal.NSIG else status


def running_stage(lines: list[str]) -> str:
    names = [found[1] for line in lines if (found := re.fullmatch("Running stage '(.+)':", line))]
    return f"stage {names[-1]}" if names else "DVC"


def killed(what: str, number: int) -> str:
    name = signal.Signals(number).name if number in set(signal.Signals) else f"signal {number}"
    again = "then run the same command again: it goes on where it was"
    if number == signal.SIGKILL:
        return (
            f"{what} was killed ({name}), as the kernel does where memory runs out (see: dmesg). Free memory, or lower "
            f"batch_size in params/adapter.yaml and params/evaluate.yaml or batch_tokens in params/index.yaml, {again}"
        )
    if number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGILL, signal.SIGFPE, signal.SIGABRT):
        return f"{what} crashed inside a library ({name}). See that neither disk nor memory is full, {again}"
    return f"{what} was stopped from outside ({name}); run the same command again: it goes on where it was"


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
    from tasks.records import write_text

    old = yaml.safe_load(lock_text)["stages"]
    if stage not in old:
        raise InputError(f"the live release's dvc.lock has no stage {stage}; run: tandem release")
    lock = read_lock(settings.root)
    if lock["stages"].get(stage) != old[stage]:
        lock["stages"][stage] = old[stage]
        write_text(settings.root / "dvc.lock", yaml.safe_dump(lock, sort_keys=False))
    list(watched([sys.executable, "-m", "dvc", "checkout", "--force", stage], settings, lambda line: None))


def add_raw(settings: Settings, started_as: Callable[[int], None]) -> None:
    """Version the ingested documents and questions: `dvc add data/raw`. What has not changed stays as it is."""
    list(watched([sys.executable, "-m", "dvc", "add", "--quiet", "data/raw"], settings, lambda line: None, started_as))
