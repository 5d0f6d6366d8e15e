"""What a run cost in energy and CO2e, where codecarbon is installed (the extra `energy`). An estimate: few machines have a meter
that a program may read, and without one the power of processor and memory is assumed."""

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any

Figures = dict[str, float]
POWER = "estimated_power_watt"


@contextmanager
def metered() -> Iterator[Callable[[], Figures]]:
    """Yields what to ask for the figures after the block; they are empty where nothing measures.

    No network: the country, on which CO2e depends, is codecarbon's own variable CODECARBON_COUNTRY_ISO_CODE.
    """
    if find_spec("codecarbon") is None:
        yield dict
        return
    os.environ.setdefault("CODECARBON_LOG_LEVEL", "critical")  # its own switch comes too late for its first lines
    from codecarbon import OfflineEmissionsTracker

    tracker = OfflineEmissionsTracker(save_to_file=False, log_level="critical", allow_multiple_runs=True, measure_power_secs=10)
    tracker.start()
    try:
        yield lambda: figures(tracker.final_emissions_data)
    finally:
        tracker.stop()


def figures(found: Any) -> Figures:
    """In the names of a metrics file. `estimated`: that is what they are."""
    return {
        "estimated_energy_kwh": float(found.energy_consumed),
        "estimated_co2e_kg": float(found.emissions),
        POWER: 3.6e6 * float(found.energy_consumed) / max(float(found.duration), 1e-9),
    }
