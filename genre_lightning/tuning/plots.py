"""Plots of a study: history, importance of the options, and parallel coordinates."""

from __future__ import annotations

import base64
import math
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

from genre_lightning.evaluation.plots.style import BLUE, GREY, INK, ORANGE, one_axes, save_figure, styled
from genre_lightning.tuning.results import StudyResults, TrialResult

_MOST_NAMES = 8
"""Options of the parallel coordinates: more do not fit the page's width."""


@styled
def history_figure(results: StudyResults) -> Figure:
    """Draw the metric of each trial, and the best so far."""
    name = results.monitor.removeprefix("val/")
    figure, axes = one_axes("Trials in order", height=3.2)
    for state, colour, mark in (("complete", BLUE, "o"), ("pruned", GREY, "x")):
        shown = [trial for trial in results.trials if trial.state == state and trial.value is not None]
        axes.scatter([t.number for t in shown], [t.value or 0.0 for t in shown], c=colour, marker=mark, label=state)
    complete = [trial for trial in results.trials if trial.state == "complete" and trial.value is not None]
    if complete:
        reduce = np.maximum if results.maximises else np.minimum
        best = reduce.accumulate([trial.value or 0.0 for trial in complete])
        axes.step([t.number for t in complete], best, where="post", color=ORANGE, label="best so far")
    axes.set_xlabel("trial")
    axes.set_ylabel(name)
    axes.legend()
    return figure


@styled
def importance_figure(results: StudyResults) -> Figure:
    """Draw how much of the metric's variance each option explains."""
    names, values = list(results.importance), list(results.importance.values())
    figure, axes = one_axes("Importance (fANOVA of the complete trials)", height=1.2 + 0.3 * len(names))
    axes.barh(range(len(names)), values, color=BLUE)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xlabel("fraction of the variance explained")
    return figure


@styled
def parallel_figure(results: StudyResults) -> Figure:
    """Draw each complete trial as a line over its options, the better ones darker."""
    trials = results.ranked[::-1]
    names = list(dict.fromkeys(name for trial in trials for name in trial.options))[:_MOST_NAMES]
    figure, axes = one_axes("Options of the complete trials, the better the darker", width=9.0, height=4.0)
    axes.grid(False)
    columns = [_column([trial.options.get(name) for trial in trials]) for name in names]
    columns.append(_column([trial.mean for trial in trials]))
    colours = mpl.colormaps["Blues"](np.linspace(0.25, 1.0, max(len(trials), 1)))
    for line, colour in zip(np.array([places for places, _ in columns]).T, colours, strict=True):
        axes.plot(range(len(columns)), line, color=colour, marker="o", markersize=3)
    for place, (_, ticks) in enumerate(columns):
        axes.axvline(place, color=GREY, linewidth=0.8, zorder=0)
        for height, label in ticks:
            axes.annotate(label, (place, height), (3, 0), textcoords="offset points", fontsize=7, color=INK)
    axes.set_xticks(range(len(columns)), [*names, results.monitor.removeprefix("val/")], rotation=12)
    axes.set_yticks([])
    return figure


def _column(values: Sequence[object]) -> tuple[list[float], list[tuple[float, str]]]:
    """Place values between 0 and 1, on a logarithmic scale if they span a factor of 20; NaN for those not searched."""
    given = [value for value in values if value is not None]
    numbers = [float(value) for value in given if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) < len(given) or not numbers:
        kinds = sorted(set(map(str, given)))
        heights = {kind: index / max(len(kinds) - 1, 1) for index, kind in enumerate(kinds)}
        places = [math.nan if value is None else heights[str(value)] for value in values]
        return places, [(height, kind[:24]) for kind, height in heights.items()]
    low, high = min(numbers), max(numbers)
    log = low > 0 and high / low >= 20

    def place(value: float) -> float:
        if low == high:
            return 0.5
        if log:
            return math.log(value / low) / math.log(high / low)
        return (value - low) / (high - low)

    places = [place(float(value)) if isinstance(value, int | float) else math.nan for value in values]
    return places, [(place(edge), f"{edge:.3g}") for edge in dict.fromkeys((low, high))]


def as_uris(figures: Iterable[tuple[str, Figure]]) -> list[dict[str, str]]:
    """Return plots as PNG in data URIs, each with its title, as the pages show them."""
    shown = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "figure.png"
        for title, figure in figures:
            save_figure(figure, path)
            encoded = base64.b64encode(path.read_bytes()).decode("ascii")
            shown.append({"title": title, "uri": f"data:image/png;base64,{encoded}"})
    return shown


def study_figures(results: StudyResults) -> list[tuple[str, Figure]]:
    """Draw what there is to draw of a study."""
    figures = [("history of the trials", history_figure(results))]
    if results.importance:
        figures.append(("importance of the options", importance_figure(results)))
    if _complete(results):
        figures.append(("parallel coordinates", parallel_figure(results)))
    return figures


def _complete(results: StudyResults) -> list[TrialResult]:
    return [trial for trial in results.trials if trial.state == "complete" and trial.value is not None]
