"""From a text's token states to one vector."""

from __future__ import annotations

import torch
from torch import Tensor

from genre_lightning.config.encoder import Pooling


def pool(states: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """Return one vector for each text, in float32.

    Args:
        states: (rows, tokens, width).
        attention_mask: (rows, tokens), 1 for real tokens.
        pooling: "mean" over the real tokens, or the first one's state ("cls").

    Returns:
        float32 (rows, width).
    """
    if pooling == "cls":
        return states[:, 0].float()
    mask = attention_mask[:, :, None].float()
    # float32: a sum of hundreds of half-precision states loses digits that the head needs
    return (states.float() * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def pool_packed(states: Tensor, last_tokens: Tensor, pooling: Pooling) -> Tensor:
    """Return one vector for each of the texts that lie one behind another, in float32.

    The mean is a product with a matrix of fractions: its gradient is a product too, where that of texts brought side by
    side adds up tokens one by one.

    Args:
        states: (tokens, width).
        last_tokens: int64 (texts,): where each text ends.
        pooling: As for `pool`.

    Returns:
        float32 (texts, width).
    """
    ends = last_tokens + 1
    starts = torch.cat([ends.new_zeros(1), ends[:-1]])
    if pooling == "cls":
        return states.index_select(0, starts).float()
    token = torch.arange(len(states), device=states.device)
    inside = (token >= starts[:, None]) & (token < ends[:, None])
    with torch.autocast(states.device.type, enabled=False):
        return (inside / (ends - starts)[:, None]) @ states.float()
