"""Attention within each text of a packed row, one text after another: what a CPU does best."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from genre_lightning.models.dropout import keep_mask, keep_scale


def attention_by_text(
    query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], *, dropout: float, scaling: float
) -> Tensor:
    """softmax(query keyᵀ · scaling) value within each text, every token seeing the whole of its text.

    Args:
        query: (heads, tokens, width of a head), texts one behind another.
        key: as `query`.
        value: as `query`.
        lengths: tokens of each text.
        dropout: of the attention weights.
        scaling: of the products.

    Returns:
        as `query`.
    """
    with torch.autocast(query.device.type, enabled=False):
        if dropout:
            # torch has no kernel with dropout for the CPU, and its detour takes a third of the step
            return _DroppedAttention.apply(query, key, value, lengths, dropout, scaling)
        texts = zip(*(states.split(lengths, dim=1) for states in (query, key, value)), strict=True)
        mixed = [
            functional.scaled_dot_product_attention(q[None], k[None], v[None], scale=scaling)[0] for q, k, v in texts
        ]
        return torch.cat(mixed, dim=1)


class _DroppedAttention(torch.autograd.Function):
    """The attention with dropout of its weights; Srivastava et al., 2014, applied as in Vaswani et al., 2017."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, lengths: Sequence[int], dropout: float, scaling: float
    ) -> Tensor:
        heads = len(query)
        kept = keep_mask((heads * sum(length**2 for length in lengths),), dropout)
        mixed, weights = [], []
        texts = zip(*(states.split(lengths, dim=1) for states in (query, key, value)), strict=True)
        for (q, k, v), keep in zip(texts, _by_text(kept, heads, lengths), strict=True):
            weight = torch.bmm(q, k.transpose(1, 2)).mul_(scaling).softmax(dim=-1)
            mixed.append(torch.bmm(weight * keep, v))
            weights.append(weight)
        ctx.save_for_backward(query, key, value, kept, *weights)
        ctx.lengths, ctx.dropout, ctx.scaling = lengths, dropout, scaling
        return torch.cat(mixed, dim=1).mul_(keep_scale(dropout))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, kept, *weights = ctx.saved_tensors
        gradient = gradients[0] * keep_scale(ctx.dropout)
        texts = zip(*(states.split(ctx.lengths, dim=1) for states in (query, key, value, gradient)), strict=True)
        found = []
        for (q, k, v, g), weight, keep in zip(texts, weights, _by_text(kept, len(query), ctx.lengths), strict=True):
            of_weight = torch.bmm(g, v.transpose(1, 2)).mul_(keep)
            # the softmax's own derivative: weight · (gradient - its mean under the weights)
            mean = (of_weight * weight).sum(dim=-1, keepdim=True)
            of_scores = of_weight.sub_(mean).mul_(weight).mul_(ctx.scaling)
            of_value = torch.bmm((weight * keep).transpose(1, 2), g)
            found.append((torch.bmm(of_scores, k), torch.bmm(of_scores.transpose(1, 2), q), of_value))
        return *(torch.cat(parts, dim=1) for parts in zip(*found, strict=True)), None, None, None


def _by_text(kept: Tensor, heads: int, lengths: Sequence[int]) -> list[Tensor]:
    """The mask of each text, bool (heads, length, length)."""
    parts = kept.split([heads * length**2 for length in lengths])
    return [part.view(heads, length, length) for part, length in zip(parts, lengths, strict=True)]
