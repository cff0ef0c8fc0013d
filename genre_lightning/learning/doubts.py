"""Doubtful labels: genres that are probably wrong or missing, by the self-confidence of confident learning.

The score of a film's label y for a genre is the probability that the run gives it, p if the film has the genre and
1 - p if not (Northcutt, Jiang and Chuang, "Confident learning", 2021; for several labels Thyagarajan et al., 2022, who
score each genre as a problem of two classes). It needs probabilities of films that the run was not trained on:
validation and test. cleanlab's `get_label_quality_scores` gives the same for one genre, which a test compares.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from genre_lightning.escapes import join_names
from genre_lightning.evaluation.predictions import StoredPredictions
from genre_lightning.evaluation.runs import Run
from genre_lightning.metrics import BoolArray, FloatArray

Kind = Literal["wrong", "missing"]


@dataclass(frozen=True)
class Doubt:
    """A label that is probably an error.

    Attributes:
        id: Of the film.
        title: Of the film.
        text: That the run read.
        split: That the film is in.
        genre: In doubt.
        kind: "wrong" for a genre that the film has, "missing" for one that it has not.
        score: Probability that the label is right, by the run.
        labels: Genres of the film in its file.
        predicted: Genres by the run.
    """

    id: str
    title: str
    text: str
    split: str
    genre: str
    kind: Kind
    score: float
    labels: tuple[str, ...]
    predicted: tuple[str, ...]

    def row(self) -> dict[str, Any]:
        """Give a row of the CSV."""
        names = {"labels": join_names(self.labels), "predicted": join_names(self.predicted)}
        return {**vars(self), "score": round(self.score, 4), **names}

    @property
    def film(self) -> str:
        """The title, or the beginning of the text."""
        return self.title or self.text[:40]

    def shown(self) -> dict[str, Any]:
        """Give a row of the report."""
        names = ("id", "split", "genre", "kind", "score")
        row = {name: getattr(self, name) for name in names}
        return {**row, "film": self.film, "labels": list(self.labels), "predicted": list(self.predicted)}


def self_confidence(labels: BoolArray, probabilities: FloatArray) -> NDArray[np.float64]:
    """Give the probability of each label, (films, genres): low for a doubtful one."""
    wide = np.asarray(probabilities, dtype=np.float64)
    return np.where(labels, wide, 1 - wide)


def find_doubts(run: Run, count: int, kind: Kind | None = None) -> list[Doubt]:
    """List the most doubtful labels of a run's validation and test films, the most doubtful first.

    Args:
        run: That has been evaluated on validation.
        count: Labels to list.
        kind: Only these; None for both.

    Raises:
        CheckpointError: The predictions are missing or damaged.
    """
    # in the paper's protocol both splits hold the same films
    splits = [name for name in ("validation", "test") if run.has(name)][: 1 if run.test_is_validation else 2]
    found: list[Doubt] = []
    for split in splits:
        found += _doubts(run.predictions(split), split, count, kind)
    return sorted(found, key=lambda doubt: doubt.score)[:count]


def _doubts(stored: StoredPredictions, split: str, count: int, kind: Kind | None) -> list[Doubt]:
    films, labels = stored.predictions, stored.predictions.labels
    scores = self_confidence(labels, stored.probabilities)
    if films.known is not None:
        scores = np.where(films.known, scores, np.inf)
    if kind is not None:
        scores = np.where(labels == (kind == "wrong"), scores, np.inf)
    doubts = []
    for place in np.argsort(scores, axis=None, kind="stable")[:count].tolist():
        film, genre = divmod(place, len(films.genres))
        if not np.isfinite(scores[film, genre]):
            break
        doubts.append(
            Doubt(
                id=str(films.ids[film]),
                title=films.titles[film],
                text=films.texts[film],
                split=split,
                genre=films.genres[genre],
                kind="wrong" if labels[film, genre] else "missing",
                score=float(scores[film, genre]),
                labels=_names(films.genres, labels[film]),
                predicted=_names(films.genres, stored.decided[film]),
            )
        )
    return doubts


def _names(genres: Sequence[str], chosen: BoolArray) -> tuple[str, ...]:
    return tuple(genres[place] for place in np.flatnonzero(chosen).tolist())
