"""What is fitted of the inputs on the training films: vocabularies, means, deviations, and values that leak a genre."""

from __future__ import annotations

from collections import Counter
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


def fit_names(feature: Feature, values: Iterable[Any], left_out: frozenset[str] = frozenset()) -> FittedInput:
    """Fit the vocabulary of tags or categories.

    Args:
        feature: The input.
        values: Values of the training films.
        left_out: Names that are not to be known.
    """
    counts: Counter[str] = Counter()
    for value in values:
        counts.update(dict.fromkeys(names_of(value), 1))
    frequent = [name for name, films in counts.items() if films >= feature.min_films and name not in left_out]
    order = sorted(frequent, key=lambda name: (-counts[name], name))
    return FittedInput(feature.column, feature.kind, values=tuple(order[: feature.max_values]))


def fit_numbers(feature: Feature, values: Iterable[Any]) -> FittedInput:
    """Fit mean and standard deviation of numbers, dates or vectors.

    Args:
        feature: The input.
        values: Values of the training films.

    Raises:
        DataError: Vectors have several lengths.
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
            f"data.features, column {feature.column!r}: no training film has a value: name another column, or leave "
            "the feature out"
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


def find_leaks(column: str, values: Iterable[Any], labels: NDArray[np.bool_], genres: Sequence[str]) -> list[Leak]:
    """Find the tags or categories that all but give a genre away.

    Args:
        column: Column of the input.
        values: Values of the training films.
        labels: bool (training films, genres).
        genres: Their names.
    """
    films_of: dict[str, list[int]] = {}
    for film, value in enumerate(values):
        for name in dict.fromkeys(names_of(value)):
            films_of.setdefault(name, []).append(film)
    leaks = []
    for name, films in sorted(films_of.items()):
        if len(films) < LEAK_FILMS:
            continue
        with_genre = labels[films].sum(axis=0)
        for genre in np.flatnonzero(with_genre > LEAK_PRECISION * len(films)).tolist():
            leaks.append(Leak(column, name, genres[genre], len(films), int(with_genre[genre])))
    return leaks


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
