"""What the data and the models both need: batches, how they are laid out, and what a model must know of the data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

Batch = dict[str, "Tensor"]
"""input_ids int64 (rows, tokens), attention_mask int64 (rows, tokens), labels float32 (rows, genres),
known float32 (rows, genres): 0 for a label that is not known, and not there if all are;
teacher float32 (rows, genres): log-odds of a model whose probabilities are kept, if there is one;
weights float32 (rows,): what a film counts in the loss, mostly 1, and 0 for a row that only keeps a collective company,
index int64 (rows,): position of the film in its split, -1 for such a row,
step_films float32 (): films of the whole optimizer step.
A packed batch has input_ids (1, tokens) and no attention_mask; see `pack_rows` for what it has instead. Its labels,
weights and index have a row for each text all the same."""

INPUT = "input:"
"""Beginning of the names of the head's inputs in a batch. Tags and categories are int64 (rows, most of a film): numbers
of `FittedInput.values` from 2 on, 1 for an unknown one, 0 for none. Others are float32 (rows, size + 1): standardised
numbers with a 1 behind them, or all 0 if the input is missing."""

Layout = Literal["padded", "packed"]
"""How the texts of a micro-batch are laid out: padded to the longest of them, or one behind another."""


@dataclass(frozen=True)
class FittedInput:
    """An input of the head, as fitted on the training films.

    Attributes:
        name: The feature's column.
        kind: "tags", "category", "number", "date" or "vector".
        values: Of tags and categories: those that are known by name, the most frequent first.
        log: Whether the logarithm of 1 + the number was taken.
        mean: Of each number of the others.
        std: Likewise, never 0.
    """

    name: str
    kind: str
    values: tuple[str, ...] = ()
    log: bool = False
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()

    @property
    def is_named(self) -> bool:
        """Whether its values are names."""
        return self.kind in ("tags", "category")

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> FittedInput:
        """Return the input of what `dataclasses.asdict` gave, perhaps by way of JSON."""
        values: dict[str, Any] = {n: tuple(v) if isinstance(v, list | tuple) else v for n, v in content.items()}
        return cls(**values)


@dataclass(frozen=True)
class DataSpec:
    """What a model must know of the data before it can be built.

    Attributes:
        genres: Names, in the order of the columns of the labels.
        positives: int64 (genres,): training films that have each genre.
        films: Training films.
        vocab_size: Tokens that the tokenizer knows.
        pad_token_id: Of the tokenizer.
        max_tokens: Of a text.
        tokenizer: For models that add words of their own to the texts.
        inputs: Of the head, beside the text.
        known: int64 (genres,): training films whose label of the genre is known; None if all are.
    """

    genres: tuple[str, ...]
    positives: NDArray[np.int64]
    films: int
    vocab_size: int
    pad_token_id: int
    max_tokens: int
    tokenizer: PreTrainedTokenizerBase | None = None
    inputs: tuple[FittedInput, ...] = ()
    known: NDArray[np.int64] | None = None


@runtime_checkable
class TextReader(Protocol):
    """What the data must know of the model that reads it."""

    @property
    def layout(self) -> Layout:
        """How batches are laid out for the model."""

    @property
    def tokenizer_source(self) -> str | None:
        """Model of the hub or directory with the backbone's tokenizer; None if one is trained on the texts."""

    @property
    def tokenizer_revision(self) -> str | None:
        """Commit or tag of that on the hub."""

    @property
    def seed(self) -> int:
        """Random seed of the training, and so of the order of the films."""


LOSSES = ("bce", "focal", "asymmetric", "zlpr")


LossFunction = Callable[..., Any]
"""From logits and targets (films, genres) and pos_weight (genres,) or None to (films,), all tensors; and from `known`
(films, genres), 0 for labels that are not known and do not count, if some are not."""


PosWeight = Literal["full", "sqrt", "none"]
