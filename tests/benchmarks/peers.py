"""The libraries that Tandem is compared with, each in an environment of its own: `python tests/benchmarks/peers.py --setup`.

makes .peers/<peer> of tests/benchmarks/peers/<peer>/requirements.lock, which pins every package (10 minutes, 5 GB, once).
Without an argument: which are there. What no_change.py and one_edit.py share stands here too: how a peer is started in a fresh
process, how runs take turns, and how a median and its interval are found.
"""

import json
import os
import platform
import resource
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).parents[2]
LOCKS = Path(__file__).parent / "peers"
ENVIRONMENTS = ROOT / ".peers"
MALLOC = {"MALLOC_MMAP_THRESHOLD_": "4294967296", "MALLOC_TRIM_THRESHOLD_": "8589934592"}  # Tandem sets them: the same for all
LONGEST = 1200  # seconds of one run
QUIET = {
    "COCOINDEX_DISABLE_USAGE_TRACKING": "1", "DO_NOT_TRACK": "1", "HF_HUB_OFFLINE": "1", "TQDM_DISABLE": "1",
    "PYTHONWARNINGS": "ignore", "TRANSFORMERS_VERBOSITY": "error", "TOKENIZERS_PARALLELISM": "false", "RUST_LOG": "error",
}  # fmt: skip


@dataclass(frozen=True)
class Peer:
    """One library, used one way, with its own state in `folder`."""

    name: str  # of its folder below tests/benchmarks/peers
    way: str  # "default" | "tuned"
    pages: Path
    folder: Path
    model: Path

    def environment(self, stand_in: bool) -> dict[str, str]:
        state = self.folder / f"{self.name}-{self.way}"
        given = {"PEER_PAGES": str(self.pages), "PEER_STATE": str(state), "PEER_MODEL": str(self.model), "PEER_WAY": self.way}
        return outside() | given | {"PEER_STAND_IN": "1" if stand_in else "0"}

    def run(self, stand_in: bool = False) -> dict[str, Any]:
        """What its runner reports, with the seconds of `reported`."""
        return reported([str(python(self.name)), str(LOCKS / self.name / "run.py")], self.environment(stand_in), self.folder)


def outside() -> dict[str, str]:
    """This machine's environment without what belongs to our own virtual environment or clone."""
    ours = ("TANDEM_", "MLFLOW_", "PREFECT_", "PYTHONPATH", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)} | QUIET | MALLOC


def reported(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> dict[str, Any]:
    """What a runner prints, and "whole": seconds from the start of its process until its table was up to date; "cpu": of the
    processor, the reading back of the table (for the check) included."""
    started, before = time.time(), of_children()
    done = finished(command, environment, folder)
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return found | {"whole": found["ended"] - started, "cpu": of_children() - before}


def finished(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> "subprocess.CompletedProcess[str]":
    done = subprocess.run(
        command,
        env=environment,
        cwd=folder,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        check=False,
        timeout=LONGEST,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")
    return done


def python(peer: str) -> Path:
    return ENVIRONMENTS / peer / "bin/python"


def names() -> list[str]:
    found = sorted(path.parent.name for path in LOCKS.glob("*/requirements.lock"))
    assert found, f"no lock below {LOCKS}"
    return found


def is_there(peer: str) -> bool:
    """Installed to its end, from the lock as it stands."""
    done = ENVIRONMENTS / peer / "installed.lock"
    return done.exists() and done.read_text() == (LOCKS / peer / "requirements.lock").read_text()


def check_there(wanted: Sequence[str]) -> None:
    missing = [name for name in wanted if not is_there(name)]
    if missing:
        sys.exit(f"no environment for {', '.join(missing)}; run: python tests/benchmarks/peers.py --setup")


def set_up(peer: str) -> None:
    folder, lock = ENVIRONMENTS / peer, LOCKS / peer / "requirements.lock"
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
    install = [str(python(peer)), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*install, "-r", str(lock)], check=True)
    subprocess.run([str(python(peer)), "-m", "pip", "check"], check=True)
    shutil.copyfile(lock, folder / "installed.lock")


Seconds = tuple[float, float]  # by the clock, of the processor: the second one other work disturbs less


def in_turns(ways: Mapping[str, Callable[[], float]], repeats: int) -> dict[str, list[Seconds]]:
    """Each way, A B C A B C, one line a round."""
    seconds: dict[str, list[Seconds]] = {way: [] for way in ways}
    for repeat in range(repeats):
        for way, run in ways.items():
            before = of_children()
            seconds[way].append((run(), of_children() - before))
        line = ", ".join(f"{way} {found[-1][0]:.2f} ({found[-1][1]:.2f})" for way, found in seconds.items())
        print(f"round {repeat + 1}, load {os.getloadavg()[0]:.1f}: {line}", flush=True)
    return seconds


def of_children() -> float:
    """Processor seconds of all processes that this one started and that ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def timed(command: Sequence[str], environment: Mapping[str, str], folder: Path) -> float:
    """Seconds of the whole process, to its exit."""
    started = time.monotonic()
    finished(command, environment, folder)
    return time.monotonic() - started


def ratio(of: Sequence[float], to: Sequence[float]) -> str:
    """The median of the paired ratios, and its 95 % bootstrap interval over the rounds."""
    ratios = np.array(of) / np.array(to)
    drawn = np.median(np.random.default_rng(0).choice(ratios, (10_000, len(ratios))), axis=1)
    low, high = np.quantile(drawn, [0.025, 0.975])
    return f"{np.median(ratios):.1f} ({low:.1f} to {high:.1f})"


class Log:
    """What was said and measured, in a file that is whole after every run."""

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self.path = path
        self.found: dict[str, Any] = {"head": head, "runs": []}
        print(head, flush=True)

    def note(self, name: str, said: str) -> None:
        print(f"{name}: {said}", flush=True)
        self.found["head"].setdefault(name, []).append(said)
        self.save()

    def add(self, change: str, way: str, run: Mapping[str, Any]) -> None:
        self.found["runs"].append({"change": change, "way": way, "load": round(os.getloadavg()[0], 1), **run})
        self.save()

    def save(self) -> None:
        aside = self.path.with_suffix(".tmp")
        aside.write_text(json.dumps(self.found, indent=1) + "\n", encoding="utf-8")
        aside.replace(self.path)


def machine() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    models = [line.split(":")[1].strip() for line in lines if line.startswith("model name")]
    processor = models[0] if models else platform.processor()
    return f"{processor}, {os.cpu_count()} cores, Python {platform.python_version()}, load {os.getloadavg()[0]:.1f}"


def versions(peer: str, *packages: str) -> str:
    """Of a peer's environment, as installed."""
    code = f"from importlib.metadata import version; print(', '.join(f'{{name}} {{version(name)}}' for name in {packages!r}))"
    return finished([str(python(peer)), "-c", code], outside(), ROOT).stdout.strip()


PACKAGES = {
    "cocoindex": ("cocoindex", "lancedb", "sentence-transformers", "torch"),
    "langchain": ("langchain-core", "langchain-classic", "langchain-community", "langchain-huggingface", "lancedb", "torch"),
    "llama_index": (
        "llama-index-core",
        "llama-index-vector-stores-lancedb",
        "llama-index-embeddings-huggingface",
        "lancedb",
        "torch",
    ),
}


def main() -> None:
    if sys.argv[1:] not in ([], ["--setup"]):
        sys.exit(__doc__)
    for name in names():
        if sys.argv[1:] and not is_there(name):
            set_up(name)
        print(f"{name}: {versions(name, *PACKAGES[name]) if is_there(name) else 'not there'}", flush=True)


if __name__ == "__main__":
    main()
