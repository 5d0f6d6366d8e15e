"""The pictures: written whole, the right size, the same bytes for the same numbers, whatever the reader's settings."""

import struct
from collections.abc import Callable
from pathlib import Path

import matplotlib
import pytest

from tasks.plots import COLOURS, arms_with_intervals, quality_against_cost, retrieval_curve, training_curve

MEANS = {"prompt": 0.22, "rag": 0.50, "lora": 0.37, "rag+lora": 0.81}
ROWS = {
    arm: {name: {"mean": mean, "low": mean - 0.05, "high": mean + 0.05} for name in ("primary", "fact_answerable", "style")}
    for arm, mean in MEANS.items()
}
COSTS = {arm: (400 * mean, ROWS[arm]["primary"]) for arm, mean in MEANS.items()}
CURVE: list[dict[str, float]] = [
    {"step": 5, "loss": 2.0},
    {"step": 10, "loss": 1.0, "validation_loss": 1.1},
    {"step": 15, "validation_loss": 1.2},
]
LEGS = [{"text_weight": 1.0, "recall@1": 0.5, "mrr": 0.6}, {"text_weight": 0.0, "recall@1": 0.4, "mrr": 0.6}]
PICTURES: dict[str, Callable[[Path], None]] = {
    "arms": lambda path: arms_with_intervals(ROWS, path, {"primary": 0.5}),
    "one arm": lambda path: arms_with_intervals({"rag": ROWS["rag"]}, path, {}),
    "cost": lambda path: quality_against_cost(COSTS, path),
    "no cost": lambda path: quality_against_cost({"rag": (0.0, ROWS["rag"]["fact_answerable"])}, path),
    "training": lambda path: training_curve(CURVE, path, "a title", (10, 1.1)),
    "one training point": lambda path: training_curve([{"step": 1, "loss": 1.0}], path, "a title", None),
    "no training points": lambda path: training_curve([], path, "a title", None),
    "retrieval": lambda path: retrieval_curve(LEGS, path, chosen=1.0),
    "reciprocal ranks": lambda path: retrieval_curve(LEGS, path, chosen=None),
    "no retrieval": lambda path: retrieval_curve([], path, chosen=0.0),
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_is_900_by_450_pixels_and_its_bytes_are_reproducible(name: str, tmp_path: Path) -> None:
    first, second = tmp_path / "new folder" / "first.png", tmp_path / "second.png"
    PICTURES[name](first)
    with matplotlib.rc_context({"figure.facecolor": "black", "savefig.dpi": 50, "font.size": 30}):
        PICTURES[name](second)
    content = first.read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (900, 450)
    assert b"Software" not in content
    assert content == second.read_bytes()


def test_the_order_of_the_report_does_not_change_the_picture(tmp_path: Path) -> None:
    arms_with_intervals(ROWS, tmp_path / "first.png", {})
    arms_with_intervals(dict(reversed(ROWS.items())), tmp_path / "second.png", {})
    assert (tmp_path / "first.png").read_bytes() == (tmp_path / "second.png").read_bytes()


def test_each_arm_has_a_colour_of_its_own() -> None:
    assert len(set(COLOURS.values())) == len(COLOURS) == 4
