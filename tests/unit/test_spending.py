"""What a thousand answers cost: counted, measured or an estimate, and never a number for what nobody knows."""

import gc
import weakref

import numpy as np
import pytest

from tasks.page_costs import cost_rows
from tasks.params_verdict import Prices
from tasks.records import Record
from tasks.spending import forget_peak, peak_mb, settled, spending, timed

FREE = Prices(currency="EUR", prompt_tokens=0, completion_tokens=0, machine_hour=0)


def answers(*seconds: float | None) -> list[Record]:
    measured = {"peak_memory_mb": 100.0, "estimated_power_watt": 36.0}
    return [
        {"prompt_tokens": 200, "completion_tokens": 10, "latency_seconds": each} | (measured if each else {}) for each in seconds
    ]


def test_a_thousand_answers_are_told_in_tokens_hours_energy_and_money() -> None:
    prices = Prices(currency="EUR", prompt_tokens=0.5, completion_tokens=2.0, machine_hour=3.0)
    found = spending(answers(1.0, 3.0, None), prices)
    assert found["latency_p50"] == 2.0 and found["timed"] == 2 and found["peak_memory_mb"] == 100.0
    hours = 1000 * 2.0 / 3600
    assert found["thousand"] == {
        "prompt_tokens": 200_000, "completion_tokens": 10_000, "machine_hours": pytest.approx(hours),
        "estimated_energy_kwh": pytest.approx(0.036 * hours), "estimated_money": pytest.approx(100 + 20 + 3 * hours),
    }  # fmt: skip


def test_what_was_not_measured_or_has_no_price_is_not_told() -> None:
    assert spending(answers(1.0), FREE)["thousand"]["estimated_money"] is None
    machine = FREE.model_copy(update={"machine_hour": 1.0})
    untimed = spending(answers(None), machine)
    assert untimed["thousand"]["machine_hours"] is None and untimed["thousand"]["estimated_money"] is None
    assert untimed["latency_p50"] is None and untimed["peak_memory_mb"] is None
    by_token = FREE.model_copy(update={"completion_tokens": 1.0})
    assert spending(answers(None), by_token)["thousand"]["estimated_money"] == 10.0  # a bill needs no clock


def test_memory_is_that_of_this_piece_of_work() -> None:
    forget_peak()
    before = peak_mb()
    if before is None:
        pytest.skip("this system does not count it")
    large, found = timed(lambda: float(np.ones(30_000_000).sum()))  # 240 MB
    assert large == 30_000_000 and found["latency_seconds"] is not None and found["peak_memory_mb"] is not None
    assert found["peak_memory_mb"] > before + 200
    _, small = timed(lambda: 1)
    assert small["peak_memory_mb"] is not None and small["peak_memory_mb"] < found["peak_memory_mb"] - 200


def test_what_was_here_before_the_answers_is_not_searched_for_garbage_between_them() -> None:
    class Circle:
        itself: "Circle"

    with settled():
        assert gc.get_freeze_count() > 10_000
        left = Circle()
        left.itself, gone = left, weakref.ref(left)
        del left
        timed(lambda: None)
        assert gone() is None  # what an answer left behind is
    assert gc.get_freeze_count() == 0


def test_every_row_says_how_it_is_known_and_rows_that_no_arm_has_are_left_out() -> None:
    arm = {"metrics": {}, "cost": 1.0} | spending(answers(1.0, 2.0), FREE)
    report = {"currency": "EUR", "arms": {"prompt": arm, "rag": {"metrics": {}, "cost": 1.0}}}
    rows = {row["title"]: row for row in cost_rows(report)}
    assert rows["tokens read"] == {"title": "tokens read", "shown": ["200,000", "–"], "known": "counted"}
    assert rows["seconds an answer, median"]["known"] == "measured on 2 answers"
    assert rows["energy, Wh"]["shown"] == ["15.0", "–"] and rows["energy, Wh"]["known"] == "estimate"
    assert not [title for title in rows if "money" in title]
    assert cost_rows({"arms": {"rag": {"metrics": {}, "cost": 1.0}}}) == []
    assert "money, CHF" in [
        row["title"] for row in cost_rows({"currency": "CHF", "arms": {"rag": {"thousand": {"estimated_money": 2.0}}}})
    ]
