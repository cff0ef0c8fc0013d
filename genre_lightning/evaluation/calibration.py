"""Calibration of logits by likelihood on held-out films: one temperature, or Platt scaling for each genre."""

from __future__ import annotations

from typing import Literal

import numpy as np
import scipy  # its parts are imported when they are used, in half a second
from numpy.typing import NDArray

from genre_lightning.metrics import BoolArray, FloatArray, film_cross_entropy, known_of, known_pairs

MIN_TEMPERATURE, MAX_TEMPERATURE = 0.05, 20.0
"""Also of Platt scaling, whose scale is an inverse temperature."""


def calibrated_probabilities(
    logits: FloatArray, temperature: float = 1.0, platt: tuple[FloatArray, FloatArray] | None = None
) -> NDArray[np.float32]:
    """Give sigmoid(logits / temperature) or sigmoid(scale * logits + shift), float32 (films, genres)."""
    wide = np.asarray(logits, dtype=np.float64)
    scaled = wide / temperature if platt is None else wide * platt[0] + platt[1]
    return scipy.special.expit(scaled).astype(np.float32)


def fit_temperature(logits: FloatArray, labels: BoolArray) -> float:
    """Find the temperature T of least mean binary cross-entropy of sigmoid(logits / T) (Guo et al. 2017).

    The loss is convex in 1/T, so its derivative, the sum of z (sigmoid(z/T) - y), has one root, found by bracketing.
    The answer stays in [0.05, 20]: logits that separate the labels perfectly have no finite best temperature.

    Args:
        logits: floating (films, genres).
        labels: bool (films, genres).

    Returns:
        The temperature, positive.
    """
    z = np.asarray(logits, dtype=np.float64).ravel()
    y = np.asarray(labels, dtype=np.float64).ravel()

    def slope(inverse: float) -> float:
        return float(z @ (scipy.special.expit(z * inverse) - y))

    low, high = 1 / MAX_TEMPERATURE, 1 / MIN_TEMPERATURE
    if slope(high) <= 0:
        return MIN_TEMPERATURE
    if slope(low) >= 0:
        return MAX_TEMPERATURE
    return 1 / float(scipy.optimize.brentq(slope, low, high, xtol=1e-10, rtol=1e-10))


def fit_platt(
    logits: FloatArray, labels: BoolArray, known: BoolArray | None = None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Find for each genre the scale, within [1/20, 20], and the shift of least binary cross-entropy (Platt 1999).

    As in Platt's paper the targets are (n+ + 1)/(n+ + 2) and 1/(n- + 2), not 1 and 0: that keeps the fit finite if a
    genre's few films are separated perfectly. The bounds are those of the temperature: the logits of a model that has
    hardly been trained differ by little, and the scale that fits their noise best may be 10,000, under which any other
    text is certain. The lower bound keeps the ranking of a genre that would be reversed. A genre without positives or
    without negatives is scaled by the common temperature only. The minimum is found by Newton steps with backtracking
    (Lin, Lin and Weng 2007).

    Args:
        logits: floating (films, genres).
        labels: bool (films, genres).
        known: bool (films, genres): labels that are known; None for all.

    Returns:
        Scale and shift, float64 (genres,) each; the scales are within [1/20, 20].
    """
    common = 1 / fit_temperature(*known_pairs(known, logits, labels))
    scale, shift = np.full(labels.shape[1], common), np.zeros(labels.shape[1])
    for genre in range(labels.shape[1]):
        column, truth = known_of(genre, known, logits, labels)
        if truth.any() and not truth.all():
            scale[genre], shift[genre] = _platt_of_genre(np.asarray(column, dtype=np.float64), truth)
    return scale, shift


def _platt_of_genre(logits: FloatArray, truth: BoolArray) -> tuple[float, float]:
    """Minimise the cross-entropy of one genre by Newton steps on standardised logits, halved while they do not help."""
    positives = int(truth.sum())
    negatives = len(truth) - positives
    target = np.where(truth, (positives + 1) / (positives + 2), 1 / (negatives + 2))
    centre, spread = float(logits.mean()), float(logits.std()) or 1.0
    z = (logits - centre) / spread
    design = np.stack([z, np.ones_like(z)], axis=1)

    def loss(weights: FloatArray) -> float:
        score = design @ weights
        return float((np.logaddexp(0, score) - target * score).sum())

    weights = np.array([0.0, np.log((positives + 1) / (negatives + 1))])
    current = loss(weights)
    for _ in range(50):
        probability = scipy.special.expit(design @ weights)
        curvature = design.T @ (design * (probability * (1 - probability))[:, None]) + 1e-9 * np.eye(2)
        step = np.linalg.solve(curvature, design.T @ (probability - target))
        size = 1.0
        while (trial := loss(weights - size * step)) > current and size > 1e-6:
            size /= 2
        if current - trial < 1e-10 * max(current, 1.0):
            break
        weights, current = weights - size * step, trial
    scale = float(weights[0]) / spread
    bounded = min(max(scale, 1 / MAX_TEMPERATURE), 1 / MIN_TEMPERATURE)
    if bounded == scale:
        return scale, float(weights[1]) - scale * centre
    # the loss is convex, so its least value within the bounds is on the one that was passed
    scaled = bounded * logits
    low, high = scipy.special.logit(target.min()) - scaled.max(), scipy.special.logit(target.max()) - scaled.min()

    def slope(shift: float) -> float:
        return float((scipy.special.expit(scaled + shift) - target).sum())

    return bounded, float(scipy.optimize.brentq(slope, low, high, xtol=1e-10))


def choose_calibration(
    logits: FloatArray, labels: BoolArray, *, folds: int = 5, seed: int = 0, known: BoolArray | None = None
) -> Literal["temperature", "platt"]:
    """Name the calibration that predicts films it was not fitted on better, by cross-validated likelihood.

    Platt scaling has two numbers a genre to fit, so it wins if there are enough films for them, and if training
    has shifted the genres apart, as pos_weight does.

    Args:
        logits: Raw, (films, genres).
        labels: bool, the same shape.
        folds: Number of folds of the cross-validation.
        seed: Random seed of the assignment of films to folds.
        known: bool (films, genres): labels that are known; None for all.
    """
    folds = min(folds, len(logits))
    if folds < 2:
        return "temperature"
    fold = np.random.default_rng(seed).permutation(len(logits)) % folds
    loss = {"temperature": 0.0, "platt": 0.0}
    for held in range(folds):
        rest, unseen = fold != held, fold == held
        of_rest, of_unseen = (None, None) if known is None else (known[rest], known[unseen])
        temperature = fit_temperature(*known_pairs(of_rest, logits[rest], labels[rest]))
        fitted = {
            "temperature": calibrated_probabilities(logits[unseen], temperature),
            "platt": calibrated_probabilities(logits[unseen], platt=fit_platt(logits[rest], labels[rest], of_rest)),
        }
        for name, probabilities in fitted.items():
            loss[name] += float(np.nansum(film_cross_entropy(labels[unseen], probabilities, of_unseen)))
    return "platt" if loss["platt"] < loss["temperature"] else "temperature"
