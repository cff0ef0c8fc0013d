"""Plots of one pixel in place of those of an evaluation, whose drawing takes most of a small run's time."""

import base64
from contextlib import contextmanager
from pathlib import Path

import pytest

from genre_lightning.evaluation.plots import figures
from genre_lightning.evaluation.plots.titles import FIGURES

_DRAWN = figures.write_figures
_PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)


def write_pixels(directory, scored, *, curves_csv=None):
    """Writes the files of `write_figures`, each with a pixel."""
    Path(directory).mkdir(parents=True, exist_ok=True)
    written = []
    for name in FIGURES:
        if name != "loss" or (curves_csv is not None and Path(curves_csv).is_file()):
            written.append(Path(directory) / f"{name}.png")
            written[-1].write_bytes(_PIXEL)
    return written


@contextmanager
def real_figures():
    """A block whose evaluations draw."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(figures, "write_figures", _DRAWN)
        yield
