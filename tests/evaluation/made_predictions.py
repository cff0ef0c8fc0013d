"""Made-up predictions with the shape of real ones: frequent and rare genres, logits that know something."""

import numpy as np

from genre_lightning.evaluation.decisions import Decision
from genre_lightning.evaluation.predictions import Predictions

GENRES = ("Drama", "Comedy", "Horror", "War", "Western")
SHIFTS = np.array([0.3, -0.4, -1.8, -3.0, -3.6])


def make_predictions(seed=0, films=300, genres=GENRES, noise=0.0):
    rng = np.random.default_rng(seed)
    truth = rng.normal(0, 1.6, (films, len(genres))) + np.resize(SHIFTS, len(genres))
    labels = rng.random(truth.shape) < 1 / (1 + np.exp(-truth))
    logits = 1.8 * truth + 0.5 + noise * rng.normal(size=truth.shape)
    return Predictions(
        genres=genres,
        ids=np.arange(films) + 100,
        titles=[f"Film {i}" for i in range(films)],
        texts=[" ".join(["A word"] * (1 + i % 40)) + "." for i in range(films)],
        labels=labels,
        logits=logits.astype(np.float32),
    )


def default_decision(genres):
    """The decision of a model without a fitted one: no calibration and 0.5 everywhere."""
    return Decision(genres, temperature=1.0, threshold_global=0.5, threshold_per_genre=np.full(len(genres), 0.5))
