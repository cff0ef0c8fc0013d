"""Attention within each text of a packed row, for a CPU: few operations, and none on padding that costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from genre_lightning.models.layers.cpu_dropout import keep_mask, keep_scale, masked

_SHORTEST = 0.8
"""Length of the shortest text of a group as a fraction of the longest: what padding costs against more operations."""

_ROUNDED_TO = 8
"""Groups are padded to multiples of it: oneDNN compiles its kernels for each shape, so few shapes pay."""

_BLOCK_SCORES = 2**19
"""Scores that inference in bfloat16 computes at once: in bfloat16 and float32 they take 3 MiB of cache."""


class TextGroups:
    """Where the states of packed texts stand when neighbours of like length are brought side by side.

    A state is of one token and one head, and all have one order before (token, head) and one after (group, text, head,
    place in the text). The weights of all groups stand one behind another as well: (group, text, head, place, place).
    Tokens behind the last text have states before and none after.

    Attributes:
        shapes: Number of texts, number of heads and longest text of each group.
        rows: int64 (states after,): which state before stands at each place; padding names some state of its text.
        places: int64 (states before,): where each stands after; of the texts' tokens only.
        masks: Mask of each group, bool (texts, 1, 1, places): true for tokens that are not padding.
        causal: Whether a token sees only those before it.
    """

    def __init__(
        self, shapes: tuple[tuple[int, int, int], ...], rows: Tensor, masks: tuple[Tensor, ...], causal: bool
    ) -> None:
        self.shapes = shapes
        self.rows = rows
        self.masks = masks
        self.causal = causal
        self._real = torch.cat([self._for_heads(mask).flatten() for mask in masks])
        (real,) = self._real.nonzero(as_tuple=True)
        self.places = torch.empty_like(real)
        self.places[rows[real]] = real
        self._padding: dict[torch.dtype, tuple[Tensor, list[Tensor]]] = {}

    def _for_heads(self, mask: Tensor) -> Tensor:
        """Return a mask repeated for every head of a text: (texts x heads, 1, places)."""
        (_, heads, _) = self.shapes[0]
        return mask.expand(-1, heads, -1, -1).flatten(0, 1)

    def padding(self, dtype: torch.dtype) -> tuple[Tensor, list[Tensor]]:
        """Return what all layers use.

        Returns:
            (states after, 1): 0 for padding, else 1; and for each group what is added to its scores, -inf for places
            that a token does not see, else 0, (texts x heads, 1 or places, places). Padding comes last, so that tokens
            of a causal model do not see it anyway.
        """
        if dtype not in self._padding:
            biases = []
            for mask in self.masks:
                rows = self._for_heads(mask)
                seen = _past(mask.shape[-1])[None] if self.causal else rows
                bias = torch.zeros(seen.shape, dtype=dtype).masked_fill_(~seen, -math.inf)
                biases.append(bias.expand(len(rows), -1, -1))
            self._padding[dtype] = (self._real.to(dtype)[:, None], biases)
        return self._padding[dtype]

    def back(self, after: Tensor, states: int) -> Tensor:
        """Return the states before, (states, width), of states after; 0 for tokens of no text."""
        before = after.new_empty(states, after.shape[1])
        real = len(self.places)
        torch.index_select(after, 0, self.places, out=before[:real])
        before[real:] = 0
        return before

    def split(self, states: Tensor) -> list[Tensor]:
        """Return each group's part of states after, (states after, width): (texts x heads, places, width)."""
        parts = states.split([texts * heads * places for texts, heads, places in self.shapes])
        return [part.view(-1, places, part.shape[-1]) for part, (_, _, places) in zip(parts, self.shapes, strict=True)]

    def split_weights(self, weights: Tensor) -> list[Tensor]:
        """Return each group's part of what stands for the weights, (weights,): (texts x heads, places, places)."""
        parts = weights.split([texts * heads * places**2 for texts, heads, places in self.shapes])
        return [part.view(-1, places, places) for part, (_, _, places) in zip(parts, self.shapes, strict=True)]

    @property
    def weights(self) -> int:
        """How many weights there are in all groups, with those of padding."""
        return sum(texts * heads * places**2 for texts, heads, places in self.shapes)


def neighbours_of_like_length(lengths: Sequence[int]) -> list[tuple[int, int, int]]:
    """Return texts in groups of like length: the first of each group, the one after its last, and their places."""
    groups = []
    first = 0
    while first < len(lengths):
        end = first + 1
        low = high = lengths[first]
        while end < len(lengths) and min(low, lengths[end]) >= _SHORTEST * max(high, lengths[end]):
            low, high = min(low, lengths[end]), max(high, lengths[end])
            end += 1
        groups.append((first, end, -(-high // _ROUNDED_TO) * _ROUNDED_TO))
        first = end
    return groups


def _past(places: int) -> Tensor:
    """Return for each place which places a token there sees if it sees only those before it, and itself; bool."""
    return torch.ones(places, places, dtype=torch.bool).tril_()


def group_texts(lengths: Sequence[int], heads: int, *, causal: bool = False) -> TextGroups:
    """Group neighbouring texts of like length.

    Args:
        lengths: Tokens of each text, in the order of the row.
        heads: Number of attention heads.
        causal: Whether a token sees only those before it, and itself.
    """
    shapes, rows, masks = [], [], []
    first_token = 0
    for first, end, places in neighbours_of_like_length(lengths):
        own = np.asarray(lengths[first:end])
        starts = first_token + own.cumsum() - own
        place = np.arange(places)
        tokens = starts[:, None] + np.minimum(place, own[:, None] - 1)
        rows.append((tokens[:, None, :] * heads + np.arange(heads)[:, None]).ravel())
        masks.append(torch.from_numpy(place < own[:, None])[:, None, None, :])
        shapes.append((end - first, heads, places))
        first_token += int(own.sum())
    return TextGroups(tuple(shapes), torch.from_numpy(np.concatenate(rows)), tuple(masks), causal)


def attention_in_groups(
    query: Tensor, key: Tensor, value: Tensor, groups: TextGroups, *, dropout: float, scaling: float
) -> Tensor:
    """Return softmax(query keyᵀ · scaling) value within each text.

    Args:
        query: (tokens, heads, width of a head), texts one behind another; the result for tokens behind them is 0.
        key: Keys, of the shape of `query`, or with a head for several of the query.
        value: As `key`.
        groups: Groups of the texts.
        dropout: Dropout of the attention weights.
        scaling: Factor of the scores.

    Returns:
        As `query`.
    """
    with torch.autocast(query.device.type, enabled=False):
        if shared := query.shape[1] // key.shape[1] - 1:  # repeating by one would copy
            key, value = (x.repeat_interleave(shared + 1, dim=1) for x in (key, value))
        states = [x.reshape(-1, x.shape[-1]) for x in (query, key, value)]
        in_bfloat16 = query.dtype == torch.bfloat16
        # torch has no kernel with dropout for the CPU, and its detour takes a third of the step; its backward pass in
        # bfloat16 takes twice that in float32, and five times that of the matmuls
        if dropout or (in_bfloat16 and torch.is_grad_enabled() and any(x.requires_grad for x in states)):
            return _GroupAttention.apply(*states, groups, dropout, scaling).view_as(query)
        of_groups = [groups.split(x.index_select(0, groups.rows)) for x in states]
        if in_bfloat16:
            parts = zip(*of_groups, groups.padding(query.dtype)[1], strict=True)
            found = [_in_blocks(q, k, v, bias, scaling).flatten(0, 1) for q, k, v, bias in parts]
        else:
            parts = zip(*of_groups, groups.masks, strict=True)
            found = [_by_torch(q, k, v, mask, groups.causal, scaling).flatten(0, 2) for q, k, v, mask in parts]
        before = torch.cat(found).index_select(0, groups.places)
        if tail := len(states[0]) - len(before):
            before = functional.pad(before, (0, 0, 0, tail))
        return before.view_as(query)


def _by_torch(query: Tensor, key: Tensor, value: Tensor, mask: Tensor, causal: bool, scaling: float) -> Tensor:
    """Return the attention of a group, (texts, heads, places, width of a head), by torch's function for it."""
    q, k, v = (x.view(len(mask), -1, *x.shape[1:]) for x in (query, key, value))
    of_padding = None if causal else mask
    return functional.scaled_dot_product_attention(q, k, v, attn_mask=of_padding, is_causal=causal, scale=scaling)


def _in_blocks(query: Tensor, key: Tensor, value: Tensor, bias: Tensor, scaling: float) -> Tensor:
    """Return the attention of a group without gradients, its scores in blocks that stay in the cache.

    In bfloat16 torch's kernel takes up to twice as long on CPUs that multiply in this type, and its softmax of
    bfloat16 several times that of float32.

    Args:
        query: (texts x heads, places, width of a head).
        key: As `query`.
        value: As `query`.
        bias: What is added to the scores, see `TextGroups.padding`.
        scaling: Factor of the scores.

    Returns:
        As `query`.
    """
    count, places, _ = query.shape
    block = min(count, max(1, _BLOCK_SCORES // places**2))
    scores, weights = query.new_empty(block, places, places), torch.empty(block, places, places)
    query, key, mixed = query * scaling, key.transpose(1, 2), torch.empty_like(value)
    for start in range(0, count, block):
        rows = slice(start, start + block)
        score, weight = (x[: len(query[rows])] for x in (scores, weights))
        torch.baddbmm(bias[rows], query[rows], key[rows], out=score)
        torch.softmax(score, -1, dtype=torch.float32, out=weight)
        torch.bmm(score.copy_(weight), value[rows], out=mixed[rows])
    return mixed


class _GroupAttention(torch.autograd.Function):
    """The attention as matmuls, with dropout of its weights (Srivastava et al., 2014; Vaswani et al., 2017).

    Weights of all groups share one buffer: what is done to each weight alone is one operation, not one for each group.
    """

    @staticmethod
    def forward(
        ctx: Any, query: Tensor, key: Tensor, value: Tensor, groups: TextGroups, dropout: float, scaling: float
    ) -> Tensor:
        _, biases = groups.padding(query.dtype)
        states = len(query)
        query, key, value = (x.index_select(0, groups.rows) for x in (query, key, value))
        query *= scaling
        scores, weights = (query.new_empty(groups.weights) for _ in range(2))
        mixed = torch.empty_like(value)
        of_groups = groups.split_weights(scores)
        for bias, q, k, score in zip(biases, groups.split(query), groups.split(key), of_groups, strict=True):
            torch.baddbmm(bias, q, k.transpose(1, 2), out=score)
        for score, weight in zip(of_groups, groups.split_weights(weights), strict=True):
            torch.softmax(score, -1, out=weight)
        kept = keep_mask((groups.weights,), dropout) if dropout else None
        dropped = weights if kept is None else masked(weights, kept, out=scores)
        for weight, v, out in zip(groups.split_weights(dropped), groups.split(value), groups.split(mixed), strict=True):
            torch.bmm(weight, v, out=out)
        ctx.save_for_backward(query, key, value, kept, weights, dropped)
        ctx.groups, ctx.dropout, ctx.scaling, ctx.states = groups, dropout, scaling, states
        return groups.back(mixed, states).mul_(keep_scale(dropout))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        query, key, value, kept, weights, dropped = ctx.saved_tensors
        groups: TextGroups = ctx.groups
        real, _ = groups.padding(query.dtype)
        gradient = gradients[0].index_select(0, groups.rows).mul_(keep_scale(ctx.dropout)).mul_(real)
        of_query, of_key, of_value = (torch.empty_like(x) for x in (query, key, value))
        of_weights = torch.empty_like(weights)
        g, q, k, v, of_q, of_k, of_v = map(groups.split, (gradient, query, key, value, of_query, of_key, of_value))
        w, of_w, d = map(groups.split_weights, (weights, of_weights, dropped))
        for i in range(len(groups.shapes)):
            torch.bmm(d[i].transpose(1, 2), g[i], out=of_v[i])
            torch.bmm(g[i], v[i].transpose(1, 2), out=of_w[i])
        if kept is not None:
            masked(of_weights, kept, out=of_weights)
        for i in range(len(groups.shapes)):
            of_scores = torch._softmax_backward_data(of_w[i], w[i], -1, weights.dtype)
            torch.bmm(of_scores, k[i], out=of_q[i])
            torch.bmm(of_scores.transpose(1, 2), q[i], out=of_k[i])
        of_query *= ctx.scaling
        return *(groups.back(x, ctx.states) for x in (of_query, of_key, of_value)), None, None, None
