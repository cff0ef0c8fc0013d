"""Linear models over the features of a text: what training keeps, and naive Bayes as such a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from genre_lightning.types import FittedInput

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


@dataclass(frozen=True)
class LinearGenres:
    """What training finds: log-odds of genre g in a text with features x are `weights[:, g] @ x + bias[g]`."""

    genres: tuple[str, ...]
    terms: tuple[str, ...]
    """Words and runs of words, in the order of the features."""
    idf: NDArray[np.float64]
    """Inverse document frequency, (terms,)."""
    weights: NDArray[np.float32]
    """(terms and columns of inputs, genres)."""
    bias: NDArray[np.float64]
    """(genres,)."""
    inputs: tuple[FittedInput, ...] = ()
    """Beside the words; the last features are their columns."""


def naive_bayes(
    features: csr_matrix, labels: NDArray[np.bool_], smoothing: float, known: NDArray[np.bool_] | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the log-odds of multinomial naive Bayes, each genre against the rest, as weights and bias.

    Args:
        features: Not negative, (films, terms).
        labels: bool (films, genres).
        smoothing: Added to each term's sum in a class.
        known: bool (films, genres): films whose label of a genre is known; None for all.

    Returns:
        Weights float64 (terms, genres): log of a term's fraction among films with the genre over its fraction among the
        others; and bias float64 (genres,): the log-odds of the genre's fraction of films. A genre that no film or every
        film has gets weights of 0.
    """
    with_genre = np.asarray(features.T @ labels.astype(np.float64))
    if known is None:
        without = np.asarray(features.sum(axis=0), dtype=np.float64).reshape(-1, 1) - with_genre
    else:
        without = np.asarray(features.T @ known.astype(np.float64)) - with_genre
    with_genre, without = with_genre + smoothing, np.maximum(without, 0) + smoothing
    weights = np.log(with_genre / with_genre.sum(axis=0)) - np.log(without / without.sum(axis=0))
    films = len(labels) if known is None else known.sum(axis=0)
    weights[:, ~labels.any(axis=0) | (labels.sum(axis=0) == films)] = 0
    return weights, prior_log_odds(labels, known)


def prior_log_odds(labels: NDArray[np.bool_], known: NDArray[np.bool_] | None = None) -> NDArray[np.float64]:
    """Return the log-odds of each genre's fraction of films; half a film more on either side keeps them finite."""
    positives = labels.sum(axis=0).astype(np.float64)
    negatives = (len(labels) if known is None else known.sum(axis=0)) - positives
    edge = (positives == 0) | (negatives == 0)
    return np.log((positives + edge / 2) / (negatives + edge / 2))


def missing_columns(inputs: Sequence[FittedInput], films: int) -> csr_matrix:
    """Return the columns of films that have none of the inputs, float32 (films, columns)."""
    from scipy.sparse import csr_matrix

    row = np.zeros((1, sum(map(column_count, inputs))), dtype=np.float32)
    start = 0
    for one in inputs:
        end = start + column_count(one)
        row[0, start if one.is_named else end - 1] = 1 if one.is_named else 0.5
        start = end
    return csr_matrix(np.ones((films, 1), dtype=np.float32)) @ csr_matrix(row)


def column_count(fitted: FittedInput) -> int:
    """Return the columns of an input: one for each name, unknown and none, or two for each number and one for none."""
    return len(fitted.values) + 2 if fitted.is_named else 2 * len(fitted.mean) + 1
