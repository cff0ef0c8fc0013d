"""Whether a text reads like the films that a run was evaluated on, in their language and script or not at all."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from genre_lightning.files import read_parquet

_FREQUENT_WORDS = 150
_FEWEST_WORDS = 12
_FEWEST_LETTERS = 12
_LEAST_SHARE = 0.12
"""Of a text's words that are frequent ones."""
_RARE_LETTER = 1e-4
"""Fraction of all letters below which one is foreign."""
_SAMPLE_TEXTS = 2000


@dataclass(frozen=True)
class Familiar:
    """What texts of a language share: the words that hold its sentences together, and its letters.

    Attributes:
        words: The most frequent ones.
        letters: Those that are not rare.
    """

    words: frozenset[str]
    letters: frozenset[str]

    @classmethod
    def of_texts(cls, texts: Iterable[str]) -> Familiar:
        """Count words and letters."""
        words: Counter[str] = Counter()
        letters: Counter[str] = Counter()
        for text in texts:
            words.update(words_in(text))
            letters.update(filter(str.isalpha, text.casefold()))
        total = letters.total()
        return cls(
            frozenset(word for word, _ in words.most_common(_FREQUENT_WORDS)),
            frozenset(letter for letter, count in letters.items() if count >= _RARE_LETTER * total),
        )

    def unlike(self, text: str) -> bool:
        """Return whether a text is written in other letters, or is long and holds hardly any of the frequent words."""
        letters = [letter for letter in text.casefold() if letter.isalpha()]
        if len(letters) >= _FEWEST_LETTERS and sum(letter in self.letters for letter in letters) < len(letters) / 2:
            return True
        words = words_in(text)
        return len(words) >= _FEWEST_WORDS and sum(word in self.words for word in words) < _LEAST_SHARE * len(words)


def familiar_of(predictions: Path) -> Familiar | None:
    """Return what the texts of a predictions.parquet share; None without the file."""
    if not predictions.is_file():
        return None
    texts = read_parquet(predictions, ["text"])["text"].slice(0, _SAMPLE_TEXTS).to_pylist()
    return Familiar.of_texts(texts)


def words_in(text: str) -> list[str]:
    """Give the words of a text, casefolded; numbers are none."""
    return re.findall(r"[^\W\d_]+", text.casefold())
