"""Steps whose loss or gradient is not finite: counted on the device, and reported if they stay."""

from __future__ import annotations

import torch
from torch import Tensor, nn

SKIPPED_IN_A_ROW = 25
"""Steps that a loss scaler may skip one after another: each halves the scale, which starts at 2 to the power of 16."""


class FiniteSteps(nn.Module):
    """Counts optimizer steps that are not finite, without waiting for the device.

    Its state is int64: how many there were, how many of them are the last in a row, and the first of that row.
    """

    counts: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("counts", torch.zeros(3, dtype=torch.int64), persistent=False)

    def update(self, loss: Tensor, norm: Tensor, step: int) -> None:
        """Add a step.

        Args:
            loss: (), of the step, the same on all ranks.
            norm: (), of the step's gradient, likewise.
            step: Optimizer steps before it.
        """
        here = self.counts.device  # a norm of gradients that are kept on the host comes from there
        bad = ~(loss.to(here).isfinite() & norm.to(here).isfinite())
        total, row, first = self.counts
        first = torch.where(row == 0, torch.full_like(first, step), first)
        self.counts = torch.stack([total + bad, (row + 1) * bad, first])

    @property
    def skipped(self) -> int:
        """How many there were; waits for the device."""
        return int(self.counts[0])

    @skipped.setter
    def skipped(self, value: int) -> None:
        self.counts[0] = value

    def first_that_stays(self, *, scaled: bool) -> int | None:
        """Return the optimizer steps before the first of the bad steps that end nowhere; waits for the device.

        Args:
            scaled: Whether a loss scaler skips bad steps; without one a single bad step spoils the weights.

        Returns:
            None while all is well.
        """
        _, row, first = self.counts.tolist()
        return first if row >= (SKIPPED_IN_A_ROW if scaled else 1) else None
