"""Which tokens of a text are predicted, and by what they are replaced: a function of seed, step, film and place."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

MASKED, RANDOM = 0.8, 0.1
"""Fractions of the predicted tokens that become the mask token and a random one; the rest stay (Devlin et al.,
"BERT", 2019)."""

_GOLDEN = 0x9E3779B97F4A7C15
_FACTORS = (0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
_SHIFTS = (30, 27, 31)
"""Of splitmix64 (Steele et al., "Fast Splittable Pseudorandom Number Generators", 2014)."""


@dataclass(frozen=True)
class Vocabulary:
    """What masking must know of a tokenizer.

    Attributes:
        size: Tokens that it knows.
        mask: Id of the token that stands for a missing one.
        special: int64: ids that are never predicted.
    """

    size: int
    mask: int
    special: Tensor


def mask_tokens(
    ids: Tensor, films: Tensor, places: Tensor, vocabulary: Vocabulary, *, fraction: float, seed: int, step: int
) -> tuple[Tensor, Tensor]:
    """Choose the tokens that are predicted, and hide them.

    What happens to a token depends on its arguments alone, not on the batch around it: a resumed training, and one on
    other ranks, hides the same tokens.

    Args:
        ids: int64 (any shape): tokens.
        films: int64, likewise: number of the film that each belongs to.
        places: int64, likewise: place of each in its text.
        vocabulary: Of the tokenizer.
        fraction: Of the tokens that are predicted, special ones left out.
        seed: Of the run.
        step: Optimizer steps before this one.

    Returns:
        The tokens that the model reads, and bool: those that it predicts.
    """
    key = torch.zeros_like(ids)
    for part in (seed, step, films, places):
        key = _mixed(key, part)
    chosen = (uniform(key, 0) < fraction) & ~torch.isin(ids, vocabulary.special)
    draw = uniform(key, 1)
    others = (uniform(key, 2) * vocabulary.size).long()
    hidden = torch.where(draw < MASKED, vocabulary.mask, torch.where(draw < MASKED + RANDOM, others, ids))
    return torch.where(chosen, hidden, ids), chosen


def uniform(key: Tensor, stream: int) -> Tensor:
    """Return numbers from 0 to below 1, float64, for int64 keys; streams are independent."""
    bits = _shifted(_mixed(key, stream + 1), 11)
    return bits.double() / float(1 << 53)


def _mixed(key: Tensor, value: Tensor | int) -> Tensor:
    """Return an int64 key that depends on every bit of a key and of a value."""
    x = key + (value + 1) * _signed(_GOLDEN) if isinstance(value, Tensor) else key + _signed((value + 1) * _GOLDEN)
    for shift, factor in zip(_SHIFTS, (*_FACTORS, None), strict=True):
        x = x ^ _shifted(x, shift)
        x = x if factor is None else x * _signed(factor)
    return x


def _shifted(x: Tensor, by: int) -> Tensor:
    """Shift right as unsigned numbers: torch fills up with the sign."""
    return (x >> by) & ((1 << (64 - by)) - 1)


def _signed(value: int) -> int:
    value &= (1 << 64) - 1
    return value - (1 << 64) if value >> 63 else value
