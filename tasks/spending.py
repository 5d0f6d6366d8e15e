"""What answering costs beside tokens: seconds, memory, energy and money, per arm and thousand answers.

Tokens are counted, on every answer. Seconds and memory are measured on a few answers that are made alone, and hold for one
machine and what else it did: so they stand in the report, and neither in DVC's metrics nor in the verdict. Energy, an assumed
power times the seconds, and money, by a list of prices, are estimates and called so.
"""

import ctypes
import gc
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from tasks.params_verdict import Prices
from tasks.records import Record

ANSWERS = 1000
PROCESS = Path("/proc/self")
TOKENS = ("prompt_tokens", "completion_tokens")
Timed = dict[str, float | None]


@contextmanager
def settled() -> Iterator[None]:
    """What is here already is not searched for garbage before every answer: with the libraries loaded that takes 0.3 s."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def timed(work: Callable[[], Any]) -> tuple[Any, Timed]:
    """What `work` returns, the seconds that a person would wait for it, and the most memory that was held meanwhile."""
    forget_peak()
    started = time.perf_counter()
    found = work()
    return found, {"latency_seconds": time.perf_counter() - started, "peak_memory_mb": peak_mb()}


def forget_peak() -> None:
    """Freed memory goes back to the system first, or it would count as held."""
    import torch

    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError, AttributeError):  # not Linux, or another C library
        ctypes.CDLL(None).malloc_trim(0)
        (PROCESS / "clear_refs").write_text("5")


def peak_mb() -> float | None:
    """Since `forget_peak`, in 10^6 bytes: of the accelerator where there is one, else of this process; None if nobody counts."""
    import torch

    if torch.cuda.is_available():
        return float(torch.cuda.max_memory_allocated()) / 1e6
    try:
        found = re.search(r"^VmHWM:\s+(\d+) kB$", (PROCESS / "status").read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 / 1e6 if found else None


def spending(records: Sequence[Record], prices: Prices) -> Record:
    """Of one arm's answers, for the report; None for what was not measured or has no price."""
    seconds = values(records, "latency_seconds")
    tokens = {name: ANSWERS * float(np.mean([record[name] for record in records])) for name in TOKENS}
    hours = ANSWERS * float(np.mean(seconds)) / 3600 if seconds else None
    watt, peaks = values(records, "estimated_power_watt"), values(records, "peak_memory_mb")
    return {
        "latency_p50": float(np.percentile(seconds, 50)) if seconds else None,
        "latency_p95": float(np.percentile(seconds, 95)) if seconds else None,
        "timed": len(seconds),
        "peak_memory_mb": max(peaks, default=None),
        "thousand": {
            **tokens,
            "machine_hours": hours,
            "estimated_energy_kwh": float(np.mean(watt)) * hours / 1000 if watt and hours is not None else None,
            "estimated_money": money(tokens, hours, prices),
        },
    }


def values(records: Sequence[Record], name: str) -> list[float]:
    """Of the answers that were timed; an older evaluation knows some of them only."""
    return [record[name] for record in records if record.get(name) is not None]


def money(tokens: dict[str, float], hours: float | None, prices: Prices) -> float | None:
    """None without prices, and where the machine has a price and no time."""
    told = (prices.prompt_tokens, prices.completion_tokens, prices.machine_hour)
    if not any(told) or (prices.machine_hour and hours is None):
        return None
    billed = tokens["prompt_tokens"] * prices.prompt_tokens + tokens["completion_tokens"] * prices.completion_tokens
    return billed / 1000 + prices.machine_hour * (hours or 0.0)
