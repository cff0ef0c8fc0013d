"""Dropout whose random numbers cost little on a CPU."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_VALUES = 2**16


def replace_dropout(model: nn.Module) -> None:
    """Puts `Dropout` in the place of every plain dropout of a model."""
    for module in model.modules():
        for name, child in module.named_children():
            if type(child) is nn.Dropout:
                setattr(module, name, Dropout(child.p))


class Dropout(nn.Dropout):
    """Dropout that on a CPU draws 16 random bits for an element.

    torch draws a double for each there, one after another, which took a tenth of a training step.
    """

    def forward(self, states: Tensor) -> Tensor:
        """States of the same shape and dtype, a share of them 0 while training."""
        if not self.training or self.p in (0.0, 1.0) or states.device.type != "cpu":
            return functional.dropout(states, self.p, self.training)
        return _Dropped.apply(states, self.p)


def keep_mask(shape: tuple[int, ...], p: float) -> Tensor:
    """Which elements stay, drawn from torch's generator for the CPU.

    Args:
        shape: of the elements.
        p: probability that an element goes, taken to the nearest of 2**16 values.

    Returns:
        bool, of the shape.
    """
    elements = math.prod(shape)
    bits = torch.empty(-(-elements // 4), dtype=torch.int64).random_(-(2**63), None).view(torch.int16)[:elements]
    return (bits >= round(p * _VALUES) - _VALUES // 2).view(shape)


def keep_scale(p: float) -> float:
    """What kept elements are multiplied by, so that the expectation stays: 1 / (1 - the probability as drawn)."""
    return _VALUES / (_VALUES - round(p * _VALUES))


class _Dropped(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: Tensor, p: float) -> Tensor:
        kept = keep_mask(states.shape, p)
        ctx.save_for_backward(kept)
        ctx.p = p
        return (states * kept).mul_(keep_scale(p))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return (gradients[0] * kept).mul_(keep_scale(ctx.p)), None
