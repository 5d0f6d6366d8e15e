"""What a thousand answers of each arm cost, as rows for page and command line: each with how it is known."""

from collections.abc import Callable
from typing import Any, NamedTuple

from tasks.params import ARMS
from tasks.records import Record
from tasks.reports import number


class Figure(NamedTuple):
    title: str
    value: Callable[[Record], Any]  # of an arm's part of the report
    form: str
    known: str  # `{timed}`: how many answers were timed


FIGURES = (
    Figure("tokens read", lambda arm: thousand(arm, "prompt_tokens"), "{:,.0f}", "counted"),
    Figure("tokens written", lambda arm: thousand(arm, "completion_tokens"), "{:,.0f}", "counted"),
    Figure("seconds an answer, median", lambda arm: arm.get("latency_p50"), "{:.2f}", "measured on {timed} answers"),
    Figure("seconds an answer, slowest 5 %", lambda arm: arm.get("latency_p95"), "{:.2f}", "measured on {timed} answers"),
    Figure("memory at most, MB", lambda arm: arm.get("peak_memory_mb"), "{:,.0f}", "measured on {timed} answers"),
    Figure("machine, minutes", lambda arm: times(60, thousand(arm, "machine_hours")), "{:,.1f}", "estimate: one at a time"),
    Figure("energy, Wh", lambda arm: times(1000, thousand(arm, "estimated_energy_kwh")), "{:,.1f}", "estimate"),
    Figure("money, {currency}", lambda arm: thousand(arm, "estimated_money"), "{:,.2f}", "estimate: by prices in params"),
)


def thousand(arm: Record, name: str) -> Any:
    return (arm.get("thousand") or {}).get(name)


def times(factor: float, value: Any) -> Any:
    return factor * value if number(value) else None


def cost_rows(report: Record) -> list[Record]:
    """{"title", "shown": a text per arm, "known"}; without what no arm has, as a report from before it was measured."""
    arms = [report["arms"][arm] for arm in ARMS if arm in report["arms"]]
    counts = sorted({arm["timed"] for arm in arms if arm.get("timed")})
    told = {"currency": report.get("currency", ""), "timed": " to ".join(map(str, counts)) or "some"}
    rows = [
        {
            "title": figure.title.format(**told),
            "shown": [figure.form.format(value) if number(value := figure.value(arm)) else "–" for arm in arms],
            "known": figure.known.format(**told),
        }
        for figure in FIGURES
    ]
    return [row for row in rows if set(row["shown"]) != {"–"}]


def prices_known(report: Record) -> bool:
    return any(number(thousand(arm, "estimated_money")) for arm in report["arms"].values())
