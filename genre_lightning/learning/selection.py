"""Which films to label next: undecided ones, ones of rare genres, and not all of one kind.

A film's score is the weighted mean of two ranks among all candidates, each from 0 to 1:

- uncertainty, the sum over genres of sech²(m/2) = 4 σ(m) (1 - σ(m)), where m is the distance of the calibrated log-odds
  from the genre's threshold: 1 for a genre that is just at its threshold, 0 for one that is clear;
- gain for rare genres, the sum over genres of p (√(median / films of the genre) - 1) for genres that have fewer
  training films than the median: films that probably have such a genre.

Diversity comes from weighted k-means over the best of them, with as many clusters as films are asked for, of which
each gives its best film (Zhdanov, "Diverse mini-batch active learning", 2019, which takes the one nearest the centre).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import rankdata

from genre_lightning.metrics import FloatArray

POOL = 10
"""Candidates for each film asked for, from which the clusters are made."""

_MOST_RARE = 4.0
"""Largest weight of a rare genre, reached at 1/25 of the median."""
_SAFE = 1e-6
"""Thresholds of 0 and 1 have no log-odds."""
_UNDECIDED = 0.75
"""Uncertainty of a genre that is named as undecided: log-odds within 1.1 of its threshold."""
_LIKELY = 0.1
"""Probability from which a rare genre is named."""


@dataclass(frozen=True)
class Scores:
    """How informative a label of each film would be.

    Attributes:
        uncertainty: Of each genre, (films, genres), from 0 to 1.
        rare: Probability of each genre times its weight, (films, genres).
        score: Of each film, (films,), above 0 to 1.
    """

    uncertainty: FloatArray
    rare: FloatArray
    score: FloatArray


def score_films(log_odds: FloatArray, thresholds: FloatArray, positives: FloatArray, rare_weight: float) -> Scores:
    """Score films.

    Args:
        log_odds: Calibrated, (films, genres).
        thresholds: Of each genre, probabilities, (genres,).
        positives: Training films of each genre, (genres,).
        rare_weight: Weight of the gain for rare genres, from 0 to 1; the rest is that of the uncertainty.
    """
    margins = log_odds - logit(np.clip(thresholds, _SAFE, 1 - _SAFE))
    uncertainty = 1 / np.cosh(np.clip(margins / 2, -300, 300)) ** 2
    weights = np.sqrt(np.median(positives) / np.maximum(positives, 1)) - 1
    rare = expit(log_odds) * np.clip(weights, 0, _MOST_RARE)
    ranks = [rankdata(part.sum(axis=1)) / len(log_odds) for part in (uncertainty, rare)]
    return Scores(uncertainty, rare, (1 - rare_weight) * ranks[0] + rare_weight * ranks[1])


def best_films(scores: FloatArray, count: int) -> NDArray[np.int64]:
    """Return the positions of the films of the highest scores, the highest first; the earlier of equals."""
    return np.argsort(-scores, kind="stable")[:count]


def diverse_films(
    vectors: FloatArray, scores: FloatArray, size: int, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Choose the best film of each of `size` clusters.

    Args:
        vectors: Of the candidates, (candidates, width).
        scores: Of the candidates, above 0.
        size: Films to choose.
        seed: Random seed of the first centres.

    Returns:
        Positions of the films, the highest score first, and for each the number of candidates in its cluster.
    """
    if len(vectors) <= size:
        return best_films(scores, size), np.ones(len(vectors), dtype=np.int64)
    from sklearn.cluster import KMeans

    clusters = min(size, len(np.unique(vectors, axis=0)))
    means = KMeans(clusters, n_init=1, max_iter=50, random_state=seed)
    cluster = means.fit(vectors, sample_weight=scores).labels_
    order = best_films(scores, len(scores))
    _, first = np.unique(cluster[order], return_index=True)
    chosen = order[first]
    if len(chosen) < size:  # candidates with equal vectors share a cluster
        chosen = np.concatenate([chosen, order[~np.isin(order, chosen)][: size - len(chosen)]])
    chosen = chosen[np.argsort(-scores[chosen], kind="stable")]
    return chosen, np.bincount(cluster, minlength=clusters)[cluster[chosen]]


def reason(
    genres: Sequence[str],
    probabilities: FloatArray,
    thresholds: FloatArray,
    positives: FloatArray,
    uncertainty: FloatArray,
    rare: FloatArray,
    like_it: int,
) -> str:
    """Write why a film is in the queue; the arrays are those of the film, (genres,).

    Args:
        genres: Their names.
        probabilities: That the film has them.
        thresholds: Of each genre.
        positives: Training films of each genre.
        uncertainty: See `Scores`.
        rare: See `Scores`.
        like_it: Candidates in its cluster.
    """
    nearest = np.argsort(-uncertainty, kind="stable")[:2]
    undecided = [place for place in nearest if uncertainty[place] >= _UNDECIDED] or list(nearest[:1])
    named = ", ".join(f"{genres[i]} {probabilities[i]:.2f} (threshold {thresholds[i]:.2f})" for i in undecided)
    parts = [f"undecided: {named}" if uncertainty[undecided[0]] >= _UNDECIDED else f"least clear: {named}"]
    rarest = int(np.argmax(rare))
    if rare[rarest] > 0 and probabilities[rarest] >= _LIKELY:
        parts.append(
            f"rare genre: {genres[rarest]} {probabilities[rarest]:.2f} ({int(positives[rarest]):,} training films)"
        )
    if like_it > 1:
        parts.append(f"{like_it:,} candidates are like it")
    return "; ".join(parts)
