"""The pictures of a release, as PNG or SVG: legible at README size, colour-blind safe, the same bytes for the same numbers."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tasks.params import ARMS, uses_adapter

PANELS = {"primary": "primary", "fact_answerable": "fact", "citation": "citation", "style": "style"}  # metric: its title
TOKENS = "token equivalents per answer"
WIDTH, HEIGHT, DPI = 9.0, 4.5, 100  # inches: 900 x 450 pixels
Interval = Mapping[str, float]  # mean, low, high
# Okabe and Ito 2008 (colour universal design): one colour per arm, everywhere.
COLOURS = {"prompt": "#999999", "rag": "#0072B2", "lora": "#E69F00", "rag+lora": "#009E73"}
CYCLE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, MUTED, GRID = "#222222", "#666666", "#DDDDDD"
STYLE = {
    "font.family": "DejaVu Sans",
    "font.size": 11,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "grid.color": GRID,
    "svg.hashsalt": "tandem",  # else names inside an SVG are drawn at random
}
NO_CLOCK: dict[str, dict[str, str | None]] = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}


def draw(path: Path, title: str, paint: Callable[..., None], panels: int = 1) -> None:
    """One picture, in the format of the path's suffix: `paint` gets the axes of its panels. No reader's matplotlibrc and no clock
    changes a byte."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    settings: dict[Any, Any] = {**matplotlib.rcParamsDefault, "backend": "agg", **STYLE}
    with matplotlib.rc_context(settings):
        figure = Figure(figsize=(WIDTH, HEIGHT), layout=ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1))
        FigureCanvasAgg(figure)
        ratios = [2.5, *[1] * (panels - 1)]  # the first panel is the one that counts
        axes = figure.subplots(1, panels, sharey=True, squeeze=False, width_ratios=ratios)[0]
        figure.suptitle(title, x=0.01, ha="left", fontsize=13)
        paint(*axes)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, format=path.suffix[1:], dpi=DPI, metadata=NO_CLOCK[path.suffix])


def arms_with_intervals(
    arms: Mapping[str, Mapping[str, Interval]],
    path: Path,
    floors: Mapping[str, float],
) -> None:
    """arms: arm -> metric -> mean, low, high in [0, 1]; a panel for each of PANELS that all arms have.

    floors: metric -> the line below which nothing is served.
    """
    names = in_order(arms)
    shown = [metric for metric in PANELS if all(metric in arms[name] for name in names)]

    def paint(*panels: Any) -> None:
        for axes, metric in zip(panels, shown, strict=True):
            score_panel(axes, {name: arms[name][metric] for name in names}, metric, floors.get(metric))
        panels[0].set_yticks(range(len(names)), names, color=INK)

    draw(path, "Scores of the arms with their confidence intervals (0 to 1, higher is better)", paint, panels=len(shown))


def score_panel(axes: Any, rows: Mapping[str, Interval], metric: str, floor: float | None) -> None:
    """One metric, an arm per line."""
    for place, (name, row) in enumerate(rows.items()):
        hue = colour(name)
        axes.plot([row["low"], row["high"]], [place, place], color=hue, linewidth=9, solid_capstyle="butt", alpha=0.5)
        axes.plot([row["mean"]], [place], "|", color=hue, markersize=12, markeredgewidth=3, clip_on=False)
        write(axes, f"{row['mean']:.2f}", (row["mean"], place), (0, 10), ha="center", weight="bold")
    bottom = len(rows) - 0.4
    axes.set(xlim=(-0.12, 1.12), ylim=(bottom, -0.7), xticks=(0, 0.5, 1), xticklabels=("0", "0.5", "1"))
    axes.set_title(PANELS[metric], fontsize=12)
    axes.grid(axis="x")
    axes.set_axisbelow(True)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    if floor:
        axes.axvline(floor, color=MUTED, linestyle="--", linewidth=1)
        write(axes, f"floor {floor:g}", (floor, bottom), (4, 4), color=MUTED, fontsize=10)


def quality_against_cost(arms: Mapping[str, tuple[float, Interval]], path: Path, unit: str = TOKENS) -> None:
    """arms: arm -> (cost in `unit`, primary score as mean, low, high). Up and to the left is better."""
    names = in_order(arms)
    widest = max((cost for cost, _ in arms.values()), default=1.0) or 1.0

    def paint(axes: Any) -> None:
        for name in names:
            cost, row = arms[name]
            hue = colour(name)
            axes.plot([cost] * 2, [row["low"], row["high"]], color=hue, linewidth=5, solid_capstyle="butt", alpha=0.5)
            axes.plot([cost], [row["mean"]], "o", color=hue, markersize=8, clip_on=False)
            aside = beside(name, arms, widest)
            write(axes, name, (cost, row["mean"]), (9 * aside, 0), ha="left" if aside > 0 else "right", va="center")
        axes.set(xlim=(0, widest * 1.22), ylim=(0, 1.02), ylabel="primary score")
        axes.set_xlabel(f"cost: {unit} (left is cheaper)")
        axes.grid()
        axes.set_axisbelow(True)

    draw(path, "What quality costs: primary score against cost", paint)


def beside(name: str, arms: Mapping[str, tuple[float, Interval]], widest: float) -> int:
    """1 where the name stands at the right of its point, -1 at the left, where another one stands close at the right."""
    cost, row = arms[name]
    close = [other for other, (price, values) in arms.items() if other != name and abs(values["mean"] - row["mean"]) < 0.06
             and 0 <= price - cost < 0.15 * widest]  # fmt: skip
    return -1 if any(arms[other][0] > cost or other > name for other in close) else 1


def training_curve(points: Sequence[Mapping[str, float]], path: Path, title: str, kept: tuple[float, float] | None) -> None:
    """points: {"step": n, "loss": x, "validation_loss": y, ...}; series may have gaps. kept: the checkpoint (step, loss)."""
    names = sorted({name for point in points for name in point if "loss" in name})
    lines = {name: [(point["step"], point[name]) for point in points if name in point] for name in names}

    def paint(axes: Any) -> None:
        label_lines(axes, lines)
        if kept:
            step, value = kept
            axes.plot([step], [value], "o", color=INK, markersize=11, fillstyle="none")
            late = step > max(point["step"] for point in points) / 2  # then the names of the lines stand right of it
            write(axes, f"kept: step {step:g}, {value:.3g}", (step, value), (0, 14), ha="right" if late else "left")
            axes.margins(y=0.14)
        axes.set(xlabel="step", ylabel="loss (lower is better)")

    draw(path, title, paint)


def learning_curve(points: Sequence[Mapping[str, Any]], path: Path) -> None:
    """points: {"pairs": n, "arms": arm -> mean, low, high}; the arms without an adapter, which learn nothing, as level lines."""
    ordered = sorted(points, key=lambda point: float(point["pairs"]))
    counts = [point["pairs"] for point in ordered]

    def paint(axes: Any) -> None:
        for name in in_order(ordered[-1]["arms"]):
            rows, hue = [point["arms"][name] for point in ordered], colour(name)
            flat = not uses_adapter(name)
            axes.plot(counts, [row["mean"] for row in rows], "--" if flat else "o-", color=hue, linewidth=2, clip_on=False)
            for count, row in zip([] if flat else counts, rows, strict=False):
                axes.plot([count] * 2, [row["low"], row["high"]], color=hue, linewidth=5, solid_capstyle="butt", alpha=0.4)
        names_at_the_end(axes, {name: ordered[-1]["arms"][name]["mean"] for name in in_order(ordered[-1]["arms"])}, counts[-1])
        axes.set(xlim=(0, counts[-1] * 1.15), ylim=(0, 1.02), xlabel="training examples", ylabel="primary score")
        axes.grid(axis="y")
        axes.set_axisbelow(True)

    draw(path, "What more examples bring: primary score on validation questions", paint)


def names_at_the_end(axes: Any, heights: Mapping[str, float], x: float) -> None:
    """Pushed apart where they would overlap; the axis goes from 0 to 1."""
    height = float("-inf")
    for name in sorted(heights, key=lambda name: heights[name]):
        height = max(heights[name], height + 0.07)
        write(axes, name, (x, height), (12, 0), color=colour(name), weight="bold", va="center")


def retrieval_curve(points: Sequence[Mapping[str, float]], path: Path, chosen: float | None) -> None:
    """points: {"text_weight": w, "recall@1": y, ...}, the curve of the stage `retrieval`.

    chosen: the weight that is served; None where reciprocal ranks are, which have none.
    """
    ordered = sorted(points, key=lambda point: point["text_weight"])
    names = [name for name in (ordered[0] if ordered else {}) if name != "text_weight"]
    lines = {name: [(point["text_weight"], point[name]) for point in ordered] for name in names}

    def paint(axes: Any) -> None:
        label_lines(axes, lines)
        if chosen is not None:
            axes.axvline(chosen, color=MUTED, linestyle="--", linewidth=1, zorder=0)
            write(axes, f"chosen: {chosen:g}", (chosen, axes.get_ylim()[0]), (5, 5), color=MUTED)
        axes.set(xlabel="weight of full text (0: vectors alone, 1: full text alone)", ylabel="score (higher is better)")

    served = "" if chosen is not None else " (served: reciprocal ranks)"
    draw(path, f"Retrieval of what holds the answer, validation questions{served}", paint)


def label_lines(axes: Any, lines: Mapping[str, Sequence[tuple[float, float]]]) -> None:
    """Lines with their names at the right end instead of a legend, pushed apart where they would overlap."""
    hues = {name: CYCLE[place % len(CYCLE)] for place, name in enumerate(lines)}
    for name, hue in hues.items():
        axes.plot(*zip(*lines[name], strict=True), color=hue, linewidth=2, marker="o", markersize=4)
    values = [y for line in lines.values() for _, y in line]
    gap = 0.07 * ((max(values) - min(values)) or 1.0) if values else 0.0
    height = float("-inf")
    for name in sorted(lines, key=lambda name: lines[name][-1][1]):
        x, y = lines[name][-1]
        height = max(y, height + gap)
        write(axes, name.replace("_", " "), (x, height), (9, 0), color=hues[name], weight="bold", va="center")
    axes.grid(axis="y")
    axes.set_axisbelow(True)


def write(axes: Any, text: str, point: tuple[float, float], offset: tuple[int, int], **look: Any) -> None:
    """Text beside a point, `offset` in typographic points, with a white edge so that no line runs through it."""
    from matplotlib.patheffects import withStroke

    edge = [withStroke(linewidth=3, foreground="white")]
    axes.annotate(text, point, offset, textcoords="offset points", path_effects=edge, **look)


def in_order(arms: Mapping[str, Any]) -> list[str]:
    """The order of params first, whatever the order of the report."""
    return [arm for arm in ARMS if arm in arms] + sorted(set(arms) - set(ARMS))


def colour(arm: str) -> str:
    return COLOURS.get(arm, INK)
