"""Texts with lines of features, each cut to its tokens, so that a long one never pushes out the rest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from genre_lightning.config.features import Feature
from genre_lightning.data.tokens import no_panic

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


def fit_lines(
    texts: Sequence[str], features: Sequence[Feature], tokenizer: PreTrainedTokenizerBase, max_tokens: int
) -> list[str]:
    """Cut the lines of texts to their tokens, and what stands before them to the tokens that are left.

    Args:
        texts: Texts with a line for each feature that has a value, as the template makes them.
        features: Features of the text.
        tokenizer: Tokenizer of the model.
        max_tokens: Maximum number of tokens of a text, special tokens included.
    """
    if not features:
        return list(texts)
    parts = [text.split("\n") for text in texts]
    flat = [part for of_text in parts for part in of_text]
    with no_panic(tokenizer):
        encoded = tokenizer.backend_tokenizer
        encoded.no_truncation()
        encoded.no_padding()
        ends = iter([[end for _, end in e.offsets] for e in encoded.encode_batch(flat, add_special_tokens=False)])
    special = tokenizer.num_special_tokens_to_add()
    made = []
    for of_text in parts:
        first, *lines = [(part, next(ends)) for part in of_text]
        kept, left = [], max_tokens - special
        for line, places in lines:
            limit = _limit(line, features)
            kept.append(_cut(line, places, limit))
            left -= min(len(places), limit)
        made.append("\n".join([_cut(*first, max(left, 0)), *kept]))
    return made


def _limit(line: str, features: Sequence[Feature]) -> int:
    return next((feature.max_tokens for feature in features if line.startswith(feature.line)), features[-1].max_tokens)


def _cut(text: str, ends: Sequence[int], tokens: int) -> str:
    if len(ends) <= tokens:
        return text
    return text[: ends[tokens - 1]] if tokens else ""


class FittedTexts(Sequence[str]):
    """Texts with their lines cut, a few at a time.

    Args:
        texts: Texts as the template makes them.
        features: Features of the text.
        tokenizer: Tokenizer of the model.
        max_tokens: Maximum number of tokens of a text.
    """

    def __init__(
        self, texts: Sequence[str], features: Sequence[Feature], tokenizer: PreTrainedTokenizerBase, max_tokens: int
    ) -> None:
        self.texts = texts
        self.features = features
        self.tokenizer = tokenizer
        self.max_tokens = max_tokens

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, places: Any) -> Any:
        if isinstance(places, slice):
            return fit_lines(self.texts[places], self.features, self.tokenizer, self.max_tokens)
        return fit_lines([self.texts[places]], self.features, self.tokenizer, self.max_tokens)[0]

    def __iter__(self) -> Iterator[str]:
        batch: list[str] = []
        for text in self.texts:
            batch.append(text)
            if len(batch) == _BATCH:
                yield from fit_lines(batch, self.features, self.tokenizer, self.max_tokens)
                batch = []
        yield from fit_lines(batch, self.features, self.tokenizer, self.max_tokens)


_BATCH = 1000
