"""What a comparison looks like: a Markdown table and one chart of the main figures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from tasks.comparison.statistics import MAIN_METRICS, Row

_COLOURS = {"better": "#3a7d44", "worse": "#b3003b", "no difference": "#4a4a4a", None: "#1f4e79"}
_DOTS_PER_INCH = 110
_ROW_HEIGHT, _PANEL_WIDTH = 0.26, 4.2


def panels(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """The rows of each main figure by label and metric, the best model first."""
    shown = [row for row in rows if row.metric in MAIN_METRICS[row.task] and row.mean is not None]
    keys = dict.fromkeys((row.label, row.metric) for row in shown)
    return {key: sorted((row for row in shown if (row.label, row.metric) == key), key=lambda row: -(row.mean or 0)) for key in keys}


def markdown(rows: Sequence[Row], title: str, notes: Sequence[str], left_out: Mapping[str, str], reference: str) -> str:
    """The main figures, one table for each label and metric, and below them how they came about."""
    ours = (f"{reference} minus model, 95 % over users", "p over seeds", f"{reference} is")
    heads = ["model", "mean", "95 % over seeds", "95 % over users", *ours, "seeds", "seconds"]
    lines = [f"# {title}", ""]
    for (label, metric), of_figure in panels(rows).items():
        lines += [f"## {label}: {metric} ({of_figure[0].n:,} users)", "", _line(heads), _line(["---"] * len(heads))]
        lines += [_line(_cells(row)) for row in of_figure]
        lines.append("")
    lines += [f"- {note}" for note in notes]
    lines += [f"- Left out: {model}, because {why}" for model, why in left_out.items()]
    return "\n".join(lines) + "\n"


def chart(rows: Sequence[Row], title: str, reference: str, path: Path) -> None:
    """A panel for each main figure: a dot per model, thick the interval over seeds, thin the one over users."""
    shown = panels(rows)
    height = 1.6 + _ROW_HEIGHT * max((len(of_figure) for of_figure in shown.values()), default=1)
    figure = Figure(figsize=(_PANEL_WIDTH * max(len(shown), 1), height), dpi=_DOTS_PER_INCH, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, max(len(shown), 1), squeeze=False)[0]
    for panel, ((label, metric), of_figure) in zip(axes, shown.items(), strict=False):
        _draw(panel, f"{label}: {metric}", of_figure, reference)
    figure.suptitle(f"{title}\ngreen: {reference} is better, red: worse; thick: 95 % over seeds, thin: over users", fontsize=10)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _draw(axes: Axes, title: str, rows: Sequence[Row], reference: str) -> None:
    for place, row in enumerate(reversed(rows)):
        colour = _COLOURS[row.verdict]
        for low, high, width in ((row.users_low, row.users_high, 1.2), (row.low, row.high, 4.0)):
            if low is not None and high is not None:
                axes.plot([low, high], [place, place], color=colour, linewidth=width, solid_capstyle="butt", alpha=0.7)
        axes.plot(row.mean, place, "D" if row.model == reference else "o", color=colour, markersize=6)
        if row.model == reference:
            axes.axvline(row.mean or 0, color=colour, linestyle=":", linewidth=1)
    axes.set_yticks(range(len(rows)), [row.model for row in reversed(rows)], fontsize=8)
    axes.set_title(f"{title} (n = {rows[0].n:,})", fontsize=9)
    axes.grid(visible=True, axis="x", color="#e4e4e4", linewidth=0.7)
    axes.spines[["top", "right"]].set_visible(False)


def _cells(row: Row) -> list[str]:
    return [
        row.model,
        _number(row.mean),
        _interval(row.low, row.high),
        _interval(row.users_low, row.users_high),
        "" if row.difference is None else f"{row.difference:+.4f} ({_interval(row.difference_low, row.difference_high)})",
        _number(row.p),
        row.verdict or "",
        str(row.seeds),
        "" if row.seconds is None else f"{row.seconds:,.0f}",
    ]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.4f}"


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"{low:.4f} to {high:.4f}"
