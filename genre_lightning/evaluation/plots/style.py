"""Look and file form shared by all plots: matplotlib's object API on the Agg canvas, never pyplot's global state."""

from __future__ import annotations

import math
import os
import textwrap

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from genre_lightning.files import replacing

# Okabe and Ito's palette: distinguishable with any colour vision
BLUE, ORANGE, GREEN, RED, PURPLE, GREY = "#0072B2", "#E69F00", "#009E73", "#D55E00", "#CC79A7", "#6b7280"
INK, FAINT = "#1f2937", "#e5e7eb"
DOTS_PER_INCH = 150
_PANEL_CHARACTERS = 16
"""Of a line above a panel of `small_multiples`."""
# matplotlib reads a matplotlibrc of the working directory, by which a stranger's folder could have TeX run
# the fonts are those of `drawable`, which adds to the default ones what the names of genres need
_LEFT_ALONE = ("backend", "webagg.", "font.family")
_DEFAULTS = {name: value for name, value in mpl.rcParamsDefault.items() if not name.startswith(_LEFT_ALONE)}
_SETTINGS = {
    **_DEFAULTS,
    "font.size": 9,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    # genre names may hold a dollar sign, which is not a formula here
    "text.parse_math": False,
}
styled = mpl.rc_context(_SETTINGS)
"""Decorator of functions that draw or save: the settings hold inside, and leave the caller's own alone."""


@styled
def new_figure(title: str, width: float = 7.0, height: float = 4.2) -> Figure:
    """Make a figure (inches) on its own canvas, with its title at the left."""
    figure = Figure(figsize=(width, height), layout="constrained", dpi=DOTS_PER_INCH)
    FigureCanvasAgg(figure)
    figure.suptitle(title, x=0.01, ha="left", fontsize=11, fontweight="bold")
    return figure


@styled
def one_axes(title: str, width: float = 7.0, height: float = 4.2) -> tuple[Figure, Axes]:
    """Make a figure with one pair of axes and a grid."""
    figure = new_figure(title, width, height)
    axes = figure.add_subplot()
    axes.grid(True)
    return figure, axes


def in_panel(name: str) -> str:
    """Return a genre's name in lines that fit its panel."""
    return textwrap.fill(name, _PANEL_CHARACTERS)


@styled
def small_multiples(
    title: str, count: int, columns: int = 5, cell: tuple[float, float] = (1.9, 1.9)
) -> tuple[Figure, list[Axes]]:
    """Make `count` equal panels in rows of at most `columns`; only outer panels carry tick labels."""
    columns = min(columns, max(count, 1))
    rows = math.ceil(count / columns)
    figure = new_figure(title, max(cell[0] * columns, 5.0), cell[1] * rows + 0.7)
    grid = np.atleast_1d(figure.subplots(rows, columns, sharex=True, sharey=True)).ravel().tolist()
    for axes in grid[count:]:
        axes.set_axis_off()
    for axes in grid[max(0, count - columns) : count]:
        axes.tick_params(labelbottom=True)
    return figure, grid[:count]


@styled
def save_figure(figure: Figure, path: str | os.PathLike[str]) -> None:
    """Write a PNG, whole or not at all."""
    with replacing(path) as temporary:
        # without a date and version in it, the same plot is the same file
        figure.savefig(temporary, format="png", dpi=DOTS_PER_INCH, metadata={"Software": None})
