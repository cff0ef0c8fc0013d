"""TextDataModule: the texts that an encoder is pretrained on, and no text of validation or test."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from genre_lightning.cache import key_of
from genre_lightning.config.constructors import values
from genre_lightning.config.data import DataOptions
from genre_lightning.data.collate import TokenisedFilms
from genre_lightning.data.datamodule import MovieDataModule, padding_of
from genre_lightning.data.prepare import PreparedData, PreparedFilms, chosen_tokenizer, with_tokens
from genre_lightning.data.texts import LazyTexts
from genre_lightning.data.unlabelled import UnlabelledFilms, films_without_genres
from genre_lightning.types import Batch


class TextDataModule(MovieDataModule):
    """Texts of the training films, and of films without genres, in the steps of a `MovieDataModule`.

    Texts of validation and test are split off as ever, and never tokenised.

    Args:
        options: Of the data.
        unlabelled: Whether films without genres are read too.
    """

    def __init__(self, options: DataOptions, *, unlabelled: bool = True) -> None:
        super().__init__(**values(options))
        self.unlabelled = unlabelled

    def prepare(self) -> PreparedData:
        """Read, audit and split the file, and tokenise the texts to learn from."""
        if self._prepared is None:
            films = self.prepare_films()
            self._without = films_without_genres(self.options, films) if self.unlabelled else None
            self._prepared = _tokenised(self.options, films, self._without, self.tokenizer_name, self.revision)
        return self._prepared

    def dataset(self, split: str) -> TokenisedFilms:
        """Return the texts as batches without labels; the only split is "train"."""
        if split != "train":
            raise ValueError(f"pretraining reads no film of the {split} split")
        data = self.prepare()
        everything = np.arange(len(data.tokens))
        return TokenisedFilms(data.tokens, everything, None, padding_of(data.tokenizer), self.layout)

    def training_ids(self) -> NDArray[Any]:
        """See `MovieDataModule.training_ids`; films without genres stand behind the others."""
        ids = super().training_ids()
        self.prepare()
        return ids if self._without is None else np.concatenate([ids, self._without.films.ids[self._without.rows]])

    def val_dataloader(self) -> DataLoader[Batch]:
        """Return no batches: the films of validation are not read."""
        return DataLoader([])  # type: ignore[arg-type]  # any sequence is a dataset


class _Joined(Sequence[str]):
    """Two sequences of texts as one, read in a pass."""

    def __init__(self, first: Sequence[str], second: Sequence[str]) -> None:
        self._both = first, second

    def __len__(self) -> int:
        return sum(map(len, self._both))

    def __getitem__(self, place: Any) -> Any:
        first, second = self._both
        return first[place] if place < len(first) else second[place - len(first)]

    def __iter__(self) -> Iterator[str]:
        for texts in self._both:
            yield from texts


def _tokenised(
    options: DataOptions,
    prepared: PreparedFilms,
    without: UnlabelledFilms | None,
    tokenizer: str | None,
    revision: str | None,
) -> PreparedData:
    train = prepared.splits["train"]
    chosen = chosen_tokenizer(options, prepared, tokenizer, revision)
    texts: Sequence[str] = LazyTexts(prepared.films, prepared.rows[train.films])
    content: list[Any] = ["pretraining", prepared.content, hashlib.sha256(train.films.tobytes()).hexdigest()]
    counts = {"training_films": len(texts), "films_without_genres": 0, "left_out": 0}
    if without is not None and len(without.rows):
        texts = _Joined(texts, LazyTexts(without.films, without.rows))
        content += [without.films.digest, hashlib.sha256(without.rows.tobytes()).hexdigest()]
        counts |= {"films_without_genres": len(without.rows), "left_out": without.held_out}
    audited = replace(prepared, audit={**prepared.audit, "pretraining": counts})
    return with_tokens(options, audited, chosen, texts, key_of(content))
