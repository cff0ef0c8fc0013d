"""The language of each film, by which metrics are shown; read beside what the model reads, if the files have it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genre_lightning.config.data import DataOptions
from genre_lightning.config.features import Feature
from genre_lightning.data.features.fit import names_of
from genre_lightning.data.features.prepare import values_of
from genre_lightning.data.films import FilmTable, input_column
from genre_lightning.data.tables import header_of


def language_columns(options: DataOptions, paths: Sequence[Path]) -> tuple[Feature, ...]:
    """Return the column of languages, unless the model reads it anyhow or a file lacks it.

    Args:
        options: Of the data.
        paths: Of the movies files.

    Raises:
        DataError: A file cannot be read.
    """
    name = options.language
    if name is None or any(feature.column == name for feature in options.used_features):
        return ()
    overview, encoding = options.source.columns.overview, options.encoding
    if not all(name in header_of(path, [overview], encoding) for path in paths):
        return ()
    return (Feature(name, "category", place="head"),)


def languages_of(films: FilmTable, language: str | None, rows: NDArray[np.int64]) -> list[str] | None:
    """Return the language of films, "" for one that has none; None if the table has no languages.

    Args:
        films: Of the files.
        language: Their column.
        rows: Positions of the films, in any order.
    """
    if language is None or input_column(language) not in films.table.column_names:
        return None
    order = np.argsort(rows, kind="stable")
    found = [""] * len(rows)
    for place, value in zip(order.tolist(), values_of(films, language, rows[order]), strict=True):
        found[place] = next(iter(names_of(value)), "")
    return found
