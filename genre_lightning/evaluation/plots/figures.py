"""The plots of an evaluation, each a PNG that can be read at a glance."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from genre_lightning.config.decision import SHIPPED_POLICY
from genre_lightning.evaluation.curves import loss_by_epoch
from genre_lightning.evaluation.figure_fonts import drawable
from genre_lightning.evaluation.plots.errors import (
    confusion_figure,
    f1_by_genre_count_figure,
    f1_by_length_figure,
    shown_genres,
    taken_for_figure,
)
from genre_lightning.evaluation.plots.style import (
    BLUE,
    FAINT,
    GREEN,
    GREY,
    ORANGE,
    RED,
    in_panel,
    new_figure,
    one_axes,
    save_figure,
    small_multiples,
    styled,
)
from genre_lightning.evaluation.plots.titles import FIGURES
from genre_lightning.evaluation.scored import ScoredSplit
from genre_lightning.evaluation.thresholds import micro_f1_curve
from genre_lightning.metrics import (
    BoolArray,
    FloatArray,
    average_precision,
    calibration_bins,
    expected_calibration_error,
    judged_films,
    known_of,
    known_pairs,
)


def write_figures(
    directory: str | os.PathLike[str],
    scored: ScoredSplit,
    *,
    curves_csv: str | os.PathLike[str] | None = None,
) -> list[Path]:
    """Draw all plots that the data allow.

    Args:
        directory: Directory of the PNG files.
        scored: At least one film.
        curves_csv: The run's curves; without them, or without a loss in them, there is no plot of the loss.

    Returns:
        The files written, in the order of `FIGURES`.
    """
    with drawable(scored.predictions.genres) as genres:
        return _write_figures(Path(directory), scored, genres, curves_csv)


def _write_figures(
    directory: Path, scored: ScoredSplit, genres: tuple[str, ...], curves_csv: str | os.PathLike[str] | None
) -> list[Path]:
    labels, probabilities, decided = scored.labels, scored.probabilities, scored.judged[SHIPPED_POLICY]
    known = scored.known
    films = judged_films(labels, known)
    texts = [text for text, is_judged in zip(scored.predictions.texts, films.tolist(), strict=True) if is_judged]
    drawn: dict[str, Figure | None] = {
        "loss": loss_figure(curves_csv) if curves_csv is not None and Path(curves_csv).is_file() else None,
        "threshold_curve": threshold_figure(labels, probabilities, scored.decision.threshold_global, known),
        "precision_recall": precision_recall_figure(labels, probabilities, decided, genres, known),
        "confusion": confusion_figure(labels, decided, genres, known),
        "reliability": reliability_figure(*known_pairs(known, labels, scored.uncalibrated, probabilities)),
        "taken_for": taken_for_figure(labels, decided, genres),
        "f1_by_length": f1_by_length_figure(labels[films], decided[films], texts),
        "f1_by_genre_count": f1_by_genre_count_figure(labels[films], decided[films]),
    }
    written = []
    for name in FIGURES:
        figure, path = drawn[name], directory / f"{name}.png"
        if figure is None:
            # a plot of an earlier evaluation would be taken for this one's
            path.unlink(missing_ok=True)
            continue
        save_figure(figure, path)
        written.append(path)
    return written


@styled
def loss_figure(curves_csv: str | os.PathLike[str]) -> Figure | None:
    """Draw training and validation loss by epoch; None if no loss was logged."""
    rows = loss_by_epoch(curves_csv)
    if not rows:
        return None
    figure, axes = one_axes("Loss by epoch")
    for name, colour, marker in (("train", BLUE, "o"), ("validation", ORANGE, "s")):
        points = [(row["epoch"], row[name]) for row in rows if row[name] is not None]
        if points:
            axes.plot(*zip(*points, strict=True), color=colour, marker=marker, markersize=4, label=name)
    validated = [row for row in rows if row["validation"] is not None]
    if validated:
        best = min(validated, key=lambda row: row["validation"])
        note = f"lowest: {best['validation']:.4f}, epoch {best['epoch']}"
        axes.axvline(best["epoch"], color=GREY, linestyle=":", linewidth=1)
        axes.annotate(note, (0.98, 0.98), xycoords="axes fraction", ha="right", va="top", color=GREY)
    axes.set_xlabel("epoch")
    axes.set_ylabel("loss as trained (nats)")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.legend(loc="upper left", bbox_to_anchor=(0.0, 1.1), ncols=2)
    return figure


@styled
def threshold_figure(
    labels: BoolArray, probabilities: FloatArray, threshold: float, known: BoolArray | None = None
) -> Figure:
    """Draw micro precision, recall and F1 over one threshold for all genres, and mark the fitted one."""
    likely, truth = known_pairs(known, probabilities, labels)
    curve = micro_f1_curve(likely, truth)
    figure, axes = one_axes(f"One threshold for all genres ({len(labels):,} films)")
    styles = (("precision", BLUE, "--"), ("recall", GREEN, "-."), ("f1", RED, "-"))
    for name, colour, style in styles:
        label = "F1" if name == "f1" else name
        axes.plot(curve["threshold"], curve[name], color=colour, linestyle=style, label=f"{label} (micro)")
    reached = float(np.interp(threshold, curve["threshold"], curve["f1"]))
    axes.axvline(threshold, color=GREY, linestyle=":", linewidth=1)
    axes.plot([threshold], [reached], "o", color=RED)
    side, offset = ("left", 8) if threshold < 0.6 else ("right", -8)
    axes.annotate(
        f"fitted on validation: {threshold:.2f}\nF1 {reached:.3f}",
        (threshold, 0.02),
        xytext=(offset, 0),
        textcoords="offset points",
        ha=side,
        va="bottom",
    )
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="threshold (probability)", ylabel="score")
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 1.12), ncols=3)
    return figure


@styled
def precision_recall_figure(
    labels: BoolArray,
    probabilities: FloatArray,
    decided: BoolArray,
    genres: tuple[str, ...],
    known: BoolArray | None = None,
) -> Figure:
    """Draw the precision-recall curve of each genre, its decided point, and its fraction of films as chance level."""
    columns, note = shown_genres(labels, decided)
    figure, panels = small_multiples(f"Precision and recall of each genre ({len(labels):,} films{note})", len(columns))
    areas, support = average_precision(labels, probabilities, known), labels.sum(axis=0)
    for j, axes in zip(columns, panels, strict=True):
        axes.set(xlim=(0, 1.02), ylim=(0, 1.02), xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
        axes.grid(True)
        if support[j] == 0:
            axes.set_title(f"{in_panel(genres[j])}\nno films: undefined", loc="left", fontsize=8)
            continue
        scores, truth = known_of(j, known, probabilities, labels)
        order = np.argsort(-scores, kind="stable")
        ranked = scores[order]
        ends = np.append(ranked[1:] != ranked[:-1], True)
        hits = np.cumsum(truth[order])[ends]
        recall, precision = hits / support[j], hits / (np.flatnonzero(ends) + 1)
        axes.axhline(support[j] / len(truth), color=GREY, linestyle=":", linewidth=1)
        axes.step(np.append(0, recall), np.append(precision[0], precision), where="post", color=BLUE, linewidth=1.2)
        taken = int(decided[:, j].sum())
        if taken:
            both = (labels[:, j] & decided[:, j]).sum()
            axes.plot([both / support[j]], [both / taken], "o", color=RED, markersize=4)
        axes.set_title(f"{in_panel(genres[j])}\nAP {areas[j]:.2f}, {support[j]:,} films", loc="left", fontsize=8)
    figure.supxlabel("recall       (dot: as decided; dotted line: precision of deciding every film)", fontsize=9)
    figure.supylabel("precision", fontsize=9)
    return figure


@styled
def reliability_figure(labels: BoolArray, before: FloatArray, after: FloatArray) -> Figure:
    """Draw the fraction of positives over the predicted probability before and after calibration, with the counts."""
    figure = new_figure(f"Reliability before and after calibration ({labels.size:,} film-genre pairs)", 7.6, 4.6)
    grid = figure.subplots(2, 2, sharex=True, height_ratios=[3, 1])
    panels = (("before", before, ORANGE), ("after", after, BLUE))
    for column, (name, probabilities, colour) in enumerate(panels):
        table = calibration_bins(labels, probabilities)
        upper, lower = grid[0, column], grid[1, column]
        upper.plot([0, 1], [0, 1], color=GREY, linestyle=":", linewidth=1)
        upper.plot(table["predicted"], table["observed"], "o-", color=colour, markersize=4)
        error = expected_calibration_error(labels, probabilities)
        upper.set_title(f"{name}: calibration error {error:.3f}", loc="left")
        upper.set(xlim=(0, 1), ylim=(0, 1))
        edges = np.linspace(0, 1, len(table["count"]) + 1)
        lower.bar(edges[:-1], table["count"], width=np.diff(edges), align="edge", color=colour, edgecolor="white")
        lower.set_yscale("log")
        lower.set_ylim(bottom=1)
        lower.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        lower.yaxis.set_minor_formatter(NullFormatter())
        lower.set_xlabel("predicted probability")
        for axes in (upper, lower):
            axes.grid(True, color=FAINT)
            axes.set_axisbelow(True)
            axes.spines[["top", "right"]].set_visible(False)
    grid[0, 0].set_ylabel("fraction that have the genre")
    grid[1, 0].set_ylabel("pairs (log)")
    grid[1, 0].sharey(grid[1, 1])
    return figure
