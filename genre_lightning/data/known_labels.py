"""Which labels are known: a film that was labelled before a genre existed is unknown for it, not negative."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genre_lightning.config.data import DataOptions, is_date
from genre_lightning.config.features import Feature
from genre_lightning.data.combine import ORIGIN
from genre_lightning.data.features.prepare import values_of
from genre_lightning.data.features.read import value_of
from genre_lightning.data.films import FilmTable
from genre_lightning.data.genres import GenreVocabulary
from genre_lightning.data.kept_splits import KeptSplits
from genre_lightning.errors import ConfigError


def label_columns(options: DataOptions) -> tuple[Feature, ...]:
    """Return the columns that define which labels are known, beside those that the model reads."""
    found = []
    if any(is_date(since) for since in (options.label_since or {}).values()):
        found.append(Feature(options.label_date, "date", place="head"))
    if options.known_genres is not None:
        found.append(Feature(options.known_genres, "tags", place="head"))
    read = {feature.column for feature in options.source.inputs if feature in found or feature.kind == "date"}
    return tuple(feature for feature in found if feature.column not in read)


def known_labels(
    options: DataOptions,
    films: FilmTable,
    rows: NDArray[np.int64],
    labels: NDArray[np.bool_],
    vocabulary: GenreVocabulary,
    sides: KeptSplits,
) -> NDArray[np.bool_] | None:
    """Find the labels that are known.

    A genre that a film has is known. A genre that came with a continued run is unknown for the films of earlier runs,
    unless `label_since` names it.

    Args:
        options: Of the data.
        films: Of the files.
        rows: Positions of the films in use.
        labels: bool (films in use, genres).
        vocabulary: Names of the genres.
        sides: Of the films, with the run in which each film and genre came.

    Returns:
        bool (films in use, genres); None if all labels are known.

    Raises:
        ConfigError: `label_since` names a genre that is not there.
    """
    known = np.ones(labels.shape, dtype=bool)
    place = {name: column for column, name in enumerate(vocabulary.names)}
    rules: Mapping[str, Any] = options.label_since or {}
    if unknown := sorted(set(rules) - set(place)):
        raise ConfigError(f"data.label_since names {unknown[0]!r}, which no film has: fix the name, or leave it out")
    if sides.genres:
        born = dict(zip(sides.ids, sides.births, strict=True))
        births = np.array([born[str(name)] for name in films.ids[rows].tolist()], dtype=np.int64)
        for name, generation in sides.genres.items():
            if name in place and name not in rules:
                known[:, place[name]] = births >= generation
    dates = None
    for name, since in rules.items():
        if is_date(since):
            if dates is None:
                found = values_of(films, options.label_date, rows)
                dates = np.array([np.nan if date is None else date for date in found], dtype=np.float64)
            # of a film without a date nothing is known
            known[:, place[name]] = dates >= _year(str(since))
        else:
            known[:, place[name]] = _from_files(options, films, rows, since)
    if options.known_genres is not None:
        for film, listed in enumerate(values_of(films, options.known_genres, rows)):
            if listed is not None:
                mine = [place[name] for name in listed if name in place]
                unlisted = np.ones(len(place), dtype=bool)
                unlisted[mine] = False
                known[film, unlisted] = False
    known |= labels
    return None if known.all() else known


def _year(date: str) -> float:
    """Return a date as the columns of dates are read: the year, with the part of it that has passed."""
    value = value_of(Feature("date", "date"), date)
    assert isinstance(value, int | float)
    return value


def _from_files(
    options: DataOptions, films: FilmTable, rows: NDArray[np.int64], since: str | list[str]
) -> NDArray[np.bool_]:
    """Find the films in use that are from the named files."""
    names = [source.path.name for source in options.sources]
    wanted = [since] if isinstance(since, str) else since
    if ORIGIN not in films.table.column_names:
        return np.full(len(rows), names[0] in wanted)
    origin = films.table[ORIGIN].to_numpy()[rows]
    return np.isin(origin, [place for place, name in enumerate(names) if name in wanted])
