"""What an explanation of any kind of model gives, and the measure of its completeness."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from genre_lightning.data.features.encode import EncodedInputs
from genre_lightning.explain.words import Words

LARGEST_STEPS = 10_000
"""Of an integral: twenty times those at which the doubling ends, and some minutes for a text."""


@dataclass(frozen=True)
class Attribution:
    """What the words of a text, and the inputs of the head beside it, add to the log-odds of some genres.

    Attributes:
        words: Words of the text.
        read: Characters of the text that the model reads; the rest is cut.
        values: float64 (words, genres): log-odds of each word.
        log_odds: float64 (genres,): of the text.
        baseline: float64 (genres,): log-odds of what the text is compared with.
        steps: int64 (genres,): points of the path at which gradients were taken; 0 if the values are exact.
        inputs: Log-odds that each input adds, float64 (genres,).
    """

    words: Words
    read: int
    values: NDArray[np.float64]
    log_odds: NDArray[np.float64]
    baseline: NDArray[np.float64]
    steps: NDArray[np.int64]
    inputs: Mapping[str, NDArray[np.float64]] = field(default_factory=dict)

    @property
    def errors(self) -> NDArray[np.float64]:
        """By how much the sum of words and inputs misses the change from the baseline, float64 (genres,), from 0 on."""
        added = self.values.sum(axis=0) + sum(self.inputs.values(), np.zeros(len(self.log_odds)))
        return np.abs(added - (self.log_odds - self.baseline))

    def calibrated(self, scale: NDArray[np.float64], shift: NDArray[np.float64]) -> Attribution:
        """Return the same of calibrated log-odds, which are `scale * log-odds + shift`, (genres,) each."""
        return Attribution(
            self.words,
            self.read,
            self.values * scale,
            self.log_odds * scale + shift,
            self.baseline * scale + shift,
            self.steps,
            {name: values * scale for name, values in self.inputs.items()},
        )


class Attributor(Protocol):
    """Explains the raw log-odds of a model.

    Attributes:
        baseline: What a text is compared with, in words.
    """

    baseline: str

    def attribute(self, text: str, genres: Sequence[int], inputs: EncodedInputs | None = None) -> Attribution:
        """Explain a text, and the inputs beside it, of which at least one is not empty.

        Args:
            text: What the model reads.
            genres: Columns of the logits.
            inputs: This film's inputs of the head; None if the head has none.
        """
