"""Attention within each text of a packed row, for a CPU: few operations, and none on padding that costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from genre_lightning.models.dropout import keep_mask, keep_scale, masked

_SHORTEST = 0.8
"""Length of the shortest text of a group as a share of the longest: what padding costs against more operations."""


@dataclass(frozen=True)
class TextGroups:
    """Where the states of packed texts stand when neighbours of like length are brought side by side.

    A state is of one token and one head, and all have one order before (token, head) and one after (group, text, head,
    place in the text).

    Attributes:
        shapes: of each group: texts, heads, longest text.
        rows: int64 (states after,): which state before stands at each place; padding names some state of its text.
        places: int64 (states before,): where each stands after.
        real: bool (states after, 1): which are no padding; None where there is none.
        masks: of each group, bool (texts, 1, 1, longest): the real places; None where all are.
    """

    shapes: tuple[tuple[int, int, int], ...]
    rows: Tensor
    places: Tensor
    real: Tensor | None
    masks: tuple[Tensor | None, ...]


def neighbours_of_like_length(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """Where to cut texts into groups of like length: the first of each group, and the one behind its last."""
    cuts = []
    first = 0
    while first < len(lengths):
        end = first + 1
        low = high = lengths[first]
        while end < len(lengths) and min(low, lengths[end]) >= _SHORTEST * max(high, lengths[end]):
            low, high = min(low, lengths[end]), max(high, lengths[end])
            end += 1
        cuts.append((first, end))
        first = end
    return cuts


def group_texts(lengths: Sequence[int], heads: int) -> TextGroups:
    """Groups neighbouring texts of like length.

    Args:
        lengths: tokens of each text, in the order of the row.
        heads: of the attention.
    """
    shapes, rows, real, masks = [], [], [], []
    first_token = 0
    for first, end in neighbours_of_like_length(lengths):
        own = np.asarray(lengths[first:end])
        low, high = int(own.min()), int(own.max())
        starts = first_token + own.cumsum() - own
        place = np.arange(high)
        tokens = starts[:, None] + np.minimum(place, own[:, None] - 1)
        rows.append((tokens[:, None, :] * heads + np.arange(heads)[:, None]).ravel())
        inside = place < own[:, None]
        real.append(np.repeat(inside[:, None, :], heads, axis=1).ravel())
        masks.append(None if low == high else torch.from_numpy(inside)[:, None, None, :])
        shapes.append((end - first, heads, high))
        first_token += int(own.sum())
    all_rows, all_real = np.concatenate(rows), np.concatenate(real)
    places = np.empty(first_token * heads, dtype=np.int64)
    places[all_rows[all_real]] = np.flatnonzero(all_real)
    padded = None if all_real.all() else torch.from_numpy(all_real)[:, None]
    return TextGroups(tuple(shapes), torch.from_numpy(all_rows), torch.from_numpy(places), padded, tuple(masks))


def attention_in_groups(
    query: Tensor, key: Tensor, value: Tensor, groups: TextGroups, *, dropout: float, scaling: float
) -> Tensor:
    """softmax(query keyᵀ · scaling) value within each text, every token seeing the whole of its text.

    Args:
        query: (tokens, heads, width of a head), texts one behind another.
        key: as `query`.
        value: as `query`.
        groups: of the texts.
        dropout: of the attention weights.
        scaling: of the products.

    Returns:
        as `query`.
    """
    with torch.autocast(query.device.type, enabled=False):
        states = [x.reshape(-1, x.shape[-1]) for x in (query, key, value)]
        if dropout:
            # torch has no kernel with dropout for the CPU, and its detour takes a third of the step
            mixed = _DroppedAttention.apply(*states, groups, dropout, scaling)
        else:
            parts = zip(*(_split(x.index_select(0, groups.rows), groups) for x in states), strict=True)
            found = [
                functional.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scaling).flatten(0, 2)
                for (q, k, v), mask in zip(parts, groups.masks, strict=True)
            ]
            mixed = torch.cat(found).index_select(0, groups.places)
        return mixed.view_as(query)


class _DroppedAttention(torch.autograd.Function):
    """The attention with dropout of its weights; Srivastava et al., 2014, applied as in Vaswani et al., 2017."""

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, groups: TextGroups, dropout: float, scaling: float
    ) -> Tensor:
        kept = keep_mask((sum(texts * heads * length**2 for texts, heads, length in groups.shapes),), dropout)
        query, key, value = (x.index_select(0, groups.rows) for x in (query, key, value))
        query *= scaling
        mixed = torch.empty_like(value)
        weights = []
        parts = zip(*(_split(x, groups, flat=True) for x in (query, key, value, mixed)), strict=True)
        for (q, k, v, out), mask, keep in zip(parts, groups.masks, _squares(kept, groups), strict=True):
            scores = torch.bmm(q, k.transpose(1, 2))
            if mask is not None:
                by_text = scores.view(len(mask), -1, *scores.shape[1:])
                by_text += torch.zeros(mask.shape, dtype=scores.dtype).masked_fill_(~mask, -math.inf)
            weight = scores.softmax(dim=-1)
            torch.bmm(masked(weight, keep), v, out=out)
            weights.append(weight)
        ctx.save_for_backward(query, key, value, kept, *weights)
        ctx.groups, ctx.dropout, ctx.scaling = groups, dropout, scaling
        return mixed.index_select(0, groups.places).mul_(keep_scale(dropout))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, kept, *weights = ctx.saved_tensors
        groups: TextGroups = ctx.groups
        gradient = gradients[0].index_select(0, groups.rows).mul_(keep_scale(ctx.dropout))
        if groups.real is not None:
            gradient *= groups.real.to(gradient.dtype)
        found = [torch.empty_like(x) for x in (query, key, value)]
        parts = zip(*(_split(x, groups, flat=True) for x in (query, key, value, gradient, *found)), strict=True)
        for (q, k, v, g, of_q, of_k, of_v), weight, keep in zip(parts, weights, _squares(kept, groups), strict=True):
            torch.bmm(masked(weight, keep).transpose(1, 2), g, out=of_v)
            of_weight = masked(torch.bmm(g, v.transpose(1, 2)), keep)
            of_scores = torch._softmax_backward_data(of_weight, weight, -1, weight.dtype)
            torch.bmm(of_scores, k, out=of_q)
            torch.bmm(of_scores.transpose(1, 2), q, out=of_k)
        found[0] *= ctx.scaling
        return *(x.index_select(0, groups.places) for x in found), None, None, None


def _split(states: Tensor, groups: TextGroups, *, flat: bool = False) -> list[Tensor]:
    """The states of each group, (texts, heads, longest, width of a head), or its first two dimensions as one."""
    parts = states.split([math.prod(shape) for shape in groups.shapes])
    shapes = [(shape[0] * shape[1], shape[2]) if flat else shape for shape in groups.shapes]
    return [part.view(*shape, -1) for part, shape in zip(parts, shapes, strict=True)]


def _squares(kept: Tensor, groups: TextGroups) -> list[Tensor]:
    """The mask of each group's weights, int16 (texts x heads, longest, longest)."""
    parts = kept.split([texts * heads * length**2 for texts, heads, length in groups.shapes])
    return [part.view(-1, length, length) for part, (*_, length) in zip(parts, groups.shapes, strict=True)]
