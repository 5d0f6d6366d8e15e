"""vLLM itself, in its own environment (`make test-vllm`), beside transformers."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import tiny

from tasks.generation import Generator
from tasks.vllm_engine import INTERPRETER, VllmGenerator

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing` is deprecated:FutureWarning")]
GREEDY: dict[str, Any] = {"do_sample": False, "max_new_tokens": 24, "dtype": "float32"}
QUESTIONS = [question for _, _, question, _, _ in tiny.rows()]
LOADS = 240  # seconds


@pytest.fixture(autouse=True)
def _environment() -> None:
    assert os.environ.get(INTERPRETER), f"set {INTERPRETER}; make test-vllm does"


@pytest.fixture
def base(tiny_base: Path, tmp_path: Path) -> Path:
    """As the tiny one, with heads of 32 numbers: vLLM reads no smaller ones on a CPU."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    folder = shutil.copytree(tiny_base, tmp_path / "base")
    torch.manual_seed(7)
    config = AutoConfig.from_pretrained(folder, hidden_size=64, head_dim=32)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder)
    return folder


@pytest.fixture
def adapter(base: Path, tmp_path: Path) -> Path:
    """A random one that changes what is said."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    model = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base),
        LoraConfig(r=4, target_modules=["q_proj", "down_proj"], init_lora_weights=False),
    )
    model.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.timeout(2 * LOADS)
@pytest.mark.parametrize("adapted", [False, True])
def test_vllm_writes_what_transformers_writes(base: Path, adapter: Path, adapted: bool) -> None:
    given = (base, adapter if adapted else None, GREEDY)
    own, generator = Generator(*given), VllmGenerator(*given)
    found, expected = tiny.answers(generator, QUESTIONS), tiny.answers(own, QUESTIONS)
    processes = psutil.Process().children(recursive=True)
    generator.close()
    equal = sum(a == b for a, b in zip(found, expected, strict=True))
    assert len(set(expected)) > 20 and equal >= 0.95 * len(expected)
    assert processes and not psutil.wait_procs(processes, timeout=20)[1]


@pytest.fixture
def asking(base: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that keeps vLLM, loaded."""
    code = (
        f"from pathlib import Path; from tasks.vllm_engine import VllmGenerator; import time\n"
        f"made = VllmGenerator(Path({str(base)!r}), None, {GREEDY!r}); made.worker = made.started()\n"
        "print('loaded', flush=True); time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, cwd=tiny.ROOT)
    yield process
    process.kill()
    process.wait()


@pytest.mark.timeout(2 * LOADS)
def test_what_is_killed_leaves_no_vllm_behind(asking: "subprocess.Popen[str]") -> None:
    assert asking.stdout is not None and asking.stdout.readline() == "loaded\n"
    below = psutil.Process(asking.pid).children(recursive=True)
    assert below
    asking.send_signal(signal.SIGKILL)
    assert not psutil.wait_procs(below, timeout=60)[1]
