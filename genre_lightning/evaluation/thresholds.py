"""Decision thresholds by exact search over observed probabilities: pure functions of arrays.

A genre is decided if probability >= threshold. Every threshold lies midway between two neighbouring observed
probabilities and is a float32 value, so that rounding, or another machine's sigmoid, does not flip a film near it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy  # its parts are imported when they are used, in half a second
from numpy.typing import NDArray

from genre_lightning.config.decision import SHRINKAGE
from genre_lightning.errors import DataError
from genre_lightning.metrics import BoolArray, FloatArray, IntArray, judged, known_of, policy_metrics

RESAMPLES = 50
"""Resamples whose best thresholds are averaged: the exact optimum of a few positives is a jump, its average is not."""
PAPER_GRID = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
_EDGE = 1e-7  # keeps logits finite; a float32 sigmoid saturates near here


def best_global_threshold(probabilities: FloatArray, labels: BoolArray) -> float:
    """Find the one threshold that maximises micro-F1 over all film-genre pairs, exactly.

    Args:
        probabilities: floating, any shape.
        labels: bool, the same shape.

    Returns:
        The threshold; of several equally good ones the highest.

    Raises:
        DataError: There is no positive label, so that F1 is undefined.
    """
    scores, decided, hits = _candidates(np.ravel(probabilities), np.ravel(labels))
    positives = int(labels.sum())
    if positives == 0:
        raise DataError("no film here has any genre, so no threshold can be fitted: give the split films with genres")
    best = int(np.argmax(2 * hits / (decided + positives)))
    return _midway(scores, int(decided[best]))


def best_genre_thresholds(
    probabilities: FloatArray,
    labels: BoolArray,
    global_threshold: float,
    shrinkage: float = SHRINKAGE,
    resamples: int = RESAMPLES,
    seed: int = 0,
    known: BoolArray | None = None,
) -> NDArray[np.float64]:
    """Find for each genre the threshold that maximises its F1, steadied and drawn to the global one.

    The optimum of few positives is noise, so it is (1) averaged in log-odds over bootstrap resamples of the films, and
    (2) moved to the global threshold: logit t = (n logit t_genre + k logit t_global) / (n + k), with n the genre's
    positives and k = `shrinkage`.

    Args:
        probabilities: floating (films, genres).
        labels: bool (films, genres).
        global_threshold: What a genre without positives gets.
        shrinkage: K, in positives; 0 for none.
        resamples: How many to average over; 0 for the exact optimum of the films themselves.
        seed: Random seed of the resampling.
        known: bool (films, genres): labels that are known; None for all.

    Returns:
        float64 (genres,).
    """
    films, genres = labels.shape
    weights = _resampled(films, resamples, seed) if resamples else np.ones((films, 1), dtype=np.float32)
    prior = scipy.special.logit(np.clip(global_threshold, _EDGE, 1 - _EDGE))
    thresholds = np.full(genres, float(global_threshold))
    for genre in np.flatnonzero(labels.any(axis=0)).tolist():
        column, truth = known_of(genre, known, probabilities, labels)
        own = _best_log_odds(column, truth, weights if known is None else weights[known[:, genre]])
        positives = truth.sum()
        drawn = (positives * np.where(np.isnan(own), prior, own).mean() + shrinkage * prior) / (positives + shrinkage)
        observed = np.unique(column)
        above = int(np.searchsorted(observed, scipy.special.expit(drawn)))
        thresholds[genre] = _midway(observed[::-1], len(observed) - above)
    return thresholds


def best_constant_genres(labels: BoolArray, known: BoolArray | None = None) -> BoolArray:
    """Find the set of genres with the best micro-F1 if every film is given that same set.

    This is what the frequencies of the genres alone can do. With k genres, tp is the number of their labels, so that
    F1 = 2 tp / (k films + all labels): of all sets of k the most frequent genres are best, and k is found by trying.
    If some labels are not known, each genre counts its known films, and the genres are tried in the order of the
    fraction of them that have it.

    Args:
        labels: bool (films, genres).
        known: bool (films, genres): labels that are known; None for all.

    Returns:
        bool (genres,); of several equally good sets the smallest. Empty without a positive label.
    """
    films, genres = labels.shape
    counts = labels.sum(axis=0)
    of_genre = np.full(genres, films) if known is None else known.sum(axis=0)
    order = np.argsort(-counts / np.maximum(of_genre, 1), kind="stable")
    scores = 2 * np.cumsum(counts[order]) / np.maximum(np.cumsum(of_genre[order]) + counts.sum(), 1)
    chosen = np.zeros(genres, dtype=bool)
    if counts.any():
        chosen[order[: int(np.argmax(scores)) + 1]] = True
    return chosen


def threshold_grid(
    probabilities: FloatArray,
    labels: BoolArray,
    thresholds: Sequence[float] = PAPER_GRID,
    known: BoolArray | None = None,
) -> list[dict[str, float]]:
    """Give the paper's Table II: for each threshold the subset accuracy, precision, recall and F1 (micro)."""
    rows = []
    for threshold in thresholds:
        figures = policy_metrics(labels, judged(np.asarray(probabilities, dtype=np.float64) >= threshold, known), known)
        rows.append(
            {
                "threshold": threshold,
                "accuracy": figures["subset_accuracy"],
                "precision": figures["precision_micro"],
                "recall": figures["recall_micro"],
                "f1": figures["f1_micro"],
            }
        )
    return rows


def micro_f1_curve(probabilities: FloatArray, labels: BoolArray, points: int = 400) -> dict[str, FloatArray]:
    """Give precision, recall and F1 (micro) at evenly spaced thresholds, for a plot; each float64 (points,)."""
    thresholds = np.linspace(0.0, 1.0, points)
    flat = np.ravel(probabilities).astype(np.float64)
    everywhere, positives = np.sort(flat), np.sort(flat[np.ravel(labels)])
    decided = len(everywhere) - np.searchsorted(everywhere, thresholds)
    hits = len(positives) - np.searchsorted(positives, thresholds)
    with np.errstate(invalid="ignore", divide="ignore"):
        precision = np.where(decided > 0, hits / decided, np.nan)
        recall = hits / np.float64(len(positives))
        f1 = 2 * hits / (decided + np.float64(len(positives)))
    return {"threshold": thresholds, "precision": precision, "recall": recall, "f1": f1}


def _candidates(scores: FloatArray, labels: BoolArray) -> tuple[FloatArray, IntArray, IntArray]:
    """Sort by falling score; at the end of each group of equal scores give the number decided and the hits in it."""
    order = np.argsort(-scores)
    ranked = scores[order]
    ends = np.flatnonzero(np.append(ranked[1:] != ranked[:-1], True)) if len(ranked) else np.zeros(0, dtype=np.int64)
    return ranked, ends + 1, np.cumsum(labels[order], dtype=np.int64)[ends]


def _midway(falling: FloatArray, count: int) -> float:
    """Place a threshold between the `count` highest scores and the next one, given scores in falling order."""
    upper = np.float32(falling[count - 1]) if count > 0 else np.float32(1)
    lower = np.float32(falling[count]) if count < len(falling) else np.float32(0)
    middle = np.float32((np.float64(upper) + np.float64(lower)) / 2)
    # between adjacent float32 values the middle may round down to the lower one, which must stay out
    return float(middle if middle > lower else upper)


def _resampled(films: int, resamples: int, seed: int) -> NDArray[np.float32]:
    """Count how often each film is drawn in each bootstrap resample, float32 (films, resamples)."""
    generator = np.random.default_rng(seed)
    drawn = generator.integers(0, films, size=(resamples, films))
    return np.stack([np.bincount(row, minlength=films) for row in drawn], axis=1).astype(np.float32)


def _best_log_odds(scores: FloatArray, labels: BoolArray, weights: NDArray[np.float32]) -> FloatArray:
    """Return the log-odds of a genre's best-F1 threshold under each column of weights; NaN if no positive was drawn."""
    order = np.argsort(-scores)
    ranked = scores[order].astype(np.float64)
    # F1 can peak only where a group of equal scores that holds a positive ends
    positives = np.flatnonzero(labels[order])
    ends = len(ranked) - np.searchsorted(ranked[::-1], ranked[positives]) - 1
    drawn = weights[order]
    decided = np.cumsum(drawn, axis=0)[ends]
    hits = np.cumsum(drawn[positives], axis=0)
    total = hits[-1]
    # the hits of a group of equal scores are those at its end
    hits = hits[np.searchsorted(ends, ends, side="right") - 1]
    best = np.argmax(2 * hits / np.maximum(decided + total, 1), axis=0)
    middle = (ranked[ends] + np.append(ranked[1:], 0.0)[ends]) / 2
    return np.where(total > 0, scipy.special.logit(np.clip(middle, _EDGE, 1 - _EDGE))[best], np.nan)
