"""Pictures that a person would rather look at than read numbers. Each function draws one PNG; none touches pyplot's global state."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

_COLOURS = ("#1f4e79", "#c44e1d", "#3a7d44", "#7b3f8c", "#a67c00", "#4a4a4a", "#0f8b8d", "#b3003b")
_MAX_CURVES = len(_COLOURS)
_MAX_CATEGORIES = 24
_MAX_BINS, _MIN_USERS_PER_BIN = 10, 10
_LABEL_LENGTH = 26
_ERRORS = {"ece", "brier"}

Labels = NDArray[np.integer]
Scores = NDArray[np.floating]


def learning_curves(history: Sequence[Mapping[str, Any]], best_epoch: int, path: Path) -> None:
    """Loss and validation figures over epochs.

    Args:
        history: one report per epoch with ``epoch, losses, validation``.
        best_epoch: of the weights that were kept.
        path: of the PNG.
    """
    figure, (loss_axes, validation_axes) = _figure(1, 2, 11, 4.2)
    epochs = [report["epoch"] for report in history]
    for axes, part, label in (
        (loss_axes, "losses", "mean training loss per epoch (nats)"),
        (validation_axes, "validation", "validation figure (0 to 1)"),
    ):
        names = list(dict.fromkeys(name for report in history for name in report[part]))
        for name, colour in zip(names, _colours(len(names)), strict=True):
            values = [report[part].get(name, np.nan) for report in history]
            axes.plot(epochs, values, label=name, color=colour, marker="o", markersize=3)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.axvline(best_epoch, color="#888888", linestyle="--", linewidth=1, label=f"best epoch {best_epoch}")
        _finish(axes, "epoch", label)
    _save(figure, "Learning curves", path)


def discrimination(curves: Mapping[str, tuple[Labels, Scores]], title: str, path: Path) -> None:
    """ROC and precision-recall curves.

    Args:
        curves: 0/1 labels and scores by name; curves of one class only are left out, and all beyond the eighth.
        title: of the picture.
        path: of the PNG.
    """
    figure, (roc_axes, recall_axes) = _figure(1, 2, 11, 4.8)
    usable = {_plain(name): curve for name, curve in curves.items() if 0 < curve[0].sum() < len(curve[0])}
    for (name, (labels, scores)), colour in zip(list(usable.items())[:_MAX_CURVES], _COLOURS, strict=False):
        hits, false_alarms = _cumulative(labels, scores)
        roc_axes.plot(false_alarms / false_alarms[-1], hits / hits[-1], color=colour, label=name)
        recall_axes.plot(hits[1:] / hits[-1], hits[1:] / (hits[1:] + false_alarms[1:]), color=colour, label=name)
        recall_axes.axhline(labels.mean(), color=colour, linestyle=":", linewidth=1)
    roc_axes.plot([0, 1], [0, 1], color="#888888", linestyle="--", linewidth=1, label="chance")
    _finish(roc_axes, "false positive rate (share of negatives)", "true positive rate (share of positives)", unit_square=True)
    _finish(recall_axes, "recall (share of positives found)", "precision (share of found that are positive)", unit_square=True)
    _save(figure, f"{title}: ROC, and precision-recall (dotted: base rate)", path)


def calibration(labels: Labels, scores: Scores, title: str, path: Path) -> None:
    """Observed share against predicted probability in up to ten bins of equally many users, and where the predictions lie."""
    figure, (axes, histogram) = _figure(2, 1, 6.2, 6.6, height_ratios=[3, 1])
    num_bins = max(1, min(_MAX_BINS, len(labels) // _MIN_USERS_PER_BIN))
    bins = np.array_split(np.argsort(scores, kind="stable"), num_bins)
    predicted, observed = ([float(np.mean(values[part])) for part in bins] for values in (scores, labels))
    error = [1.96 * np.sqrt(max(share * (1 - share), 1e-9) / len(part)) for share, part in zip(observed, bins, strict=True)]
    axes.plot([0, 1], [0, 1], color="#888888", linestyle="--", linewidth=1, label="perfect")
    axes.errorbar(predicted, observed, yerr=error, fmt="o-", color=_COLOURS[0], capsize=3, label="model, 95 % interval")
    _finish(axes, "predicted probability (mean of the bin)", "observed share", unit_square=True)
    histogram.hist(scores, bins=40, range=(0, 1), color=_COLOURS[0])
    _finish(histogram, "predicted probability", "users", legend=False)
    _save(figure, f"{title}: calibration (n = {len(labels):,})", path)


def against_baseline(
    metrics: Mapping[str, float | None],
    intervals: Mapping[str, Sequence[float] | None],
    baseline: Mapping[str, float | None],
    names: tuple[str, str],
    title: str,
    path: Path,
) -> None:
    """Bars of each figure with its 95 % interval beside the baseline's; an arrow marks errors.

    Args:
        metrics: figures by name; undefined ones are left out.
        intervals: low and high by name.
        baseline: the rival's figures.
        names: what the two kinds of bars are called.
        title: of the picture.
        path: of the PNG.
    """
    figure, ((axes,),) = _figure(1, 1, 7.2, 4.4, squeeze=False)
    shown = {name: value for name, value in metrics.items() if value is not None}
    places = np.arange(len(shown))
    spans = [intervals.get(name) or (value, value) for name, value in shown.items()]
    error = np.array([[max(value - low, 0), max(high - value, 0)] for value, (low, high) in zip(shown.values(), spans, strict=True)])
    axes.bar(places - 0.2, list(shown.values()), 0.38, color=_COLOURS[0], label=names[0], yerr=error.reshape(-1, 2).T, capsize=4)
    axes.bar(places + 0.2, [baseline.get(name) or 0.0 for name in shown], 0.38, color="#b8b8b8", label=names[1])
    axes.set_xticks(places, [f"{name} \u2193" if name in _ERRORS else name for name in shown])
    _finish(axes, "figure of merit" + (" (\u2193: error, lower is better)" if _ERRORS & shown.keys() else ""), "value, bar: 95 % interval")
    _save(figure, title, path)


def alignment_atlas(matrix_GK: NDArray[np.floating], row_names: Sequence[str], column_names: Sequence[str], path: Path) -> None:
    """The mean alignment matrix: how strongly each app category goes with each item category, over all users with both views.

    The strongest 24 rows and columns are drawn.
    """
    weight = np.abs(matrix_GK)
    rows = np.sort(np.argsort(-weight.sum(1), kind="stable")[:_MAX_CATEGORIES])
    columns = np.sort(np.argsort(-weight.sum(0), kind="stable")[:_MAX_CATEGORIES])
    shown = matrix_GK[np.ix_(rows, columns)]
    figure, ((axes,),) = _figure(1, 1, 3.6 + 0.36 * len(columns), 3.0 + 0.28 * len(rows), squeeze=False)
    limit = float(np.abs(shown).max(initial=0)) or 1.0
    image = axes.imshow(shown, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
    axes.set_xticks(range(len(columns)), [_short(column_names[column]) for column in columns], rotation=60, ha="right", fontsize=8)
    axes.set_yticks(range(len(rows)), [_short(row_names[row]) for row in rows], fontsize=8)
    axes.set_xlabel("item category")
    axes.set_ylabel("app category")
    figure.colorbar(image, ax=axes, label="mean M_u (-1 to 1)")
    _save(figure, "Alignment atlas: mean over users with both views", path)


def embedding_map(embedding_BD: NDArray[np.floating], groups: Mapping[str, NDArray[np.bool_]], path: Path) -> None:
    """Users on the first two principal components of their embeddings.

    Args:
        embedding_BD: one row per user.
        groups: members by name, each drawn in its colour.
        path: of the PNG.
    """
    centred = embedding_BD - embedding_BD.mean(0)
    # One user alone has one component: a second row keeps the picture's second axis, at 0.
    centred = np.pad(centred, ((0, max(0, 2 - len(centred))), (0, 0)))
    _, singular, components = np.linalg.svd(centred, full_matrices=False)
    share = singular**2 / max(float((singular**2).sum()), 1e-12)
    points = centred[: len(embedding_BD)] @ components[:2].T
    figure, ((axes,),) = _figure(1, 1, 6.8, 5.8, squeeze=False)
    for (name, members), colour in zip(groups.items(), _colours(len(groups)), strict=True):
        axes.scatter(
            points[members, 0], points[members, 1], s=14, alpha=0.7, color=colour, linewidths=0, label=f"{name} ({int(members.sum()):,})"
        )
    first, second = (f"principal component {number + 1} ({share[number]:.0%} of the variance)" for number in range(2))
    _finish(axes, first, second)
    _save(figure, f"User embeddings (n = {len(points):,})", path)


def _figure(
    num_rows: int, num_columns: int, width: float, height: float, *, squeeze: bool = True, height_ratios: Sequence[float] | None = None
) -> Any:
    figure = Figure(figsize=(width, height), dpi=110, layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(num_rows, num_columns, squeeze=squeeze, height_ratios=height_ratios)


def _finish(axes: Axes, x_label: str, y_label: str, *, unit_square: bool = False, legend: bool = True) -> None:
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(visible=True, color="#e4e4e4", linewidth=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    if unit_square:
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    if legend:
        axes.legend(frameon=False, fontsize=8)


def _save(figure: Figure, title: str, path: Path) -> None:
    figure.suptitle(title, fontsize=11)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path)


def _cumulative(labels: Labels, scores: Scores) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """True and false positives at every threshold, equal scores at once, from none to all."""
    order = np.argsort(-scores, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(scores[order])), len(order) - 1)
    hits = np.cumsum(labels[order])[ends].astype(np.float64)
    return np.append(0.0, hits), np.append(0.0, ends + 1 - hits)


def _colours(count: int) -> list[str]:
    return [_COLOURS[position % len(_COLOURS)] for position in range(count)]


def _short(name: str) -> str:
    return _plain(name if len(name) <= _LABEL_LENGTH else f"{name[: _LABEL_LENGTH - 1]}…")


def _plain(name: str) -> str:
    """A name of the data as it is: what stands between two dollars is no formula."""
    return name.replace("$", r"\$")
