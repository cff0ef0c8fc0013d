"""Exact explanations of models that count words: their log-odds are a sum over the words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from genre_lightning.data.features.encode import EncodedInputs
from genre_lightning.data.features.matrix import input_matrix
from genre_lightning.explain.attribution import Attribution
from genre_lightning.explain.words import split_words
from genre_lightning.models.linear import column_count, missing_columns
from genre_lightning.models.tfidf import TfidfBaseline


class TermAttributor:
    """Explains a TF-IDF baseline by the weights of its terms.

    Args:
        model: Trained.
    """

    def __init__(self, model: TfidfBaseline) -> None:
        self.model = model
        self.baseline = "an empty text" + (" without inputs" if model.fitted().inputs else "")

    def attribute(self, text: str, genres: Sequence[int], inputs: EncodedInputs | None = None) -> Attribution:
        """See `Attributor`."""
        columns = list(genres)
        words = split_words(text)
        starts, ends, values = self.model.contributions(text)
        added, missing = self._inputs(inputs)
        return Attribution(
            words=words,
            read=len(text),
            values=words.sum_by_word(starts, ends, values[:, columns]),
            log_odds=self.model.logits([text], input_matrix(inputs))[0, columns].astype(np.float64),
            baseline=self.model.fitted().bias[columns].astype(np.float64) + missing[columns],
            steps=np.zeros(len(columns), dtype=np.int64),
            inputs={name: values[columns] for name, values in added.items()},
        )

    def _inputs(self, inputs: EncodedInputs | None) -> tuple[dict[str, NDArray[np.float64]], NDArray[np.float64]]:
        """Return the log-odds that each input adds to those of a film without inputs, and those of missing inputs."""
        linear = self.model.fitted()
        missing = missing_columns(linear.inputs, 1).astype(np.float64)
        weights = self.model.input_weight * linear.weights[len(linear.terms) :].astype(np.float64)
        matrix = input_matrix(inputs)
        added, end = {}, 0
        for one in linear.inputs:
            assert matrix is not None
            start, end = end, end + column_count(one)
            added[one.name] = ((matrix - missing)[:, start:end] @ weights[start:end])[0]
        return added, (missing @ weights)[0]
