"""Folds of the training films: each is left out of one training, whose model then sees its films as new ones."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from genre_lightning.data.splits import split_films


def fold_numbers(labels: NDArray[np.bool_], groups: NDArray[np.int64], folds: int, seed: int) -> NDArray[np.int64]:
    """Give each training film the number of its fold, int64 (films,), from 0.

    The films of each genre are spread evenly, and films with one text are in one fold.

    Args:
        labels: bool (films, genres).
        groups: int64 (films,): films with equal numbers have one text.
        folds: How many there are.
        seed: Random seed of the folds.
    """
    numbers = np.empty(len(labels), dtype=np.int64)
    for number, films in enumerate(split_films(labels, groups, [1 / folds] * folds, seed)):
        numbers[films] = number
    return numbers
