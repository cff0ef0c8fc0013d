"""Multi-label metrics as pure functions of numpy arrays: no state, no torch.

Shapes throughout: `labels` and `decided` are bool (films, genres), `probabilities` is floating (films, genres). A
metric that its data do not define (a genre no film has, a precision if nothing was decided) is NaN here and null in
JSON, never 0 or 1, and is left out of a macro mean.

`known`, bool (films, genres) or None for all, marks the labels that are known: the other film-genre pairs do not count.
If `known` is given, labels and decisions of the other pairs must be False; `judged` makes them so. A film without a
known label does not count either: a mean over films leaves it out.
"""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray

BoolArray = NDArray[np.bool_]
FloatArray = NDArray[np.floating]
IntArray = NDArray[np.int64]

CALIBRATION_BINS = 15

POLICY_METRICS = (
    "f1_micro",
    "f1_macro",
    "f1_samples",
    "precision_micro",
    "recall_micro",
    "subset_accuracy",
    "hamming_loss",
)
THRESHOLD_FREE_METRICS = ("map_macro", "auroc_macro", "ece", "loss")


def better_is_higher(monitor: str) -> bool:
    """Return whether a metric of that name is to be maximised: all but losses, errors and distances are."""
    name = monitor.rsplit("/", 1)[-1]
    return not any(word in name for word in ("loss", "ece", "hamming", "error"))


def ratio(numerator: NDArray, denominator: NDArray) -> FloatArray:
    """Divide elementwise; 0/0 is NaN (undefined) without a warning."""
    top, bottom = np.asarray(numerator, dtype=np.float64), np.asarray(denominator, dtype=np.float64)
    return np.divide(top, bottom, out=np.full(np.broadcast_shapes(top.shape, bottom.shape), np.nan), where=bottom != 0)


def mean_defined(values: FloatArray, axis: int = -1) -> FloatArray:
    """Return the mean over the values that are not NaN; NaN if none is."""
    with warnings.catch_warnings():
        # numpy warns if a slice holds NaN only: that is the undefined mean wanted here
        warnings.simplefilter("ignore", category=RuntimeWarning)
        return np.nanmean(values, axis=axis)


def judged(decided: BoolArray, known: BoolArray | None) -> BoolArray:
    """Return the decisions that can be right or wrong: those of known labels."""
    return decided if known is None else decided & known


def judged_films(labels: BoolArray, known: BoolArray | None) -> BoolArray:
    """Mark the films with a known label, bool (films,): means over films are of these."""
    return np.ones(len(labels), dtype=bool) if known is None else np.asarray(known.any(axis=1))


def confusion_counts(labels: BoolArray, decided: BoolArray, known: BoolArray | None = None) -> IntArray:
    """Count (tn, fp, fn, tp) for each genre.

    Returns:
        int64 (genres, 4), columns in scikit-learn's `multilabel_confusion_matrix(...).ravel()` order.
    """
    _same_shape(labels, decided)
    labels, decided = labels.astype(bool, copy=False), decided.astype(bool, copy=False)
    tp = (labels & decided).sum(axis=0)
    fp = decided.sum(axis=0) - tp
    fn = labels.sum(axis=0) - tp
    films = len(labels) if known is None else known.sum(axis=0)
    return np.stack([films - tp - fp - fn, fp, fn, tp], axis=1).astype(np.int64)


def f1_from_counts(tp: NDArray, fp: NDArray, fn: NDArray) -> FloatArray:
    """Return F1 = 2 tp / (2 tp + fp + fn); NaN without a positive (tp + fn = 0), since no decision could reach 1."""
    tp, fp, fn = (np.asarray(count, dtype=np.float64) for count in (tp, fp, fn))
    return np.where(tp + fn > 0, ratio(2 * tp, 2 * tp + fp + fn), np.nan)


def genre_policy_metrics(labels: BoolArray, decided: BoolArray) -> dict[str, NDArray]:
    """Return the metrics of a decision for each genre.

    Returns:
        `support` and `decided` (int64) and `precision recall f1` (float64, NaN if undefined), each (genres,).
    """
    counts = confusion_counts(labels, decided)
    fp, fn, tp = counts[:, 1], counts[:, 2], counts[:, 3]
    return {
        "support": tp + fn,
        "decided": tp + fp,
        "precision": ratio(tp, tp + fp),
        "recall": ratio(tp, tp + fn),
        "f1": f1_from_counts(tp, fp, fn),
    }


def film_f1(labels: BoolArray, decided: BoolArray) -> FloatArray:
    """Return the F1 of each film over its genres, float64 (films,); 0 for a film without true or decided genres."""
    _same_shape(labels, decided)
    both = (labels & decided).sum(axis=1)
    either = labels.sum(axis=1) + decided.sum(axis=1)
    return np.nan_to_num(ratio(2 * both, either), nan=0.0)


def policy_metrics(labels: BoolArray, decided: BoolArray, known: BoolArray | None = None) -> dict[str, float]:
    """Return the metrics of a decision over all films.

    `f1_macro` is the mean over the genres that have a positive. `f1_samples` counts a film without true or decided
    genres as 0. `subset_accuracy` is the fraction of films decided exactly; `hamming_loss` that of wrong film-genre
    pairs.

    Args:
        labels: bool (films, genres), the truth.
        decided: bool (films, genres), the decision.
        known: See the module.

    Returns:
        The names of `POLICY_METRICS`, plain floats; NaN if undefined.
    """
    counts = confusion_counts(labels, decided)
    fp, fn, tp = counts[:, 1], counts[:, 2], counts[:, 3]
    wrong, films = labels != decided, judged_films(labels, known)
    return {
        "f1_micro": float(f1_from_counts(tp.sum(), fp.sum(), fn.sum())),
        "f1_macro": float(mean_defined(f1_from_counts(tp, fp, fn))),
        "f1_samples": float(mean_defined(film_f1(labels, decided)[films])),
        "precision_micro": float(ratio(tp.sum(), (tp + fp).sum())),
        "recall_micro": float(ratio(tp.sum(), (tp + fn).sum())),
        "subset_accuracy": float(mean_defined(~wrong[films].any(axis=1))),
        "hamming_loss": float(ratio(wrong.sum(), np.asarray(wrong.size if known is None else known.sum()))),
    }


def average_precision(labels: BoolArray, probabilities: FloatArray, known: BoolArray | None = None) -> FloatArray:
    """Return the average precision of each genre, the step-wise sum of (R_k - R_{k-1}) P_k over distinct scores.

    Equal scores are one step, as in `sklearn.metrics.average_precision_score`.

    Returns:
        float64 (genres,); NaN for a genre without positives.
    """
    hits, last, _, counted = _ranked(labels, probabilities, known)
    through = last + 1 if counted is None else np.take_along_axis(np.cumsum(counted, axis=0), last, axis=0)
    precision = np.take_along_axis(np.cumsum(hits, axis=0), last, axis=0) / np.maximum(through, 1)
    return ratio((precision * hits).sum(axis=0), hits.sum(axis=0))


def roc_auc(labels: BoolArray, probabilities: FloatArray, known: BoolArray | None = None) -> FloatArray:
    """Return each genre's area under the ROC curve: the fraction of (positive, negative) pairs in order, ties half.

    Returns:
        float64 (genres,); NaN for a genre without positives or without negatives.
    """
    hits, last, first, counted = _ranked(labels, probabilities, known)
    misses = ~hits if counted is None else counted & ~hits
    misses_above = np.vstack([np.zeros((1, hits.shape[1]), dtype=np.int64), np.cumsum(misses, axis=0)])
    # a positive stands below the misses of the groups above its own, and level with those of its own
    above = np.take_along_axis(misses_above, first, axis=0)
    within = np.take_along_axis(misses_above, last + 1, axis=0)
    positives, negatives = hits.sum(axis=0), misses.sum(axis=0)
    return 1 - ratio((hits * (above + within)).sum(axis=0) / 2, positives * negatives)


def calibration_bins(labels: BoolArray, probabilities: FloatArray, bins: int = CALIBRATION_BINS) -> dict[str, NDArray]:
    """Group probabilities into equal-width bins (lower, upper], the first one closed below.

    The edges are those of `sklearn.calibration.calibration_curve(strategy="uniform")`.

    Args:
        labels: bool, any shape.
        probabilities: floating in [0, 1], the same shape.
        bins: The number of bins.

    Returns:
        `count` int64, `predicted` (mean probability) and `observed` (fraction of positives) float64, each (bins,); NaN
        in an empty bin.
    """
    _check_probabilities(labels, probabilities)
    place = bin_index(probabilities, bins).ravel()
    count = np.bincount(place, minlength=bins)
    predicted = np.bincount(place, weights=np.asarray(probabilities, dtype=np.float64).ravel(), minlength=bins)
    observed = np.bincount(place, weights=labels.ravel(), minlength=bins)
    return {"count": count, "predicted": ratio(predicted, count), "observed": ratio(observed, count)}


def bin_index(probabilities: FloatArray, bins: int = CALIBRATION_BINS) -> IntArray:
    """Give the calibration bin of each probability, int64 in [0, bins), in the array's own shape."""
    return np.searchsorted(np.linspace(0.0, 1.0, bins + 1)[1:-1], np.asarray(probabilities, dtype=np.float64))


def expected_calibration_error(labels: BoolArray, probabilities: FloatArray, bins: int = CALIBRATION_BINS) -> float:
    """Return ECE, the sum over bins of (count / total) |fraction of positives - mean probability| (Naeini et al. 2015).

    Each film-genre pair is one binary forecast of "the film has the genre"; NaN without any pair.
    """
    if labels.size == 0:
        return float("nan")
    table = calibration_bins(labels, probabilities, bins)
    gap = np.nan_to_num(np.abs(table["observed"] - table["predicted"]), nan=0.0)
    return float((table["count"] * gap).sum() / labels.size)


def genre_calibration_error(
    labels: BoolArray, probabilities: FloatArray, bins: int = CALIBRATION_BINS, known: BoolArray | None = None
) -> FloatArray:
    """Return the ECE of each genre over its films, float64 (genres,)."""
    _same_shape(labels, probabilities)
    pairs = [known_of(j, known, labels, probabilities) for j in range(labels.shape[1])]
    return np.array([expected_calibration_error(truth, likely, bins) for truth, likely in pairs])


def known_of(genre: int, known: BoolArray | None, *arrays: NDArray) -> list[NDArray]:
    """Return a genre's column of arrays (films, genres), for the films that are known."""
    columns = [array[:, genre] for array in arrays]
    return columns if known is None else [column[known[:, genre]] for column in columns]


def known_pairs(known: BoolArray | None, *arrays: NDArray) -> tuple[NDArray, ...]:
    """Return the film-genre pairs that are known, of arrays (films, genres): flat, or as they are if all are known."""
    return arrays if known is None else tuple(array[known] for array in arrays)


def film_cross_entropy(labels: BoolArray, probabilities: FloatArray, known: BoolArray | None = None) -> FloatArray:
    """Return the mean over genres of -[y log p + (1 - y) log(1 - p)] for each film, in nats, float64 (films,).

    It is NaN for a film without a known label. Probabilities are kept one machine epsilon of their own dtype from 0 and
    1, as `sklearn.metrics.log_loss` does.
    """
    _check_probabilities(labels, probabilities)
    epsilon = np.finfo(probabilities.dtype).eps
    clipped = np.clip(probabilities, epsilon, 1 - epsilon).astype(np.float64)
    gains = np.where(labels, np.log(clipped), np.log1p(-clipped))
    if known is None:
        return -gains.mean(axis=1)
    return -ratio((gains * known).sum(axis=1), known.sum(axis=1))


def threshold_free_metrics(
    labels: BoolArray, probabilities: FloatArray, loss: float | None = None, known: BoolArray | None = None
) -> dict[str, float]:
    """Return the metrics of the probabilities, before any decision.

    Args:
        labels: bool (films, genres).
        probabilities: floating (films, genres) in [0, 1].
        loss: A mean binary cross-entropy in nats computed elsewhere; from the probabilities (unweighted, over films and
            genres) when None.
        known: See the module.

    Returns:
        The names of `THRESHOLD_FREE_METRICS`, plain floats; NaN if undefined. The macros are means over the genres
        that define them.
    """
    if loss is None:
        loss = float(mean_defined(film_cross_entropy(labels, probabilities, known)))
    truth, likely = known_pairs(known, labels, probabilities)
    return {
        "map_macro": float(mean_defined(average_precision(labels, probabilities, known))),
        "auroc_macro": float(mean_defined(roc_auc(labels, probabilities, known))),
        "ece": expected_calibration_error(truth, likely),
        "loss": loss,
    }


def undefined_genres(labels: BoolArray, known: BoolArray | None = None) -> BoolArray:
    """Mark the genres that lack positives or lack negatives, bool (genres,): some of their metrics are undefined."""
    support = labels.sum(axis=0)
    return (support == 0) | (support == (len(labels) if known is None else known.sum(axis=0)))


def _ranked(
    labels: BoolArray, probabilities: FloatArray, known: BoolArray | None = None
) -> tuple[BoolArray, IntArray, IntArray, BoolArray | None]:
    """Sort each genre by falling probability.

    Returns:
        Labels in that order, the last and first row of equal score, and which labels are known.
    """
    _check_probabilities(labels, probabilities)
    order = np.argsort(-probabilities, axis=0)
    hits = np.take_along_axis(labels.astype(bool, copy=False), order, axis=0)
    ranked = np.take_along_axis(probabilities, order, axis=0)
    n = len(ranked)
    rows = np.arange(n)[:, None]
    new = np.ones(ranked.shape, dtype=bool)
    new[1:] = ranked[1:] != ranked[:-1]
    first = np.maximum.accumulate(np.where(new, rows, 0), axis=0)
    ends = np.ones(ranked.shape, dtype=bool)
    ends[:-1] = new[1:]
    last = np.minimum.accumulate(np.where(ends, rows, n - 1)[::-1], axis=0)[::-1]
    return hits, last, first, None if known is None else np.take_along_axis(known, order, axis=0)


def _same_shape(labels: NDArray, other: NDArray) -> None:
    if labels.shape != other.shape:
        raise ValueError(f"labels have shape {labels.shape} and the other array {other.shape}: they must be the same")


def _check_probabilities(labels: NDArray, probabilities: FloatArray) -> None:
    _same_shape(labels, probabilities)
    if np.isnan(probabilities).any():
        raise ValueError("probabilities are NaN: the model has diverged, or what made them is wrong")
