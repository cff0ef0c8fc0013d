"""Plots of where a decision goes wrong: by genre, by genre taken for another, by kind of film."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from genre_lightning.evaluation.plots.style import (
    BLUE,
    GREY,
    INK,
    in_panel,
    new_figure,
    one_axes,
    small_multiples,
    styled,
)
from genre_lightning.metrics import BoolArray, FloatArray, confusion_counts, film_f1, ratio

FEWEST_FILMS = 5
"""Films of a group below which a standard error says nothing."""
MOST_GENRES = 24
"""Panels of a plot that has one for each genre: more are slow to draw and too many to read; tables hold all."""
LENGTH_EDGES = (0, 20, 35, 50, 70, 100, 150)
"""Words; the last group has no upper end. Half of the movies file's overviews lie between 30 and 75."""


def shown_genres(labels: BoolArray, decided: BoolArray, most: int = MOST_GENRES) -> tuple[list[int], str]:
    """Choose the genres that a plot with a part for each of them shows: all, or the most frequent and the worst.

    Args:
        labels: bool (films, genres).
        decided: bool (films, genres).
        most: How many at most; half are the most frequent, the rest the worst by F1 of the others that have films.

    Returns:
        The genres' columns in their order, and what to add to the plot's title.
    """
    support = labels.sum(axis=0)
    if len(support) <= most:
        return list(range(len(support))), ""
    by_support = np.argsort(-support, kind="stable")
    frequent, others = by_support[: most // 2], by_support[most // 2 :]
    others = others[support[others] > 0]
    f1 = ratio(2.0 * (labels & decided).sum(axis=0), support + decided.sum(axis=0))
    worst = others[np.argsort(f1[others], kind="stable")][: most - len(frequent)]
    note = f", {len(frequent)} most frequent and {len(worst)} worst of {len(support):,}"
    return sorted([*frequent.tolist(), *worst.tolist()]), note


@styled
def confusion_figure(
    labels: BoolArray, decided: BoolArray, genres: tuple[str, ...], known: BoolArray | None = None
) -> Figure:
    """Draw the 2 x 2 counts of each genre, shaded by the fraction of its row, so that rare genres can be read."""
    columns, note = shown_genres(labels, decided)
    title = f"Confusion of each genre ({len(labels):,} films{note})"
    figure, panels = small_multiples(title, len(columns), cell=(1.75, 1.75))
    found = confusion_counts(labels[:, columns], decided[:, columns], None if known is None else known[:, columns])
    for column, axes, (tn, fp, fn, tp) in zip(columns, panels, found, strict=True):
        counts = np.array([[tp, fn], [fp, tn]])
        shares = np.nan_to_num(ratio(counts, counts.sum(axis=1, keepdims=True)))
        axes.imshow(shares, cmap="Blues", vmin=0, vmax=1.15)
        for row, side in itertools.product(range(2), range(2)):
            colour = "white" if shares[row, side] > 0.6 else INK
            text = f"{counts[row, side]:,}\n{shares[row, side]:.0%}"
            axes.text(side, row, text, ha="center", va="center", color=colour, fontsize=8)
        axes.set(xticks=[0, 1], yticks=[0, 1], xticklabels=["yes", "no"], yticklabels=["yes", "no"])
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
        axes.set_title(in_panel(genres[column]), loc="left")
    figure.supxlabel("decided       (fraction of the films in the row)", fontsize=9)
    figure.supylabel("true", fontsize=9)
    return figure


def taken_for(labels: BoolArray, decided: BoolArray) -> FloatArray:
    """Give the fraction of films missing a genre (row) to which another one (column) was given wrongly.

    Returns:
        float64 (genres, genres); NaN in the rows of genres that were never missed.
    """
    missed, false = labels & ~decided, decided & ~labels
    return ratio(missed.T.astype(np.float64) @ false.astype(np.float64), missed.sum(axis=0)[:, None])


@styled
def taken_for_figure(labels: BoolArray, decided: BoolArray, genres: tuple[str, ...]) -> Figure:
    """Draw `taken_for` as a heat map."""
    columns, note = shown_genres(labels, decided, most=2 * MOST_GENRES)
    genres = tuple(genres[column] for column in columns)
    shares = taken_for(labels, decided)[np.ix_(columns, columns)]
    missed = (labels & ~decided).sum(axis=0)[columns]
    # inches; names are written on two sides
    size = 2.2 + 0.33 * len(genres) + 0.08 * max(0, max(map(len, genres)) - 16)
    figure = new_figure(f"Which genre is taken for which{note}", size + 0.6, size)
    axes = figure.add_subplot()
    top = max(float(np.nanmax(shares)) if np.isfinite(shares).any() else 0.0, 0.01)
    image = axes.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=top)
    for row, column in zip(*np.nonzero(np.nan_to_num(shares) >= 0.005), strict=True):
        colour = "white" if shares[row, column] > 0.55 * top else INK
        axes.text(column, row, f"{100 * shares[row, column]:.0f}", ha="center", va="center", color=colour, fontsize=7)
    axes.set_xticks(range(len(genres)), genres, rotation=60, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(genres)), [f"{genre} ({count:,})" for genre, count in zip(genres, missed, strict=True)])
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_xlabel("genre decided wrongly")
    axes.set_ylabel("genre missed (films)")
    bar = figure.colorbar(image, ax=axes, shrink=0.6, format=lambda value, _: f"{value:.0%}")
    bar.set_label("fraction of the films\nmissing the row's genre")
    bar.outline.set_visible(False)
    return figure


@styled
def f1_by_length_figure(labels: BoolArray, decided: BoolArray, texts: Sequence[str]) -> Figure:
    """Draw each film's F1, averaged over films with texts of like length."""
    words = np.array([len(text.split()) for text in texts])
    group = np.searchsorted(LENGTH_EDGES, words, side="right") - 1
    names = [f"{low}–{high - 1}" for low, high in itertools.pairwise(LENGTH_EDGES)]
    names = [f"< {LENGTH_EDGES[1]}", *names[1:], f"{LENGTH_EDGES[-1]} +"]
    return _f1_by_group("F1 by length of overview", "words in the text", labels, decided, group, names)


@styled
def f1_by_genre_count_figure(labels: BoolArray, decided: BoolArray) -> Figure:
    """Draw each film's F1, averaged over films with as many true genres."""
    most = 6
    group = np.minimum(labels.sum(axis=1), most)
    names = [*(str(count) for count in range(most)), f"{most} +"]
    return _f1_by_group("F1 by number of genres", "true genres of the film", labels, decided, group, names)


@styled
def _f1_by_group(
    title: str, axis: str, labels: BoolArray, decided: BoolArray, group: np.ndarray, names: list[str]
) -> Figure:
    """Draw means over the groups that have films, with 95% normal intervals (1.96 standard errors)."""
    scores = film_f1(labels, decided)
    used = [index for index in range(len(names)) if (group == index).any()]
    figure, axes = one_axes(f"{title} ({len(labels):,} films)")
    axes.grid(False, axis="x")
    for place, index in enumerate(used):
        inside = scores[group == index]
        mean, count = float(inside.mean()), len(inside)
        axes.bar(place, mean, width=0.65, color=BLUE)
        top = mean
        if count >= FEWEST_FILMS:
            error = 1.96 * float(inside.std(ddof=1)) / np.sqrt(count)
            low, top = max(mean - error, 0.0), min(mean + error, 1.0)
            axes.errorbar(place, mean, yerr=[[mean - low], [top - mean]], color=INK, capsize=3, linewidth=1)
        axes.text(place, top + 0.015, f"{mean:.2f}", ha="center", va="bottom")
        axes.text(place, 0.02, f"{count:,}", ha="center", va="bottom", color="white", fontsize=8)
    axes.axhline(float(scores.mean()), color=GREY, linestyle=":", linewidth=1)
    axes.set_xticks(range(len(used)), [names[index] for index in used])
    # room above a full bar for its number
    axes.set(ylim=(0, 1.08), yticks=np.linspace(0, 1, 6), xlabel=axis, ylabel="mean F1 of a film")
    note = f"dotted: all films, {scores.mean():.3f}; bars: 95% intervals of the mean; white: films"
    axes.set_title(note, loc="left", color=GREY, fontsize=8)
    return figure
