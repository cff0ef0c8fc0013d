"""Exact explanations of models that count words: their log-odds are a sum over the words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genre_lightning.data.features.encode import EncodedInputs
from genre_lightning.data.features.matrix import input_matrix
from genre_lightning.explain.attribution import Attribution
from genre_lightning.explain.words import split_words
from genre_lightning.models.tfidf import TfidfBaseline


class TermAttributor:
    """Explains a TF-IDF baseline by the weights of its terms.

    Args:
        model: trained.
    """

    def __init__(self, model: TfidfBaseline) -> None:
        self.model = model
        self.baseline = "an empty text" + (" without inputs" if model.fitted().inputs else "")

    def attribute(self, text: str, genres: Sequence[int], inputs: EncodedInputs | None = None) -> Attribution:
        """See `Attributor`."""
        columns = list(genres)
        words = split_words(text)
        starts, ends, values = self.model.contributions(text)
        added, missing = self.model.input_contributions(input_matrix(inputs))
        return Attribution(
            words=words,
            read=len(text),
            values=words.sum_by_word(starts, ends, values[:, columns]),
            log_odds=self.model.logits([text], input_matrix(inputs))[0, columns].astype(np.float64),
            baseline=self.model.fitted().bias[columns].astype(np.float64) + missing[columns],
            steps=np.zeros(len(columns), dtype=np.int64),
            inputs={name: values[columns] for name, values in added.items()},
        )
