"""Chance for the embedded sample: the same draws in every version of Python and on every machine."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Dice:
    """Chance from `Random.random` alone; the other methods of `Random` may change their sequence between versions."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed).random

    def below(self, stop: int) -> int:
        """Return a whole number from 0 to below `stop`."""
        return int(self.random() * stop)

    def pick(self, items: Sequence[T]) -> T:
        """Return one of the items, all alike."""
        return items[self.below(len(items))]

    def weighted(self, items: Sequence[T], weights: Sequence[float]) -> T:
        """Return one of the items, by their weights."""
        total = 0.0
        for weight in weights:  # not sum(): Python 3.12 made it round otherwise
            total += weight
        left = self.random() * total
        for item, weight in zip(items, weights, strict=True):
            left -= weight
            if left < 0:
                return item
        return items[-1]

    def shuffle(self, items: list[T]) -> None:
        """Put the items into another order, in place."""
        for last in range(len(items) - 1, 0, -1):
            other = self.below(last + 1)
            items[last], items[other] = items[other], items[last]
