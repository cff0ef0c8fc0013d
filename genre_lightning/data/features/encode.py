"""The head's inputs of films as arrays, as fitted on the training films; and as the arrays of a batch."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genre_lightning.config.features import Feature
from genre_lightning.data.features.fit import names_of, numbers_of
from genre_lightning.data.features.read import value_or_none
from genre_lightning.errors import DataError
from genre_lightning.types import INPUT, FittedInput

UNKNOWN, FIRST = 1, 2
"""Number of a name that training has not seen, and of the first one that it has; 0 stands for none."""
LARGEST = 5.0
"""Standard deviations from the mean at which numbers are cut: one odd film would else outweigh all others."""


@dataclass(frozen=True, eq=False)
class EncodedInput:
    """An input of films.

    Attributes:
        fitted: The input.
        numbers: int32 (names of all films,) of tags and categories; float32 (films, size + 1) of others.
        offsets: int64 (films + 1,): where each film's names begin; None of other kinds.
    """

    fitted: FittedInput
    numbers: NDArray[Any]
    offsets: NDArray[np.int64] | None = None

    def write(self, folder: Path, place: int) -> None:
        """Write the arrays into a folder, under the place of the input among all."""
        np.save(folder / f"{place}.npy", self.numbers)
        if self.offsets is not None:
            np.save(folder / f"{place}-offsets.npy", self.offsets)

    def batch(self, films: NDArray[np.int64]) -> NDArray[Any]:
        """Return the rows of films as `types.INPUT` describes them; one row of none for no films."""
        if self.offsets is None:
            if not len(films):
                return np.zeros((1, self.numbers.shape[1]), dtype=np.float32)
            return np.asarray(self.numbers[films], dtype=np.float32)
        rows = [self.numbers[self.offsets[film] : self.offsets[film + 1]] for film in films.tolist()]
        width = max([1, *map(len, rows)])
        padded = np.zeros((max(len(rows), 1), width), dtype=np.int64)
        for place, row in enumerate(rows):
            padded[place, : len(row)] = row
        return padded


class EncodedInputs:
    """The head's inputs of films.

    Args:
        inputs: Each for the same films.
    """

    def __init__(self, inputs: Sequence[EncodedInput]) -> None:
        self.inputs = tuple(inputs)

    def batch(self, films: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
        """Return the arrays of a batch.

        Args:
            films: Positions; none for a batch that only keeps a collective company.
        """
        return {f"{INPUT}{encoded.fitted.name}": encoded.batch(films) for encoded in self.inputs}

    @classmethod
    def read(cls, folder: Path, fitted: Sequence[FittedInput]) -> EncodedInputs:
        """Map the arrays that `EncodedInput.write` has written, by the places of the inputs."""
        return cls(
            [
                EncodedInput(
                    one,
                    np.load(folder / f"{place}.npy", mmap_mode="r"),
                    np.load(folder / f"{place}-offsets.npy", mmap_mode="r") if one.is_named else None,
                )
                for place, one in enumerate(fitted)
            ]
        )


def encode_input(fitted: FittedInput, values: Iterable[Any]) -> EncodedInput:
    """Encode the values of an input.

    Args:
        fitted: The input.
        values: Values of films; None for a film that has none.

    Raises:
        DataError: A vector has another length than those of the training films.
    """
    if fitted.is_named:
        number_of = {name: number for number, name in enumerate(fitted.values, start=FIRST)}
        numbers, offsets = array("i"), array("q", [0])  # of millions of films lists would not fit
        for value in values:
            numbers.extend(number_of.get(name, UNKNOWN) for name in names_of(value))
            offsets.append(len(numbers))
        return EncodedInput(fitted, np.asarray(numbers, dtype=np.int32), np.asarray(offsets, dtype=np.int64))
    mean, std = np.array(fitted.mean), np.array(fitted.std)
    row = np.dtype((np.float32, len(mean) + 1))
    return EncodedInput(fitted, np.fromiter(_standardised(fitted, values, mean, std), dtype=row))


def _standardised(
    fitted: FittedInput, values: Iterable[Any], mean: NDArray[np.float64], std: NDArray[np.float64]
) -> Iterator[NDArray[np.float32]]:
    for value in values:
        row = np.zeros(len(mean) + 1, dtype=np.float32)
        if value is not None:
            numbers = numbers_of(value, log=fitted.log)
            if len(numbers) != len(mean):
                raise DataError(
                    f"the input {fitted.name!r} has a vector of {len(numbers)} numbers, and the training films have "
                    f"{len(mean)}: make it by the same model as theirs, or leave the cell empty"
                )
            row[:-1] = np.clip((numbers - mean) / std, -LARGEST, LARGEST)
            row[-1] = 1
        yield row


def encode_cells(
    fitted: Sequence[FittedInput], features: Sequence[Feature], films: Sequence[Mapping[str, Any]]
) -> EncodedInputs | None:
    """Encode the inputs of films that are given by their cells; None if there are no inputs.

    Args:
        fitted: The inputs.
        features: Features as declared.
        films: Cells, or values of them, by column; what is missing or malformed is taken for missing.

    Raises:
        DataError: A vector has another length than those of the training films.
    """
    if not fitted:
        return None
    declared = {feature.column: feature for feature in features}
    return encode_inputs(fitted, lambda name: [value_or_none(declared[name], film.get(name)) for film in films])


def encode_inputs(fitted: Sequence[FittedInput], column: Callable[[str], Iterable[Any]]) -> EncodedInputs:
    """Encode all inputs of films.

    Args:
        fitted: The inputs.
        column: Gives the values of an input by its name.
    """
    return EncodedInputs([encode_input(one, column(one.name)) for one in fitted])
