import socket
from typing import Any, NoReturn

import pytest

from tasks.energy import metered


def test_without_codecarbon_nothing_is_claimed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.energy.find_spec", lambda name: None)
    with metered() as figures:
        pass
    assert figures() == {}


def test_with_it_a_run_has_an_estimate_of_its_energy_and_needs_no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("codecarbon")

    def refuse(*words: Any, **more: Any) -> NoReturn:
        raise AssertionError("it asks the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    with metered() as figures:
        sum(range(10**6))
    found = figures()
    assert set(found) == {"estimated_energy_kwh", "estimated_co2e_kg", "estimated_power_watt"}
    assert all(value > 0 for value in found.values())
