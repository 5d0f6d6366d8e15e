"""The report of a judgement: one HTML page that needs nothing else, for someone who decides and has never seen the project.

What an evaluation did not record is left out. Texts of the corpus are data: Jinja2 escapes every value, `visible` shows the
characters that would reorder or hide others, and the page's own policy forbids all network and any script but its own.
"""

import base64
import hashlib
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.headline import headline, scoring, undecided
from tasks.judged import WORDS, Judged
from tasks.page_costs import cost_rows
from tasks.page_judge import judge_part
from tasks.page_parts import arm_charts, facts, retrieval_part, since_champion, training_part
from tasks.page_rows import arm_table, columns_of, more_figures, question_rows, rights, slice_names, slice_rows
from tasks.page_study import study_part
from tasks.params import ARMS
from tasks.records import Record

TEMPLATES = Path(__file__).with_name("templates")
# Controls, what turns the direction of the text after it, and halves of characters: shown by number, never obeyed
INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def page(judged: Judged) -> str:
    """Raises KeyError where report or verdict lack what every one has had since their first format."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    texts = {name: (TEMPLATES / f"report.{name}").read_text(encoding="utf-8") for name in ("css", "js")}
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined, finalize=visible, trim_blocks=True
    )
    own = {"style": Markup(texts["css"]), "script": Markup(texts["js"]), "policy": policy(texts["js"])}  # the only unescaped ones
    return environment.get_template("report.html").render(**own, **view(judged))


def policy(script: str) -> str:
    """No network, no frame, no form, and no script but the one of this digest. Pictures draw with styles of their own."""
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; "
        "form-action 'none'"
    )


def visible(value: Any) -> Any:
    """A text with every character that a reader would not see as ⟨U+202E⟩; whatever else is no text as it is."""
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return INVISIBLE.sub(lambda match: f"⟨U+{ord(match[0]):04X}⟩", value)


# --- What the page says


def view(judged: Judged) -> Record:
    report, verdict = judged.report, judged.verdict
    columns = columns_of(judged.answers, judged.champion, judged.champion_arm, judged.champion_answers)
    rows, passages = question_rows(columns, report, verdict)
    arms = in_order(report["arms"])
    return {
        "name": judged.name if judged.identity[:12] in judged.name else f"{judged.name} ({judged.identity[:12]})",
        "outcome": judged.outcome,
        "badge": "cannot decide" if undecided(judged) else judged.outcome,
        "at": day(judged.at),
        "headline": headline(judged, rights(columns, arms)),
        "reasons": verdict["reasons"],
        "notes": verdict.get("notes", []),
        "comparisons": [each["says"] for each in verdict.get("comparisons", []) if each.get("says")],
        "more_figures": more_figures(report),
        "count": report["questions"]["count"],
        "unanswerable": report["questions"].get("unanswerable", 0),
        "scoring": scoring(verdict),
        "arms": [{"name": arm, "words": WORDS.get(arm, ""), "served": arm == verdict.get("arm")} for arm in arms],
        "served": verdict.get("arm"),
        "arm_table": arm_table(report, verdict, columns),
        "arm_charts": arm_charts(judged),
        "costs": cost_rows(report),
        "champion": judged.champion,
        "changes": since_champion(judged),
        "slices": slice_rows(judged.report, judged.arm, slice_names(rows)),
        "slice_arms": arms,
        "slice_names": slice_names(rows),
        "parts": [part for part in (judge_part(judged.judge), training_part(judged.training), retrieval_part(judged)) if part],
        "study": told_when(study_part(judged.study)),
        "columns": list(columns),
        "questions": rows,
        "passages": passages,
        "facts": facts(judged),
    }


def told_when(part: Record | None) -> Record | None:
    return part and part | {"at": day(part["at"])}


def day(at: str) -> str:
    """`21 November 2026, 10:37 UTC`; what is no time stays as it is."""
    try:
        return f"{datetime.fromisoformat(at).astimezone(UTC):%-d %B %Y, %H:%M} UTC"
    except ValueError:
        return at


def in_order(arms: Mapping[str, Any]) -> list[str]:
    return [arm for arm in ARMS if arm in arms]
