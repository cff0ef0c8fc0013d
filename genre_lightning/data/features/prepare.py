"""The head's inputs of a file's films: fitted on the training films, encoded once, and kept in the cache."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genre_lightning.cache import build_once, key_of
from genre_lightning.config.features import Feature
from genre_lightning.data.features.encode import EncodedInputs, encode_input
from genre_lightning.data.features.fit import Leak, NamesOfFilms, find_leaks, fit_names, fit_numbers
from genre_lightning.data.films import FilmTable, input_column
from genre_lightning.data.movies import malformed_cell
from genre_lightning.types import FittedInput

_FORMAT = 1


def values_of(films: FilmTable, column: str, rows: NDArray[np.int64]) -> Iterator[Any]:
    """Yield the values of an input of the films at the given positions, which ascend."""
    for batch in films.batches(input_column(column), rows):
        yield from batch.to_pylist()


def fit_inputs(
    features: Sequence[Feature],
    films: FilmTable,
    rows: NDArray[np.int64],
    labels: NDArray[np.bool_],
    genres: Sequence[str],
    *,
    exclude_leaks: bool,
) -> tuple[tuple[FittedInput, ...], list[Leak]]:
    """Fit the inputs on the training films.

    Args:
        features: Features of the head.
        films: Films of the file.
        rows: Positions of the training films, ascending.
        labels: bool (training films, genres).
        genres: Their names.
        exclude_leaks: Leave out the values that all but give a genre away.

    Returns:
        The inputs, and the values that leak.

    Raises:
        DataError: An input has no values, or vectors of several lengths.
    """
    fitted, leaks = [], []
    for feature in features:
        if feature.kind not in ("tags", "category"):
            values = values_of(films, feature.column, rows)
            fitted.append(fit_numbers(feature, values, malformed_cell(films.notes, feature.column)))
            continue
        found = NamesOfFilms.collect(values_of(films, feature.column, rows))
        leaking = find_leaks(feature.column, found, labels, genres)
        left_out = frozenset(leak.value for leak in leaking) if exclude_leaks else frozenset()
        fitted.append(fit_names(feature, found, left_out))
        leaks += leaking
    return tuple(fitted), leaks


def encoded_inputs(
    fitted: Sequence[FittedInput], films: FilmTable, rows: NDArray[np.int64], content: str, cache_dir: Path
) -> EncodedInputs:
    """Encode the inputs of the films in use, or map what an earlier call left in the cache.

    Args:
        fitted: The inputs.
        films: Films of the file.
        rows: Positions of the films in use, ascending.
        content: Names the films in use and their order.
        cache_dir: Root of the cache.

    Raises:
        DataError: A vector has another length than those of the training films.
    """

    def build(folder: Path) -> dict[str, Any]:
        for place, one in enumerate(fitted):  # one at a time in memory
            encode_input(one, values_of(films, one.name, rows)).write(folder, place)
        return {}

    settings = {"format": _FORMAT, "content": content, "inputs": [asdict(one) for one in fitted]}
    folder, _ = build_once(cache_dir / "inputs", key_of(settings), build)
    return EncodedInputs.read(folder, fitted)
