"""From a text's token states to one vector."""

from __future__ import annotations

from torch import Tensor

from genre_lightning.models.options import Pooling


def pool(states: Tensor, attention_mask: Tensor, pooling: Pooling) -> Tensor:
    """One vector for each text, in float32.

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
