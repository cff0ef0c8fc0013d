"""The words of a text, and token attributions summed by word."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

# Over the kinds of a text's characters, see `_kind`. Compounds and contractions are one word, a run of punctuation is
# one. Scripts that put no space between words fall into what a reader takes for a unit without a dictionary: an
# ideograph or a kana; in Thai and its relatives a consonant with the vowels and marks that belong to it.
_WORD = re.compile(r"im*|l?u[mf]*|w[wm]*(?:a[wm]+)*|[aplmf]+")
_WITHOUT_SPACES = ("THAI ", "LAO ", "KHMER ", "MYANMAR ", "TIBETAN ")
_BEFORE = frozenset("เแโใไເແໂໃໄ")
"""Vowels of Thai and Lao that are written before their consonant."""
_BEHIND = frozenset("ะาำๅๆฯะາຳໆຯ")
"""Vowels and signs of Thai and Lao that are letters, and belong to what stands before them."""
_POSSESSIVE = re.compile(r"'s$")


@dataclass(frozen=True)
class Words:
    """Where the words and the runs of punctuation of a text stand, in their order.

    Attributes:
        text: Text that the words are of.
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

    def sum_by_word(
        self, starts: NDArray[np.int64], ends: NDArray[np.int64], values: NDArray[np.float64]
    ) -> NDArray[np.float64]:
        """Sum attributions of parts of a text by its words.

        A part counts for the first word that ends behind its start, as a piece may begin with the space before its
        word; at the end of the text, for the last one. One that covers several words gives each an equal part.

        Args:
            starts: int64 (parts,): first character of each.
            ends: int64 (parts,): character behind each.
            values: (parts, columns).

        Returns:
            (words, columns).
        """
        summed = np.zeros((len(self), values.shape[1]))
        if not len(self):
            return summed
        first = np.minimum(np.searchsorted(self.ends, starts, side="right"), len(self) - 1)
        behind = np.maximum(np.searchsorted(self.starts, ends, side="left"), first + 1)
        for word, end, value in zip(first, behind, values, strict=True):
            summed[word:end] += value / (end - word)
        return summed


def split_words(text: str) -> Words:
    """Find the words of a text."""
    kinds = "".join(map(_kind, text))
    spans = np.array([match.span() for match in _WORD.finditer(kinds)], dtype=np.int64).reshape(-1, 2)
    return Words(text, spans[:, 0], spans[:, 1])


@lru_cache(maxsize=4096)
def _kind(character: str) -> str:
    """Return the class of a character as a letter.

    `i` an ideograph or kana; `u` a letter of a script without spaces, `l` a vowel before it, `f` one behind it;
    `w` another letter, digit or underscore; `m` a mark or joiner; `a` an apostrophe or hyphen; `p` other punctuation;
    a space for white space.
    """
    if character.isspace():
        return " "
    if character in "'’-":
        return "a"
    if character in "\u200c\u200d" or unicodedata.category(character).startswith("M"):
        return "m"
    if character in _BEFORE:
        return "l"
    if character in _BEHIND:
        return "f"
    if not (character.isalnum() or character == "_"):
        return "p"
    name = unicodedata.name(character, "")
    if name.startswith(("CJK ", "HIRAGANA LETTER")):
        return "i"
    return "u" if character.isalpha() and name.startswith(_WITHOUT_SPACES) else "w"


def common_form(word: str) -> str | None:
    """Return what the forms of a word are counted under: without case and possessive s; None for what has no letter."""
    folded = _POSSESSIVE.sub("", word.casefold().replace("’", "'"))
    return folded if any(character.isalpha() for character in folded) else None
