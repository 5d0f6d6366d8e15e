"""The parts of the report's page beside its tables: pictures, what changed since the champion, training, retrieval, digests."""

import base64
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tasks import plots
from tasks.headline import against, signed
from tasks.judged import Judged
from tasks.page_costs import thousand
from tasks.page_rows import interval
from tasks.records import Record
from tasks.reports import number


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
        "slices": [champion_slice(row) for row in judged.verdict.get("champion_slices") or []],
    }


def champion_slice(row: Record) -> Record:
    return {
        "name": row["name"],
        "questions": row["questions"],
        "difference": signed(row["difference"]),
        "chance": f"{row['adjusted']:.3f}" if number(row.get("adjusted")) else "–",
        "lost": "yes" if row.get("lost") else "no",
    }


def names_of(pages: Any, most: int = 12) -> str:
    names = [f"{old} → {new}" for old, new in pages.items()] if isinstance(pages, Mapping) else list(pages)
    rest = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{len(names)}: {', '.join(names[:most])}{rest}"


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
        *money_chart(judged.report, arms),
    ]


def money_chart(report: Record, arms: Mapping[str, Record]) -> list[Record]:
    """Where there are prices."""
    costs = {arm: (thousand(values, "estimated_money"), values["metrics"]["primary"]) for arm, values in arms.items()}
    if not costs or not all(number(price) for price, _ in costs.values()):
        return []
    unit = f"{report.get('currency', '')} for 1,000 answers, an estimate"
    return [chart(lambda path: plots.quality_against_cost(costs, path, unit), "Score against money")]


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
    curve = (judged.retrieval or {}).get("reranked" if settings.get("rerank") else "curve") or []
    if not found and not curve:
        return None
    said = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in sorted(settings.items()))
    fusions = {settings.get("fusion"), "none"}
    points = [{key: value for key, value in point.items() if isinstance(value, int | float) and key != "rerank"}
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


OPTIONAL = {"query encoder": "query_encoder", "reranker": "reranker"}  # name -> key of the release


def model(piece: Record) -> str:
    return f"{piece['id'] or piece['source']}, digest {piece['digest'][:12]}"


def facts(judged: Judged) -> list[tuple[str, str]]:
    release, verdict = judged.release, judged.verdict
    adapter, thresholds = release.get("adapter"), verdict["thresholds"]
    rows = [
        ("release", judged.identity),
        ("documents", f"{release['corpus']['documents']}, digest {release['corpus']['digest'][:12]}"),
        ("index", f"{release['index']['rows']} passages, {release['index']['tag']}"),
        ("base model", model(release["base"])),
        ("adapter", f"digest {adapter['digest'][:12]}" if adapter else "none"),
        ("embedder", model(release["embedder"])),
        *((name, model(release[key])) for name, key in OPTIONAL.items() if release.get(key)),
        ("questions", f"{judged.report['questions']['count']}, digest {judged.report['questions']['digest'][:12]}"),
        ("decoding", ", ".join(f"{key} {value}" for key, value in sorted(release["decoding"].items()))),
    ]
    if verdict.get("smallest_difference") is not None:
        needed = verdict.get("questions_needed")
        more = f"; the margin needs about {needed} questions" if needed else ""
        rows.append(("what these questions can tell", f"differences of {verdict['smallest_difference']:.2f} or more{more}"))
    look = verdict.get("look") or {}
    if look.get("number"):
        rows.append(("look at these questions", f"number {look['number']}, with an alpha of {look['alpha']:.3f}"))
    rows += [(f"gate: {key}", in_words(value)) for key, value in sorted(thresholds.items()) if key != "questions"]
    return rows


def in_words(value: Any) -> str:
    """`fact 0.5, primary 0.5`"""
    return ", ".join(f"{key} {inner}" for key, inner in value.items()) if isinstance(value, Mapping) else str(value)
