"""Predictions of a split under a decision: what all metrics, tables and plots of an evaluation are computed from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from genre_lightning.config.decision import POLICIES
from genre_lightning.evaluation.calibration import calibrated_probabilities
from genre_lightning.evaluation.decisions import Decision
from genre_lightning.evaluation.predictions import Predictions
from genre_lightning.metrics import BoolArray, judged


@dataclass(frozen=True, eq=False)
class ScoredSplit:
    """Predictions and the decision on them; probabilities and decided genres are computed once, when asked for.

    Raises:
        DataError: The decision is of another vocabulary.
    """

    predictions: Predictions
    decision: Decision

    def __post_init__(self) -> None:
        self.predictions.require_genres(self.decision.genres)

    @property
    def labels(self) -> BoolArray:
        """The truth, (films, genres)."""
        return self.predictions.labels

    @property
    def known(self) -> BoolArray | None:
        """The labels that are known, (films, genres); None if all are."""
        return self.predictions.known

    @cached_property
    def uncalibrated(self) -> NDArray[np.float32]:
        """Probabilities of the raw logits, (films, genres)."""
        return calibrated_probabilities(self.predictions.logits)

    @cached_property
    def probabilities(self) -> NDArray[np.float32]:
        """Calibrated probabilities, (films, genres)."""
        return self.decision.probabilities(self.predictions.logits)

    @cached_property
    def decided(self) -> dict[str, BoolArray]:
        """The genres that each policy gives each film, (films, genres)."""
        return {policy: self.decision.decide(self.probabilities, policy) for policy in POLICIES}

    @cached_property
    def judged(self) -> dict[str, BoolArray]:
        """The decisions that can be right or wrong: those of known labels, (films, genres)."""
        return {policy: judged(chosen, self.known) for policy, chosen in self.decided.items()}
