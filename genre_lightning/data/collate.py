"""Samples to one tensor batch: texts of like length padded to the longest of them, or packed into one row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from genre_lightning.data.features.encode import EncodedInputs
from genre_lightning.data.steps import Indices, MicroBatch
from genre_lightning.data.tokens import TokenLists, TokenStore
from genre_lightning.types import Batch, Layout


@dataclass(frozen=True)
class Padding:
    """What fills a batch up.

    Attributes:
        token: Id of the pad token.
        left: Pad before the text rather than after it.
        filler: Token ids of the one row of a batch without films.
    """

    token: int
    left: bool = False
    filler: tuple[int, ...] = (0,)


class TokenisedFilms(Dataset[Batch]):
    """The films of a split; an item is the whole batch for a `MicroBatch`.

    Args:
        store: Token ids of all films of the file's subset.
        films: Positions in the store of the split's films.
        labels: bool (films of the split, genres), or None if they are not known.
        padding: See `Padding`.
        layout: "padded" texts, or "packed" ones for models that keep the texts of a row apart.
        inputs: Inputs of the head for all films of the store; None if there are none.
        known: bool (films of the split, genres): the labels that are known; None if all are.
        teacher: float32 (films of the split, genres): log-odds of another model, NaN for genres that it does not know.
        weights: float32 (films of the split,): of the films in the loss, above 0; None for 1.
    """

    def __init__(
        self,
        store: TokenStore | TokenLists,
        films: Indices,
        labels: NDArray[np.bool_] | None,
        padding: Padding,
        layout: Layout = "padded",
        inputs: EncodedInputs | None = None,
        known: NDArray[np.bool_] | None = None,
        teacher: NDArray[np.float32] | None = None,
        weights: NDArray[np.float32] | None = None,
    ) -> None:
        self.weights = weights
        self.teacher = teacher
        self.known = known
        self.inputs = inputs
        self.store = store
        self.films = films
        self.labels = labels
        self.padding = padding
        self.layout = layout

    def __len__(self) -> int:
        return len(self.films)

    @property
    def lengths(self) -> NDArray[np.int32]:
        """int32 (films of the split,): tokens of each."""
        return self.store.lengths[self.films]

    def __getitem__(self, batch: MicroBatch) -> Batch:
        rows = [self.store[self.films[film]] for film in batch.films]
        real = len(rows) > 0
        rows = rows or [np.asarray(self.padding.filler, dtype=np.int32)]
        if self.layout == "packed":
            tensors = pack_rows(rows)
        else:
            tensors = dict(zip(("input_ids", "attention_mask"), pad_rows(rows, self.padding), strict=True))
        item = {
            **{name: torch.from_numpy(values) for name, values in tensors.items()},
            "weights": torch.full((len(rows),), float(real)),
            "index": torch.from_numpy(batch.films.astype(np.int64)) if real else torch.full((1,), -1),
            "step_films": torch.tensor(float(batch.step_films)),
        }
        if self.inputs is not None:
            arrays = self.inputs.batch(self.films[batch.films])
            item |= {name: torch.from_numpy(values) for name, values in arrays.items()}
        if self.labels is not None:
            genres = self.labels.shape[1]
            item["labels"] = (
                torch.from_numpy(self.labels[batch.films].astype(np.float32)) if real else torch.zeros(1, genres)
            )
        if self.known is not None:
            item["known"] = (
                torch.from_numpy(self.known[batch.films].astype(np.float32))
                if real
                else torch.zeros(1, self.known.shape[1])
            )
        if self.weights is not None and real:
            item["weights"] = torch.from_numpy(self.weights[batch.films])
        if self.teacher is not None:
            of_films = self.teacher[batch.films] if real else np.zeros((1, self.teacher.shape[1]), dtype=np.float32)
            item["teacher"] = torch.from_numpy(of_films)
        return item


def pad_rows(rows: list[NDArray[np.int32]], padding: Padding) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pad token rows to the longest.

    Returns:
        Token ids and attention mask, both int64 (rows, tokens of the longest).
    """
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    width = int(lengths.max())
    places = np.arange(width)
    mask = (places >= (width - lengths)[:, None]) if padding.left else (places < lengths[:, None])
    tokens = np.full((len(rows), width), padding.token, dtype=np.int64)
    tokens[mask] = np.concatenate(rows)
    return tokens, mask.astype(np.int64)


def pack_rows(rows: list[NDArray[np.int32]]) -> dict[str, NDArray[np.int64]]:
    """Lay token rows one behind another, without padding.

    Returns:
        All int64: input_ids (1, tokens); position_ids (1, tokens), from 0 in each text; last_tokens (texts,), where
        each text ends; slots (texts, longest), the token at each place of each text, and past a text's end its last
        one; places (tokens,), where each token stands in the flattened slots.
    """
    lengths = np.fromiter((len(row) for row in rows), dtype=np.int64, count=len(rows))
    last = lengths.cumsum() - 1
    starts = last - lengths + 1
    places_of_text = np.arange(lengths.max())
    real = places_of_text < lengths[:, None]
    return {
        "input_ids": np.concatenate(rows).astype(np.int64)[None],
        "position_ids": np.broadcast_to(places_of_text, real.shape)[real][None],
        "last_tokens": last,
        "slots": np.minimum(starts[:, None] + places_of_text, last[:, None]),
        "places": np.flatnonzero(real),
    }
