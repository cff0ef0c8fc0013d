"""Above and below which probability a predicted genre is believed, fitted on films whose genres are known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST = 5
"""Validation films beyond a cut-off that make it believable."""


@dataclass(frozen=True)
class Cutoffs:
    """Of each genre, float64 (genres,).

    Attributes:
        upper: A film with this probability or more has the genre; infinite if no probability is high enough.
        lower: A film with this probability or less lacks it; minus infinite if none is low enough.
    """

    upper: NDArray[np.float64]
    lower: NDArray[np.float64]

    def apply(self, probabilities: NDArray[np.floating]) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return the genres that films are believed to have, and those that are known; bool (films, genres) both."""
        positive = probabilities >= self.upper
        return positive, positive | (probabilities <= self.lower)


def fit_cutoffs(
    probabilities: NDArray[np.floating],
    labels: NDArray[np.bool_],
    known: NDArray[np.bool_] | None = None,
    *,
    precision: float,
    negative_precision: float,
) -> Cutoffs:
    """Fit the cut-offs of each genre: as many films beyond them as the wanted precision allows.

    Args:
        probabilities: Calibrated, (films, genres).
        labels: bool (films, genres).
        known: bool (films, genres): the labels that are known; None if all are.
        precision: Of the films from the upper cut-off on, the fraction that has the genre.
        negative_precision: Of those up to the lower one, the fraction that lacks it.
    """
    genres = labels.shape[1]
    upper, lower = np.full(genres, np.inf), np.full(genres, -np.inf)
    for genre in range(genres):
        films = slice(None) if known is None else known[:, genre]
        found, has = probabilities[films, genre].astype(np.float64), labels[films, genre]
        upper[genre] = -_first(-found, has, precision)
        lower[genre] = _first(found, ~has, negative_precision)
    # a genre whose cut-offs cross is believed above the upper one
    return Cutoffs(upper, np.minimum(lower, np.nextafter(upper, -np.inf)))


def _first(values: NDArray[np.float64], right: NDArray[np.bool_], wanted: float) -> float:
    """Return the largest value up to which, in ascending order, the wanted fraction is right; -inf without one."""
    order = np.argsort(values, kind="stable")
    ascending, fraction = values[order], right[order].cumsum() / np.arange(1, len(values) + 1)
    last_of_equals = np.append(ascending[1:] > ascending[:-1], True)[: len(values)]
    fits = np.flatnonzero((fraction >= wanted) & last_of_equals & (np.arange(1, len(values) + 1) >= LEAST))
    return float(ascending[fits[-1]]) if len(fits) else -np.inf
