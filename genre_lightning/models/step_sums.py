"""Sums over an optimizer step, an epoch and the process's life, kept on the device: nothing here waits for it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from genre_lightning.models.layers.packing import packed_lengths

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over all ranks."""


class StepSums(nn.Module):
    """What is added up while training; every tensor is float64.

    Attributes:
        work: (4,), over all ranks since the process started: real tokens, tokens with padding, squared lengths of
            texts, and films.
        loss: (), sum of the films' losses of the last finished step, over all ranks.
    """

    work: Tensor
    loss: Tensor
    step: Tensor
    epoch: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("work", torch.zeros(4, dtype=torch.float64), persistent=False)
        self.register_buffer("loss", torch.zeros((), dtype=torch.float64), persistent=False)
        # of the step at hand, on this rank: loss, then the first three of `work`
        self.register_buffer("step", torch.zeros(4, dtype=torch.float64), persistent=False)
        # of the epoch, over all ranks: loss and films
        self.register_buffer("epoch", torch.zeros(2, dtype=torch.float64), persistent=False)

    def add(self, loss_sum: Tensor, batch: dict[str, Tensor]) -> None:
        """Add a micro-batch.

        Args:
            loss_sum: (), of its films.
            batch: Padded or packed; one whose weights are all 0 holds no film.
        """
        lengths = text_lengths(batch) * (batch["weights"].amax() > 0)
        slots = lengths.new_full((), batch["input_ids"].numel())
        self.step += torch.stack([loss_sum.detach(), lengths.sum(), slots, lengths.square().sum()])

    def finish_step(self, films: Tensor, reduce: Reduce) -> tuple[Tensor, Tensor]:
        """End the step; a collective.

        Args:
            films: (), of the whole step.
            reduce: Function that sums over the ranks.

        Returns:
            The step's mean loss, and its real tokens for each processed one.
        """
        sums = reduce(self.step).clone()  # one rank is given back what it gave
        self.step.zero_()
        self.loss = sums[0]
        self.epoch += torch.stack([sums[0], films.double()])
        self.work += torch.cat([sums[1:], films.double()[None]])
        return sums[0] / films, sums[1] / sums[2]

    def finish_epoch(self) -> Tensor:
        """End the epoch; returns the mean loss of its films."""
        mean = self.epoch[0] / self.epoch[1]
        self.epoch.zero_()
        return mean


def text_lengths(batch: dict[str, Tensor]) -> Tensor:
    """Return the tokens of each text of a batch, float64 (texts,), padding left out."""
    if "attention_mask" in batch:
        return batch["attention_mask"].sum(dim=1).double()
    return packed_lengths(batch["last_tokens"]).double()  # a packed batch has no padding, and no mask
