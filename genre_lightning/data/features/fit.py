"""What is fitted of the inputs on the training films: vocabularies, means, deviations, and values that leak a genre."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genre_lightning.config.features import Feature
from genre_lightning.errors import DataError
from genre_lightning.types import FittedInput

LEAK_PRECISION = 0.98
"""Fraction of a value's training films that have a genre, above which the value all but gives the genre away."""
LEAK_FILMS = 50
"""Training films that the value must have for that."""


@dataclass(frozen=True)
class Leak:
    """A value of an input that all but gives a genre away.

    Attributes:
        column: Column of the input.
        value: The tag or category.
        genre: Genre that nearly all of its films have.
        films: Training films that have the value.
        with_genre: Those of them with the genre.
    """

    column: str
    value: str
    genre: str
    films: int
    with_genre: int


@dataclass(frozen=True, eq=False)
class NamesOfFilms:
    """Tags or categories of films as numbers: of millions of films lists of strings would not fit.

    Attributes:
        names: All names, in the order in which films have them.
        numbers: int32 (names of all films,): positions in `names`, each once for a film, film after film.
        films: int32, of the same length: the film of each.
    """

    names: tuple[str, ...]
    numbers: NDArray[np.int32]
    films: NDArray[np.int32]

    @classmethod
    def collect(cls, values: Iterable[Any]) -> NamesOfFilms:
        """Return the names in the values of films."""
        number_of: dict[str, int] = {}
        numbers, lengths = array("i"), array("i")
        for value in values:
            own = dict.fromkeys(names_of(value))
            numbers.extend(number_of.setdefault(name, len(number_of)) for name in own)
            lengths.append(len(own))
        films = np.repeat(np.arange(len(lengths), dtype=np.int32), np.asarray(lengths))
        return cls(tuple(number_of), np.asarray(numbers, dtype=np.int32), films)

    def counts(self, films: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
        """Return how many films have each name, of all or of those with True, (names,)."""
        numbers = self.numbers if films is None else self.numbers[films[self.films]]
        return np.bincount(numbers, minlength=len(self.names))


def fit_names(feature: Feature, found: NamesOfFilms, left_out: frozenset[str] = frozenset()) -> FittedInput:
    """Fit the vocabulary of tags or categories.

    Args:
        feature: The input.
        found: Names of the training films.
        left_out: Names that are not to be known.
    """
    counts, names = found.counts().tolist(), found.names
    frequent = [n for n, films in enumerate(counts) if films >= feature.min_films and names[n] not in left_out]
    order = sorted(frequent, key=lambda n: (-counts[n], names[n]))
    return FittedInput(feature.column, feature.kind, values=tuple(names[n] for n in order[: feature.max_values]))


def fit_numbers(feature: Feature, values: Iterable[Any], malformed: str = "") -> FittedInput:
    """Fit mean and standard deviation of numbers, dates or vectors.

    Args:
        feature: The input.
        values: Values of the training films.
        malformed: Why a cell is malformed, if any is.

    Raises:
        DataError: No film has a value, or vectors have several lengths.
    """
    count, total, squares = 0, np.zeros(0), np.zeros(0)
    for value in values:
        if value is None:
            continue
        numbers = numbers_of(value, log=feature.log)
        if count and len(numbers) != len(total):
            raise DataError(
                f"data.features, column {feature.column!r}: vectors of {len(total)} and of {len(numbers)} numbers: "
                "write all of one length"
            )
        if not count:
            shift, total, squares = numbers, np.zeros(len(numbers)), np.zeros(len(numbers))
        count += 1
        total += numbers - shift  # years differ little, compared with their size
        squares += (numbers - shift) ** 2
    if not count:
        raise DataError(
            f"data.features, column {feature.column!r}: no training film has a value"
            f"{f' ({malformed})' if malformed else ''}: name another column, or leave the feature out"
        )
    mean = total / count
    deviation = np.sqrt(np.maximum(squares / count - mean**2, 0))
    deviation[deviation < 1e-9] = 1.0
    return FittedInput(
        feature.column, feature.kind, log=feature.log,
        mean=tuple((shift + mean).tolist()), std=tuple(deviation.tolist()),
    )  # fmt: skip


def names_of(value: Any) -> Sequence[str]:
    """Return the names in a value of tags or of a category."""
    return () if value is None else (value,) if isinstance(value, str) else value


def numbers_of(value: Any, *, log: bool) -> NDArray[np.float64]:
    """Return the numbers in a value, before they are standardised."""
    numbers = np.atleast_1d(np.asarray(value, dtype=np.float64))
    return np.sign(numbers) * np.log1p(np.abs(numbers)) if log else numbers


def find_leaks(column: str, found: NamesOfFilms, labels: NDArray[np.bool_], genres: Sequence[str]) -> list[Leak]:
    """Find the tags or categories that all but give a genre away.

    Args:
        column: Column of the input.
        found: Names of the training films.
        labels: bool (training films, genres).
        genres: Their names.
    """
    films = found.counts()
    with_genre = np.stack([found.counts(of_genre) for of_genre in labels.T], axis=1)
    leaking = (films >= LEAK_FILMS)[:, None] & (with_genre > LEAK_PRECISION * films[:, None])
    leaks = [
        Leak(column, found.names[name], genres[genre], int(films[name]), int(with_genre[name, genre]))
        for name, genre in np.argwhere(leaking).tolist()
    ]
    return sorted(leaks, key=lambda leak: leak.value)  # of one value in the order of the genres


def known_share(fitted: FittedInput, counts: Mapping[str, int]) -> str:
    """Describe an input in a line of the audit.

    Args:
        fitted: The input.
        counts: Films in which it is known, missing and malformed.
    """
    films = max(sum(counts.values()), 1)
    known = f"{counts['known'] / films:.1%} of the films"
    if fitted.is_named:
        return f"{len(fitted.values):,} values, in {known}"
    if fitted.kind == "vector":
        return f"{len(fitted.mean)} numbers, in {known}"
    unit = ", of the logarithm" if fitted.log else ""
    return f"mean {fitted.mean[0]:.4g}, deviation {fitted.std[0]:.4g}{unit}, in {known}"
