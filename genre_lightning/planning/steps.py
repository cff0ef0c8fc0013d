"""The work of a run: lengths of its texts, and its steps with their micro-batches as the sampler will cut them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genre_lightning.data.datamodule import MovieDataModule
from genre_lightning.data.films import FilmTable
from genre_lightning.data.prepare import PreparedFilms
from genre_lightning.data.steps import (
    Layout,
    epoch_order,
    films_of_step,
    micro_batches_per_step,
    planned_epochs,
    shares_of_step,
    steps_per_epoch,
)
from genre_lightning.errors import ConfigError
from genre_lightning.planning.report import LengthsReport
from genre_lightning.planning.setting import BatchShape

_TOKENS_A_CHARACTER = {"encoder": 0.216, "decoder": 0.249}
"""Of overviews in English: 20,762 of The Movies Dataset in BERT's uncased vocabulary, and in Llama 2's."""

_SPECIAL_TOKENS = {"encoder": 2, "decoder": 1}


@dataclass(frozen=True)
class Texts:
    """The films of a plan, and how long their texts are.

    Attributes:
        films: Audit and splits.
        lengths: int32 (films in use,): tokens, after the cut.
        estimated: Reason why lengths are estimated from characters, without a tokenizer; None if they are counted.
        vocab_size: Vocabulary size of the tokenizer; None if there is none.
        pad_token_id: Pad token of the tokenizer; None if there is none.
    """

    films: PreparedFilms
    lengths: NDArray[np.int32]
    estimated: str | None
    vocab_size: int | None
    pad_token_id: int

    def report(self, max_tokens: int) -> LengthsReport:
        """Return the statistics of the lengths, all films in use together."""
        lengths = self.lengths
        return LengthsReport(
            mean=round(float(lengths.mean()), 1),
            median=int(np.median(lengths)),
            p95=int(np.percentile(lengths, 95)),
            longest=int(lengths.max()),
            at_limit=int((lengths == max_tokens).sum()),
            max_tokens=max_tokens,
            estimated=self.estimated,
        )


def read_texts(data: MovieDataModule, *, decoder: bool) -> Texts:
    """Read and split the films, and tokenise them if the tokenizer is at hand.

    Raises:
        DataError: The file is not what it should be.
    """
    films = data.prepare_films()
    try:
        prepared = data.prepare()
    except ConfigError as error:
        kind = "decoder" if decoder else "encoder"
        lengths = _estimated_lengths(films.films, films.rows, kind, data.options.max_tokens)
        return Texts(films, lengths, str(error), None, 0)
    tokenizer = prepared.tokenizer
    return Texts(films, prepared.tokens.lengths, None, len(tokenizer), tokenizer.pad_token_id or 0)


def _estimated_lengths(films: FilmTable, rows: NDArray[np.int64], kind: str, max_tokens: int) -> NDArray[np.int32]:
    texts = films.strings("text", rows)
    characters = np.fromiter(map(len, texts), dtype=np.int64, count=len(rows))
    tokens = _SPECIAL_TOKENS[kind] + np.ceil(characters * _TOKENS_A_CHARACTER[kind])
    return np.minimum(tokens, max_tokens).astype(np.int32)


@dataclass(frozen=True)
class StepPlan:
    """The steps of a run.

    Attributes:
        films: Number of films of the training split.
        steps: Number of steps in an epoch.
        epochs: Maximum number of epochs.
        total_steps: Maximum number of steps.
        micro_batches: Micro-batches of a step, on each rank.
        tokens: Real ones of an epoch, over all ranks.
        slots: Tokens of the first epoch with padding.
        tokens_squared: Squared lengths of an epoch's texts.
        largest: Micro-batches of the run, none of which is larger than another in all of its sizes; the one of most
            tokens comes first.
    """

    films: int
    steps: int
    epochs: int
    total_steps: int
    micro_batches: int
    tokens: int
    slots: int
    tokens_squared: float
    largest: tuple[BatchShape, ...]

    @property
    def padding(self) -> float:
        """Fraction of an epoch's slots that hold no token."""
        return 1 - self.tokens / self.slots


def plan_steps(
    lengths: NDArray[np.int32],
    *,
    global_batch_size: int,
    budget: int,
    ranks: int,
    seed: int,
    max_epochs: int | None,
    max_steps: int,
    packed: bool,
    encoder: bool,
    in_groups: bool = False,
) -> StepPlan:
    """Cut the steps of the run as its sampler will.

    Args:
        lengths: Tokens of each film of the training split.
        global_batch_size: Films of a step.
        budget: Tokens of a micro-batch, `data.options.micro_batch_tokens`.
        ranks: Devices in all.
        seed: Random seed of the order of the films.
        max_epochs: The trainer's maximum number of epochs.
        max_steps: The trainer's maximum number of steps.
        packed: Whether texts are laid one behind another.
        encoder: Whether attention needs a mask if texts are padded.
        in_groups: Whether attention takes packed texts in groups of like length.
    """
    steps = steps_per_epoch(len(lengths), global_batch_size)
    epochs, total = planned_epochs(steps, max_epochs, max_steps)
    layout: Layout = "packed" if packed else "padded"
    micro_batches = micro_batches_per_step(
        lengths,
        global_batch_size=global_batch_size,
        budget=budget,
        world_size=ranks,
        seed=seed,
        epochs=epochs,
        layout=layout,
    )
    slots = 0
    shapes: set[BatchShape] = set()
    for epoch in range(epochs):
        order = epoch_order(len(lengths), seed, epoch)
        for step in range(steps):
            films = films_of_step(order, global_batch_size, step)
            shares = shares_of_step(films, lengths, world_size=ranks, micro_batches=micro_batches, layout=layout)
            for part in (lengths[batch] for rank in shares for batch in rank):
                if not len(part):
                    continue
                shape = BatchShape.of(part.tolist(), packed=packed, encoder=encoder, in_groups=in_groups)
                slots += shape.tokens if epoch == 0 else 0
                if epoch * steps + step < total:
                    shapes.add(shape)
    tokens = lengths.astype(np.int64)
    return StepPlan(
        films=len(lengths),
        steps=steps,
        epochs=epochs,
        total_steps=total,
        micro_batches=micro_batches,
        tokens=int(tokens.sum()),
        slots=slots,
        tokens_squared=float((tokens**2).sum()),
        largest=_largest(shapes),
    )


def _largest(shapes: set[BatchShape]) -> tuple[BatchShape, ...]:
    front: list[BatchShape] = []
    for shape in sorted(shapes, key=lambda shape: (-shape.tokens, -shape.attention_tokens, -shape.longest)):
        smaller = (
            shape.attention_tokens <= other.attention_tokens
            and shape.longest <= other.longest
            and shape.pairs <= other.pairs
            for other in front
        )
        if not any(smaller):
            front.append(shape)
    return tuple(front)
