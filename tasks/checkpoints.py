"""What an interrupted training goes on from: no pickles, found by what is trained and how, and whole or not there.

A checkpoint is a folder with a marker, written last, that holds the digests of the others. kill -9 at any moment leaves the one
before; a folder without its marker, or whose bytes are others, is thrown away.
"""

import re
import shutil
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks.errors import InputError
from tasks.params import AdapterParams
from tasks.records import folder_digest, folder_digests, read_json, sync, value_digest, write_json

FORMAT = 1  # another one where the training loop computes something else from the same inputs
MARKER, PROGRESS = "complete.json", "progress.json"
PARTS = ("weights", "best", "first_moments", "second_moments")  # name of a parameter -> tensor
LIBRARIES = ("torch", "transformers", "peft")
KEY = re.compile("[0-9a-f]{64}")  # the name of a training's folder
Tensors = dict[str, Any]


@dataclass
class Progress:
    """How far a training is: steps made, the curve so far, the best validation loss and how many evaluations it is ago."""

    step: int = 0
    curve: list[dict[str, float]] = field(default_factory=list)
    best_step: int = 0
    best_loss: float | None = None
    worse: int = 0
    tokens: int = 0
    padded: int = 0
    seconds: float = 0.0

    def count(self, tokens: int, padded: int, seconds: float) -> None:
        """One more step: its tokens, those with padding, and how long it took."""
        self.step += 1
        self.tokens, self.padded, self.seconds = self.tokens + tokens, self.padded + padded, self.seconds + seconds


def training_key(base: Path, examples: Path, params: AdapterParams, processes: int) -> str:
    """All that decides the weights: another base, example, value or library is another training."""
    libraries = {name: version(name) for name in LIBRARIES}
    return value_digest([FORMAT, folder_digest(base), folder_digest(examples), params.model_dump(), libraries, processes])


class Checkpoints:
    """Those of one training, in a folder of its own below `root`, which may be cleared at any time."""

    def __init__(self, root: Path, key: str) -> None:
        self.root, self.key, self.folder = root, key, root / key

    def write(self, progress: Progress, parts: Mapping[str, Tensors]) -> None:
        """`parts`: one of each of PARTS. The one before is removed when this one is whole."""
        from safetensors.torch import save_file

        target = self.folder / f"step-{progress.step:08}"
        remove(target)
        target.mkdir(parents=True)
        for name in PARTS:
            save_file({key: tensor.contiguous() for key, tensor in parts[name].items()}, target / f"{name}.safetensors")
        write_json(target / PROGRESS, asdict(progress))
        for path in target.iterdir():
            sync(path)
        write_json(target / MARKER, {"key": self.key, "files": folder_digests(target)})
        sync(self.folder)
        for old in self.folder.iterdir():
            if old != target:
                remove(old)

    def newest(self) -> tuple[Progress, dict[str, Tensors]] | None:
        """The last whole one. The others are removed: torn ones, and those of trainings that nobody will end."""
        from safetensors.torch import load_file

        whole = sorted(path for path in self.folder.glob("step-*") if self.is_whole(path))
        others = [path for path in self.root.glob("*") if KEY.fullmatch(path.name) and path != self.folder]
        for path in [*others, *(path for path in self.folder.glob("*") if path not in whole[-1:])]:
            remove(path)
        if not whole:
            return None
        parts = {name: dict(load_file(whole[-1] / f"{name}.safetensors")) for name in PARTS}
        return Progress(**read_json(whole[-1] / PROGRESS)), parts

    def is_whole(self, folder: Path) -> bool:
        try:
            marker = read_json(folder / MARKER)
        except InputError:
            return False
        files = folder_digests(folder)
        files.pop(MARKER)
        return bool(marker == {"key": self.key, "files": files})

    def clear(self) -> None:
        """`root` too, unless somebody keeps other things there."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with suppress(OSError):
            self.root.rmdir()


def remove(folder: Path) -> None:
    """The marker first: what a kill leaves of it is then no checkpoint."""
    (folder / MARKER).unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def stop_asked() -> Iterator[Callable[[], bool]]:
    """Yields whether SIGTERM came: whoever sends it wants the machine back, and gives seconds for a last checkpoint."""
    asked = threading.Event()
    before = signal.signal(signal.SIGTERM, lambda number, frame: asked.set())
    try:
        yield asked.is_set
    finally:
        signal.signal(signal.SIGTERM, before)
