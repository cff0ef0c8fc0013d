"""Exact explanations of models that count words: their log-odds are a sum over the words."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from genre_lightning.explain.attribution import Attribution
from genre_lightning.explain.words import split_words
from genre_lightning.models.tfidf import TfidfBaseline


class TermAttributor:
    """Explains a TF-IDF baseline by the weights of its terms.

    Args:
        model: trained.
    """

    baseline = "an empty text"

    def __init__(self, model: TfidfBaseline) -> None:
        self.model = model

    def attribute(self, text: str, genres: Sequence[int]) -> Attribution:
        """See `Attributor`."""
        columns = list(genres)
        words = split_words(text)
        starts, ends, values = self.model.contributions(text)
        return Attribution(
            words=words,
            read=len(text),
            values=words.sum_by_word(starts, ends, values[:, columns]),
            log_odds=self.model.logits([text])[0, columns].astype(np.float64),
            baseline=self.model.fitted().bias[columns].astype(np.float64),
            steps=np.zeros(len(columns), dtype=np.int64),
        )
