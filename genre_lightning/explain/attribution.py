"""What an explanation of any kind of model gives, and the measure of its completeness."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from genre_lightning.explain.words import Words

LARGEST_STEPS = 10_000
"""Of an integral: twenty times those at which the doubling ends, and some minutes for a text."""


@dataclass(frozen=True)
class Attribution:
    """What the words of a text add to the log-odds of some genres.

    Attributes:
        words: of the text.
        read: characters of the text that the model reads; the rest is cut.
        values: float64 (words, genres): log-odds of each word.
        log_odds: float64 (genres,): of the text.
        baseline: float64 (genres,): log-odds of what the text is compared with.
        steps: int64 (genres,): points of the path at which gradients were taken; 0 where the values are exact.
    """

    words: Words
    read: int
    values: NDArray[np.float64]
    log_odds: NDArray[np.float64]
    baseline: NDArray[np.float64]
    steps: NDArray[np.int64]

    @property
    def errors(self) -> NDArray[np.float64]:
        """By how much the words' sum misses the change from baseline to text, float64 (genres,), not negative."""
        return np.abs(self.values.sum(axis=0) - (self.log_odds - self.baseline))

    def calibrated(self, scale: NDArray[np.float64], shift: NDArray[np.float64]) -> Attribution:
        """Return the same of calibrated log-odds, which are `scale * log-odds + shift`, (genres,) each."""
        return Attribution(
            self.words,
            self.read,
            self.values * scale,
            self.log_odds * scale + shift,
            self.baseline * scale + shift,
            self.steps,
        )


class Attributor(Protocol):
    """Explains the raw log-odds of a model.

    Attributes:
        baseline: what a text is compared with, in words.
    """

    baseline: str

    def attribute(self, text: str, genres: Sequence[int]) -> Attribution:
        """Explains a text that is not empty.

        Args:
            text: what the model reads.
            genres: columns of the logits.
        """
