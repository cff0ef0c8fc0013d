"""Bootstrap over films: BCa intervals and paired p-values, without a Python loop over resamples.

A resample of n films with replacement is a row of weights, how often each film was drawn; every metric is then a
weighted count, and a batch of resamples one matrix product or one cumulative sum.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
import scipy  # its parts are imported when they are used, in half a second
from numpy.typing import NDArray

from genre_lightning.metrics import (
    CALIBRATION_BINS,
    BoolArray,
    FloatArray,
    bin_index,
    f1_from_counts,
    film_cross_entropy,
    film_f1,
    judged_films,
    known_of,
    mean_defined,
    ratio,
)

LEVEL = 0.95
RESAMPLES = 1000
_BATCH_CELLS = 2_000_000
"""Film weights held at once: 8 MB of float32, which the cumulative sums of a genre read again and again."""

_JACKKNIFE = 500
"""Most films or groups of films that are left out in turn: the acceleration falls with the root of the films."""
_TIE = 1e-12
"""Relative difference below which a resample's metric is the metric itself: sums of floats depend on their order."""

Samples = dict[str, FloatArray]


def film_weights(films: int, resamples: int = RESAMPLES, seed: int = 0) -> Iterator[NDArray[np.float32]]:
    """Yield batches of resamples, float32 (some, films): how often each film is drawn; rows sum to `films`."""
    generator = np.random.default_rng(seed)
    batch = max(1, _BATCH_CELLS // max(films, 1))
    for start in range(0, resamples, batch):
        drawn = generator.integers(0, films, size=(min(batch, resamples - start), films))
        yield np.stack([np.bincount(row, minlength=films) for row in drawn]).astype(np.float32)


def policy_samples(
    labels: BoolArray, decided: BoolArray, weights: NDArray[np.float32], known: BoolArray | None = None
) -> Samples:
    """Return the metrics of `metrics.policy_metrics` for each resample.

    Args:
        labels: bool (films, genres).
        decided: bool (films, genres).
        weights: float32 (resamples, films); rows of zeros are not allowed.
        known: bool (films, genres): labels that are known; None for all. See `metrics`.

    Returns:
        float64 (resamples,) for each name, NaN if a resample leaves it undefined, and `f1` (resamples, genres).
    """
    judged = judged_films(labels, known)
    genres, films = labels.shape[1], _weighted(weights, judged)
    tp = _weighted(weights, labels & decided)
    positives, taken = _weighted(weights, labels), _weighted(weights, decided)
    wrong = labels != decided
    pairs = films * genres if known is None else _weighted(weights, known.sum(axis=1))
    f1 = f1_from_counts(tp, taken - tp, positives - tp)
    return {
        "f1_micro": f1_from_counts(tp.sum(1), (taken - tp).sum(1), (positives - tp).sum(1)),
        "f1_macro": mean_defined(f1, axis=1),
        "f1_samples": ratio(_weighted(weights, film_f1(labels, decided) * judged), films),
        "precision_micro": ratio(tp.sum(1), taken.sum(1)),
        "recall_micro": ratio(tp.sum(1), positives.sum(1)),
        "subset_accuracy": ratio(_weighted(weights, judged & ~wrong.any(axis=1)), films),
        "hamming_loss": ratio(_weighted(weights, wrong.sum(axis=1)), pairs),
        "f1": f1,
    }


def threshold_free_samples(
    labels: BoolArray, probabilities: FloatArray, weights: NDArray[np.float32], known: BoolArray | None = None
) -> Samples:
    """Return the metrics of `metrics.threshold_free_metrics` for each resample, float64 (resamples,) for each name."""
    films, genres = labels.shape
    precision = np.full((len(weights), genres), np.nan)
    area = np.full((len(weights), genres), np.nan)
    for genre in np.flatnonzero(labels.any(axis=0)).tolist():
        truth, scores = known_of(genre, known, labels, probabilities)
        drawn = weights if known is None else weights[:, known[:, genre]]
        precision[:, genre], area[:, genre] = _ranking_samples(truth, scores, drawn)
    place = bin_index(probabilities)
    judged = judged_films(labels, known)
    drawn = _weighted(weights, judged)
    losses = np.where(judged, film_cross_entropy(labels, probabilities, known), 0.0)
    # each bin's sum of (label - probability) for each film: their weighted sums are the gaps of a resample
    gap = np.zeros((films, CALIBRATION_BINS))
    rows = np.repeat(np.arange(films), genres)
    gaps: NDArray[np.float64] = labels - probabilities.astype(np.float64)
    np.add.at(gap, (rows, place.ravel()), (gaps if known is None else gaps * known).ravel())
    pairs = drawn * genres if known is None else _weighted(weights, known.sum(axis=1))
    return {
        "map_macro": mean_defined(precision, axis=1),
        "auroc_macro": mean_defined(area, axis=1),
        "ece": ratio(np.abs(_weighted(weights, gap)).sum(axis=1), pairs),
        "loss": ratio(_weighted(weights, losses), drawn),
    }


def bootstrap_samples(
    labels: BoolArray,
    probabilities: FloatArray,
    decided: Mapping[str, BoolArray],
    resamples: int = RESAMPLES,
    seed: int = 0,
    known: BoolArray | None = None,
) -> dict[str, Samples]:
    """Resample all metrics, the same films for each of them.

    The films drawn depend on (number of films, resamples, seed) alone, so that two models evaluated on the same films
    in the same order have paired samples.

    Args:
        labels: bool (films, genres), at least one film.
        probabilities: floating (films, genres), calibrated.
        decided: bool (films, genres) for each policy.
        resamples: How many.
        seed: Random seed of the resampling.
        known: bool (films, genres): labels that are known; None for all.

    Returns:
        "threshold_free" and each policy, with the samples of each metric.
    """
    return _samples(labels, probabilities, decided, film_weights(len(labels), resamples, seed), known)


def bca_intervals(
    labels: BoolArray,
    probabilities: FloatArray,
    decided: Mapping[str, BoolArray],
    samples: Mapping[str, Samples],
    level: float = LEVEL,
    known: BoolArray | None = None,
) -> dict[str, Samples]:
    """Return the interval of every metric that `bootstrap_samples` resampled.

    Args:
        labels: bool (films, genres), at least one film.
        probabilities: floating (films, genres), calibrated.
        decided: bool (films, genres) for each policy.
        samples: What `bootstrap_samples` returned for the same arguments.
        level: Fraction of the intervals that hold the true metric.
        known: As given to `bootstrap_samples`.

    Returns:
        "threshold_free" and each policy, with float64 (2, ...) for each metric; see `bca_interval`.
    """
    figures = _samples(labels, probabilities, decided, iter([np.ones((1, len(labels)), dtype=np.float32)]), known)
    left_out = _samples(labels, probabilities, decided, jackknife_weights(len(labels)), known)
    return {
        place: {
            name: bca_interval(drawn, figures[place][name][0], left_out[place].get(name, drawn[:0]), level)
            for name, drawn in named.items()
        }
        for place, named in samples.items()
    }


def jackknife_weights(films: int) -> Iterator[NDArray[np.float32]]:
    """Yield batches of float32 (some, films), in each row of which one film, or one of 500 groups, is left out."""
    groups = min(films, _JACKKNIFE)
    group_of_film = np.arange(films) % groups
    batch = max(1, _BATCH_CELLS // max(films, 1))
    if groups > 1:
        for start in range(0, groups, batch):
            yield (group_of_film != np.arange(start, min(start + batch, groups))[:, None]).astype(np.float32)


def interval_of(
    samples_of: Callable[[NDArray[np.float32]], FloatArray],
    figure: FloatArray,
    films: int,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> NDArray[np.float64]:
    """Return the interval of one metric, or of one for each genre; see `bca_interval`.

    Args:
        samples_of: From weights, float32 (resamples, films), to the metric, floating (resamples, ...).
        figure: Metric of all films, floating (...).
        films: How many there are.
        resamples: Number of resamples.
        seed: Random seed of the resampling.
    """
    drawn = np.concatenate([samples_of(weights) for weights in film_weights(films, resamples, seed)])
    left_out = [samples_of(weights) for weights in jackknife_weights(films)]
    return bca_interval(drawn, figure, np.concatenate(left_out or [drawn[:0]]))


def resamples_for(tests: int, level: float) -> int:
    """Return how many resamples can show significance after Holm's correction for a number of tests.

    The smallest p-value, 2 / (resamples + 1), times the tests is then about half of the level.
    """
    return max(RESAMPLES, math.ceil(4 * tests / level))


def _samples(
    labels: BoolArray,
    probabilities: FloatArray,
    decided: Mapping[str, BoolArray],
    batches_of_weights: Iterator[NDArray[np.float32]],
    known: BoolArray | None,
) -> dict[str, Samples]:
    parts: dict[str, list[Samples]] = {name: [] for name in ("threshold_free", *decided)}
    for weights in batches_of_weights:
        parts["threshold_free"].append(threshold_free_samples(labels, probabilities, weights, known))
        for policy, chosen in decided.items():
            parts[policy].append(policy_samples(labels, chosen, weights, known))
    return {
        name: {figure: np.concatenate([part[figure] for part in batches]) for figure in batches[0]} if batches else {}
        for name, batches in parts.items()
    }


def bca_interval(
    samples: FloatArray, figure: FloatArray, left_out: FloatArray, level: float = LEVEL
) -> NDArray[np.float64]:
    """Give the bias-corrected and accelerated interval (Efron, "Better Bootstrap Confidence Intervals", 1987).

    A percentile interval lies off metrics that resampling shifts, such as calibration error or the mean of average
    precisions of rare genres. If the shift is larger than the spread, even the corrected interval leaves out its
    own metric: there are too few films for one, and it is NaN. So it is if all resamples give the same metric.

    Args:
        samples: floating (resamples, ...), of the metric; resamples that leave it undefined are NaN and left out.
        figure: Metric of all films, floating (...).
        left_out: floating (groups, ...), of all films but one group.
        level: Fraction of the intervals that hold the true metric.

    Returns:
        float64 (2, ...): low and high; NaN if there is none.
    """
    shape, size = np.shape(figure), np.size(figure)
    columns = zip(
        np.reshape(samples, (len(samples), size)).T,
        np.reshape(figure, size),
        np.reshape(left_out, (len(left_out), size)).T,
        strict=True,
    )
    found = [_bca_of_one(drawn, float(value), without, level) for drawn, value, without in columns]
    return np.array(found, dtype=np.float64).T.reshape(2, *shape)


def _bca_of_one(samples: FloatArray, figure: float, left_out: FloatArray, level: float) -> tuple[float, float]:
    defined, left_out = samples[~np.isnan(samples)], left_out[~np.isnan(left_out)]
    nothing = (float("nan"), float("nan"))
    if not len(defined) or not len(left_out) or np.isnan(figure):
        return nothing
    tie = _TIE * max(1.0, abs(figure))
    if np.ptp(defined) <= tie:
        return nothing  # 0 of 59 films is not proof of 0: resampling never shows what no film of the sample has
    below = ((defined < figure - tie).mean() + (defined <= figure + tie).mean()) / 2
    bias = scipy.special.ndtri(below)
    if not np.isfinite(bias):
        return nothing
    influence = left_out.mean() - left_out
    spread = (influence**2).sum()
    # what rounding leaves of influences that are all 0 has no direction
    accelerates = spread > len(left_out) * tie**2
    acceleration = (influence**3).sum() / (6 * spread**1.5) if accelerates else 0.0
    shifted = bias + scipy.special.ndtri(np.array([(1 - level) / 2, (1 + level) / 2]))
    low, high = np.quantile(defined, scipy.special.ndtr(bias + shifted / (1 - acceleration * shifted)))
    return (float(low), float(high)) if low - tie <= figure <= high + tie else nothing


def paired_p_value(first: FloatArray, second: FloatArray) -> float:
    """Return the two-sided p-value of "no difference" from paired resamples of one metric for two models.

    p = 2 min(#{difference <= 0} + 1, #{difference >= 0} + 1) / (resamples + 1), at most 1: the smallest level at which
    the percentile interval of the difference leaves out 0. The one added keeps it above 0, which no finite bootstrap
    shows.

    Args:
        first: floating (resamples,).
        second: floating (resamples,), from the same films drawn.

    Returns:
        The p-value; NaN if no resample defines both metrics.
    """
    difference = (first - second)[~np.isnan(first - second)]
    if difference.size == 0:
        return float("nan")
    beyond = min(int((difference <= 0).sum()), int((difference >= 0).sum())) + 1
    return min(1.0, 2 * beyond / (difference.size + 1))


def holm(p_values: Sequence[float]) -> NDArray[np.float64]:
    """Correct p-values for their number by Holm's step-down method."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected


def _weighted(weights: NDArray[np.float32], values: NDArray) -> FloatArray:
    """Sum values over films by weight: exact for counts, which float32 holds up to 2^24."""
    kind = np.float32 if values.dtype.kind in "bi" else np.float64
    return (weights.astype(kind, copy=False) @ values.astype(kind)).astype(np.float64)


def _ranking_samples(
    truth: BoolArray, scores: FloatArray, weights: NDArray[np.float32]
) -> tuple[FloatArray, FloatArray]:
    """Return the average precision and ROC area of one genre in each resample, as in `metrics` with weighted counts."""
    order = np.argsort(-scores)
    ranked = scores[order]
    places = np.flatnonzero(truth[order])
    # the group of scores equal to a positive's: its first film, and the one after its last
    falling = -ranked
    first = np.searchsorted(falling, falling[places], side="left")
    after = np.searchsorted(falling, falling[places], side="right")
    drawn = weights[:, order]
    decided = np.zeros((len(weights), len(order) + 1), dtype=np.float32)
    np.cumsum(drawn, axis=1, out=decided[:, 1:])
    hit_weights = drawn[:, places]
    hits = np.zeros((len(weights), len(places) + 1), dtype=np.float32)
    np.cumsum(hit_weights, axis=1, out=hits[:, 1:])
    hits_before, hits_through = np.searchsorted(places, first), np.searchsorted(places, after)
    through, hit_through = decided[:, after], hits[:, hits_through]
    positives = hits[:, -1].astype(np.float64)
    # through is 0 only where nothing up to here was drawn, and then the positive weighs 0 as well
    gained = hit_weights * (hit_through / np.maximum(through, 1))
    average_precision = ratio(gained.sum(axis=1, dtype=np.float64), positives)
    misses = (decided[:, first] - hits[:, hits_before]) + (through - hit_through)
    passed = (hit_weights * misses).sum(axis=1, dtype=np.float64) / 2
    return average_precision, 1 - ratio(passed, positives * (decided[:, -1] - positives))
