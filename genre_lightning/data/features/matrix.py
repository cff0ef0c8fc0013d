"""The head's inputs as columns beside counts of words, for linear models."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from genre_lightning.data.features.encode import EncodedInput, EncodedInputs

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix


def input_matrix(inputs: EncodedInputs | None, films: NDArray[np.int64] | None = None) -> csr_matrix | None:
    """Return the inputs of films as numbers that are not negative, float32 (films, columns); None without inputs.

    Names have a column each, for an unknown one and for none too, and together the length 1, as the words of a text
    have. Each other number has one column for its part above the training films' mean and one for that below.

    Args:
        inputs: Inputs of all films.
        films: Positions; None for all.
    """
    if inputs is None:
        return None
    from scipy.sparse import csr_matrix, hstack

    blocks = []
    for encoded in inputs.inputs:
        places = np.arange(_films(encoded)) if films is None else films
        if encoded.offsets is None:
            rows = np.asarray(encoded.numbers[places], dtype=np.float32)
            above = np.maximum(np.concatenate([rows[:, :-1], -rows[:, :-1]], axis=1), 0)
            blocks.append(csr_matrix(np.concatenate([above, rows[:, -1:] == 0], axis=1) / 2))
        else:
            rows = encoded.batch(places)
            names = [np.unique(row[row > 0]) if row.any() else np.zeros(1, dtype=np.int64) for row in rows][
                : len(places)
            ]
            lengths = np.fromiter(map(len, names), dtype=np.int64, count=len(names))
            values = np.repeat(lengths.astype(np.float32) ** -0.5, lengths)
            flat = np.concatenate([*names, np.zeros(0, dtype=np.int64)]).astype(np.int64)
            shape = (len(names), len(encoded.fitted.values) + 2)
            blocks.append(csr_matrix((values, flat, np.concatenate([[0], np.cumsum(lengths)])), shape=shape))
    return csr_matrix(hstack(blocks, format="csr"), dtype=np.float32)


def _films(encoded: EncodedInput) -> int:
    return len(encoded.numbers) if encoded.offsets is None else len(encoded.offsets) - 1
