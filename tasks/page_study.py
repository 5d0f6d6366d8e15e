"""The part of the report that says what would help: the newest learning curve and bake-off, with their advice in words."""

from typing import Any

from tasks import plots
from tasks.page_parts import chart
from tasks.page_rows import interval
from tasks.params import ARMS
from tasks.records import Record


def study_part(study: Record | None) -> Record | None:
    if not study:
        return None
    return {
        "at": study["at"],
        "questions": study["questions"],
        "advice": study["advice"],
        "arms": list(ARMS),
        "points": [point_row(point) for point in study["points"]],
        "chart": chart(lambda path: plots.learning_curve(curve(study), path), "Score by the number of training examples"),
    }


def curve(study: Record) -> list[Record]:
    """Of the base model in use, which stands first."""
    return [point for point in study["points"] if point["base"] == study["points"][0]["base"]]


def point_row(point: Record) -> Record:
    cells = [interval(point["arms"].get(arm)) for arm in ARMS]
    return {"base": point["base"], "size": millions(point["parameters"]), "pairs": f"{point['pairs']:,}", "shown": cells}


def millions(parameters: Any) -> str:
    return f"{parameters / 1e6:,.1f} M"
