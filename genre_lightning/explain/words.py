"""The words of a text, and what tokens say of it summed by word."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# compounds and contractions are one word, a run of punctuation is one
_WORD = re.compile(r"\w+(?:['’-]\w+)*|[^\w\s]+")
_POSSESSIVE = re.compile(r"'s$")


@dataclass(frozen=True)
class Words:
    """Where the words and the runs of punctuation of a text stand, in their order.

    Attributes:
        text: that they are of.
        starts: int64 (words,): first character of each.
        ends: int64 (words,): character behind each.
    """

    text: str
    starts: NDArray[np.int64]
    ends: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def names(self) -> list[str]:
        """The words as they stand in the text."""
        return [self.text[start:end] for start, end in zip(self.starts, self.ends, strict=True)]

    def sum_by_word(self, places: NDArray[np.int64], values: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums what parts of words say.

        A part counts for the first word that ends behind its place, as a piece may begin with the space before its
        word; at the end of the text, for the last one.

        Args:
            places: int64 (parts,): first character of each.
            values: (parts, columns).

        Returns:
            (words, columns).
        """
        summed = np.zeros((len(self), values.shape[1]))
        if len(self):
            word = np.searchsorted(self.ends, places, side="right")
            np.add.at(summed, np.minimum(word, len(self) - 1), values)
        return summed


def split_words(text: str) -> Words:
    """Finds the words of a text."""
    spans = np.array([match.span() for match in _WORD.finditer(text)], dtype=np.int64).reshape(-1, 2)
    return Words(text, spans[:, 0], spans[:, 1])


def common_form(word: str) -> str | None:
    """What the forms of a word are counted under: without case and possessive s; None for what has no letter."""
    folded = _POSSESSIVE.sub("", word.casefold().replace("’", "'"))
    return folded if any(character.isalpha() for character in folded) else None
