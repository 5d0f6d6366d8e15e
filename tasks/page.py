"""The report of a judgement: one HTML page that needs nothing else, for someone who decides and has never seen the project.

What an evaluation did not record is left out. Texts of the corpus are data: Jinja2 escapes every value, `visible` shows the
characters that would reorder or hide others, and the page's own policy forbids all network and any script but its own.
"""

import base64
import hashlib
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks import plots
from tasks.page_rows import arm_table, columns_of, interval, question_rows, rights, slice_names, slice_rows
from tasks.params import ARMS
from tasks.records import Record
from tasks.reports import number

TEMPLATES = Path(__file__).with_name("templates")
WORDS = {
    "prompt": "the base model alone",
    "rag": "the base model with the pages that search finds",
    "lora": "the trained model alone",
    "rag+lora": "the trained model with the pages that search finds",
}
# Controls, what turns the direction of the text after it, and halves of characters: shown by number, never obeyed
INVISIBLE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


@dataclass(frozen=True)
class Judged:
    """One judgement and what it rested on. `changes`: as `flows.comparing` tells them, {"content", "documents", "params"}."""

    name: str  # "Release 2", or "Candidate 1d320147cf80"
    outcome: str  # promoted, accepted (by the gate; more may follow), refused
    at: str
    why: str  # of the ledger; empty while it is being decided
    release: Record  # the manifest
    identity: str
    report: Record
    answers: list[Record]
    verdict: Record
    champion: str | None = None  # "release 1"
    champion_arm: str | None = None
    champion_answers: list[Record] = field(default_factory=list)
    changes: Record = field(default_factory=dict)
    training: Record | None = None
    retrieval: Record | None = None
    examples: Record = field(default_factory=dict)  # how many of which kind, by split
    training_params: Record = field(default_factory=dict)

    @property
    def arm(self) -> str:
        return str(self.verdict.get("arm") or self.release["arm"])


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
        "at": day(judged.at),
        "headline": headline(judged, rights(columns, arms)),
        "reasons": verdict["reasons"],
        "notes": verdict.get("notes", []),
        "count": report["questions"]["count"],
        "unanswerable": report["questions"].get("unanswerable", 0),
        "scoring": scoring(verdict),
        "arms": [{"name": arm, "words": WORDS.get(arm, ""), "served": arm == verdict.get("arm")} for arm in arms],
        "served": verdict.get("arm"),
        "arm_table": arm_table(report, verdict, columns),
        "arm_charts": arm_charts(judged),
        "champion": judged.champion,
        "changes": since_champion(judged),
        "slices": slice_rows(judged.report, judged.arm, slice_names(rows)),
        "slice_arms": arms,
        "slice_names": slice_names(rows),
        "parts": [part for part in (training_part(judged.training), retrieval_part(judged)) if part],
        "columns": list(columns),
        "questions": rows,
        "passages": passages,
        "facts": facts(judged),
    }


def day(at: str) -> str:
    """`21 November 2026, 10:37 UTC`; what is no time stays as it is."""
    try:
        return f"{datetime.fromisoformat(at).astimezone(UTC):%-d %B %Y, %H:%M} UTC"
    except ValueError:
        return at


def headline(judged: Judged, right: Mapping[str, int]) -> list[str]:
    """The verdict in two sentences without a term of the trade."""
    if judged.outcome == "refused":
        stays = f"{judged.champion} stays live" if judged.champion else "nothing is live yet"
        return [f"{judged.name} was refused; {stays}.", refusal(judged)]
    done = "was promoted" if judged.outcome == "promoted" else "is accepted by the gate"
    first = (
        f"{judged.name} {done}: questions are answered by {WORDS.get(judged.arm, judged.arm)} ({judged.arm}), which "
        f"gets {right[judged.arm]} of {judged.report['questions']['count']} test questions right."
    )
    return [first, against(judged) or among(judged)]


def refusal(judged: Judged) -> str:
    """Why, in one sentence: what a person said, or the gate's first reason, told whole where no arm is good enough."""
    verdict = judged.verdict
    if judged.why and verdict["accepted"]:
        return f"The gate had accepted it, but {judged.why[:1].lower()}{judged.why[1:]}{'' if judged.why.endswith('.') else '.'}"
    rows = verdict.get("arms") or []
    best = max(rows, key=lambda row: row["mean"], default=None)
    if best is None or any(row["above_floors"] for row in rows):
        return str(verdict["reasons"][0])
    said = f"{best['arm']} is not served: "
    short = next((text.removeprefix(said) for text in verdict["reasons"] if text.startswith(said)), "")
    return f"None of its {len(rows)} ways to answer is good enough; even the best, {best['arm']}, falls short: {short}"


def against(judged: Judged) -> str:
    """The comparison with the champion, where there is one."""
    found = next((each for each in judged.verdict.get("comparisons", []) if each["other"].startswith("champion")), None)
    if found is None or judged.champion is None:
        return ""
    low, high = (signed(found[side]) for side in ("low", "high"))
    rule, margin = judged.verdict["thresholds"].get("rule"), judged.verdict["thresholds"].get("margin")
    wanted = f"; as the pages had changed, it had to be no more than {margin:.2f} lower" if rule == "not worse" and margin else ""
    return f"Against {judged.champion} it scores {signed(found['difference'])} (between {low} and {high}){wanted}."


def signed(value: float | None) -> str:
    """0.02 higher; None stands for a bound that is unlimited."""
    if value is None:
        return "unlimited"
    return f"{abs(value):.2f} {'higher' if value >= 0.005 else 'lower' if value <= -0.005 else 'apart'}"


def among(judged: Judged) -> str:
    """How the arm stands among the others, in a first release."""
    rows = {row["arm"]: row for row in judged.verdict.get("arms") or []}
    if judged.arm not in rows or len(rows) < 2:
        return str(judged.verdict["reasons"][0])
    best = max((row for arm, row in rows.items() if arm != judged.arm), key=lambda row: row["mean"])
    return (
        f"It scores {rows[judged.arm]['mean']:.2f} of 1; of the {len(rows) - 1} other ways that were tried, {best['arm']} comes "
        f"next with {best['mean']:.2f}."
        if best["mean"] <= rows[judged.arm]["mean"]
        else f"It scores {rows[judged.arm]['mean']:.2f} of 1 at {rows[judged.arm]['cost']:.0f} token equivalents an answer; "
        f"{best['arm']} scores {best['mean']:.2f} at {best['cost']:.0f}."
    )


def scoring(verdict: Record) -> str:
    """`The score of an answer is 60 % fact, 20 % citation and 20 % style.`"""
    weights = {name: weight for name, weight in (verdict["thresholds"].get("primary") or {}).items() if weight}
    total = sum(weights.values())
    largest = sorted(weights.items(), key=lambda item: -item[1])
    shares = [f"{name.replace('_', ' ')} {weight / total:.0%}" for name, weight in largest]
    return f"The score of an answer, 0 to 1, weighs {', '.join(shares)}." if shares else ""


def since_champion(judged: Judged) -> Record | None:
    if judged.champion is None:
        return None
    changes, turned = judged.changes, judged.verdict.get("changes") or {}
    lost, won = (len(turned.get(side, ())) for side in ("lost", "won"))
    sides = {"lost": f"{lost} right before, wrong now", "won": f"{won} wrong before, right now"}
    documents = changes.get("documents", {})
    content = [line.partition(": ") for line in changes.get("content", [])]
    rows = [{"name": what, "says": said.replace(" -> ", " → ")} for what, _, said in content]
    rows += [{"name": f"pages {kind}", "says": names_of(pages)} for kind, pages in documents.items() if pages]
    rows += [{"name": f"params {key}", "says": f"{old} → {new}"} for key, (old, new) in changes.get("params", {}).items()]
    return {
        "compared": against(judged),
        "turned": "Answers that turned:" if lost or won else "",
        "sides": [{"value": side, "says": sides[side]} for side, count in (("lost", lost), ("won", won)) if count],
        "rows": rows,
    }


def names_of(pages: Any, most: int = 12) -> str:
    names = [f"{old} → {new}" for old, new in pages.items()] if isinstance(pages, Mapping) else list(pages)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)}: {', '.join(names[:most])}{rest}"


# --- Pictures and numbers


def arm_charts(judged: Judged) -> list[Record]:
    """Of the arms that were measured whole."""
    arms = {arm: values for arm, values in judged.report["arms"].items()
            if interval(values["metrics"].get("primary"))["interval"] and number(values.get("cost"))}  # fmt: skip
    if not arms:
        return []
    floors = judged.verdict["thresholds"].get("floors") or {}
    lines = {"primary": floors.get("primary"), "fact_answerable": floors.get("fact")}
    metrics = {arm: values["metrics"] for arm, values in arms.items()}
    costs = {arm: (values["cost"], values["metrics"]["primary"]) for arm, values in arms.items()}
    drawn = {metric: floor for metric, floor in lines.items() if floor is not None}
    return [
        chart(lambda path: plots.arms_with_intervals(metrics, path, drawn), "Scores of the arms with their intervals"),
        chart(lambda path: plots.quality_against_cost(costs, path), "Score against cost per answer"),
    ]


def chart(draw: Callable[[Path], None], says: str) -> Record:
    """A picture as an address that holds it; inside `img` an SVG is only looked at, its names meet no other's."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "chart.svg"
        draw(path)
        return {"says": says, "data": f"data:image/svg+xml;base64,{base64.b64encode(path.read_bytes()).decode()}"}


def training_part(training: Record | None) -> Record | None:
    curve = (training or {}).get("curve")
    if not training or not curve:
        return None
    first, best, kept = (training.get(key) for key in ("validation_loss_first", "validation_loss_best", "kept_step"))
    says, point = "", None
    if first is not None and best is not None and kept is not None:
        says = f"On validation examples the loss went from {first:.3f} to {best:.3f}; step {kept} was kept."
        point = (float(kept), float(best))
    numbers = {name.replace("_", " "): value for name, value in training.items() if isinstance(value, int | float)}
    return {
        "title": "Training of the adapter",
        "says": says,
        "rows": [(name, f"{value:,.4g}" if isinstance(value, float) else f"{value:,}") for name, value in numbers.items()],
        "chart": chart(lambda path: plots.training_curve(curve, path, "Loss by step", point), "The curve of the training"),
    }


def retrieval_part(judged: Judged) -> Record | None:
    """What the served settings find on the test questions, and the curve from which they were chosen on the validation ones."""
    found, settings = judged.report.get("retrieval") or {}, judged.release["retrieval"]
    curve = (judged.retrieval or {}).get("curve") or []
    if not found and not curve:
        return None
    said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in sorted(settings.items()))
    fusions = {settings.get("fusion"), "none"}
    points = [{key: value for key, value in point.items() if isinstance(value, int | float)}
              for point in curve if point.get("fusion") in fusions and "text_weight" in point]  # fmt: skip
    chosen = None if settings.get("fusion") == "rrf" else settings.get("text_weight")
    return {
        "title": "Retrieval",
        "says": f"Of the test questions that a page answers: how often that page is found, and how far up. Settings: {said}.",
        "rows": [(name, f"{value:.3f}") for name, value in sorted(found.items(), key=by_depth)],
        "chart": chart(lambda path: plots.retrieval_curve(points, path, chosen), "Retrieval by the weight of full text")
        if points
        else None,
    }


def by_depth(item: tuple[str, float]) -> tuple[str, int]:
    """recall@5 before recall@10."""
    name, _, depth = item[0].partition("@")
    return name, int(depth or 0)


def facts(judged: Judged) -> list[tuple[str, str]]:
    release, verdict = judged.release, judged.verdict
    adapter, thresholds = release.get("adapter"), verdict["thresholds"]
    rows = [
        ("release", judged.identity),
        ("documents", f"{release['corpus']['documents']}, digest {release['corpus']['digest'][:12]}"),
        ("index", f"{release['index']['rows']} passages, {release['index']['tag']}"),
        ("base model", f"{release['base']['id'] or release['base']['source']}, digest {release['base']['digest'][:12]}"),
        ("adapter", f"digest {adapter['digest'][:12]}" if adapter else "none"),
        (
            "embedder",
            f"{release['embedder']['id'] or release['embedder']['source']}, digest {release['embedder']['digest'][:12]}",
        ),
        ("questions", f"{judged.report['questions']['count']}, digest {judged.report['questions']['digest'][:12]}"),
        ("decoding", ", ".join(f"{key} {value}" for key, value in sorted(release["decoding"].items()))),
    ]
    if verdict.get("smallest_difference") is not None:
        needed = verdict.get("questions_needed")
        more = f"; the margin needs about {needed} questions" if needed else ""
        rows.append(("what these questions can tell", f"differences of {verdict['smallest_difference']:.2f} or more{more}"))
    rows += [(f"gate: {key}", in_words(value)) for key, value in sorted(thresholds.items()) if key != "questions"]
    return rows


def in_words(value: Any) -> str:
    """`fact 0.5, primary 0.5`"""
    return ", ".join(f"{key} {inner}" for key, inner in value.items()) if isinstance(value, Mapping) else str(value)


def in_order(arms: Mapping[str, Any]) -> list[str]:
    return [arm for arm in ARMS if arm in arms]
