"""Which labels are known: a film that was labelled before a genre existed is unknown for it, not negative."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genre_lightning.config.columns import FilmSource
from genre_lightning.config.data import DataOptions, is_date
from genre_lightning.config.features import Feature
from genre_lightning.data.combine import ORIGIN
from genre_lightning.data.features.prepare import values_of
from genre_lightning.data.features.read import value_of
from genre_lightning.data.films import FilmTable, input_column
from genre_lightning.data.genres import GenreVocabulary
from genre_lightning.data.joins import find_columns
from genre_lightning.data.kept_splits import KeptSplits, as_bytes
from genre_lightning.data.movies import check_columns
from genre_lightning.data.splits import text_digests
from genre_lightning.errors import ConfigError, DataError


@dataclass(frozen=True)
class LabelRules:
    """What the options of a run say about which labels are known.

    Attributes:
        since: `data.label_since`: the date or the files from which films are labelled for a genre.
        date: `data.label_date`: column of the dates that it is compared with.
        listed: `data.known_genres`: column of the genres that a film was labelled for.
        files: Names of the run's movies files.
        merge_case: `data.merge_genre_case`: genres that differ in upper and lower case only are one.
    """

    since: Mapping[str, str | int | list[str]]
    date: str
    listed: str | None
    files: tuple[str, ...]
    merge_case: bool = False

    @classmethod
    def of_options(cls, options: DataOptions) -> LabelRules:
        """Return those of a training."""
        files = tuple(source.path.name for source in options.sources)
        since = options.label_since or {}
        return cls(since, options.label_date, options.known_genres, files, options.merge_genre_case)

    @classmethod
    def of_settings(cls, data: Mapping[str, Any]) -> LabelRules:
        """Return those of a run, from the options of the data in its configuration."""
        files = tuple(Path(str(file)).name for file in [data.get("csv") or "", *(data.get("older_csv") or [])])
        since, date = data.get("label_since") or {}, data.get("label_date") or ""
        return cls(since, date, data.get("known_genres"), files, bool(data.get("merge_genre_case")))

    def columns(self, inputs: Sequence[Feature]) -> tuple[Feature, ...]:
        """Return the columns that the rules read, beside the inputs that a model reads."""
        found = []
        if any(is_date(since) for since in self.since.values()):
            found.append(Feature(self.date, "date", place="head"))
        if self.listed is not None:
            found.append(Feature(self.listed, "tags", place="head"))
        read = {feature.column for feature in inputs if feature in found or feature.kind == "date"}
        return tuple(feature for feature in found if feature.column not in read)

    def reading(self, source: FilmSource) -> FilmSource:
        """Return another file than the run's own, with those columns of the rules that it has."""
        for column in self.columns(source.inputs):
            wider = replace(source, inputs=(*source.inputs, column))
            try:
                check_columns(wider)
            except DataError:
                continue  # a file without the column is one in which it is empty
            source = wider
        has_list = any(feature.column == self.listed for feature in source.inputs)
        return replace(source, known_genres=self.listed) if has_list else source

    def known(
        self, films: FilmTable, rows: NDArray[np.int64], names: Sequence[str], files: NDArray[np.object_]
    ) -> NDArray[np.bool_]:
        """Find the labels that are known by the rules.

        Args:
            films: Films with the columns of the rules; a column that is not there counts as empty.
            rows: Positions of films.
            names: The genres.
            files: Name of the file of each film. A file that is none of the run's own is labelled for all genres.

        Returns:
            bool (rows, genres).
        """
        place = {name: column for column, name in enumerate(names)}
        known = np.ones((len(rows), len(place)), dtype=bool)
        dates = None
        for name, since in self.since.items():
            if name not in place:
                continue
            if is_date(since):
                if dates is None:
                    found = _values(films, self.date, rows)
                    dates = np.array([np.nan if date is None else date for date in found], dtype=np.float64)
                # of a film without a date nothing is known
                known[:, place[name]] = dates >= _year(str(since))
            else:
                wanted = [since] if isinstance(since, str) else since
                known[:, place[name]] = np.isin(files, wanted) | ~np.isin(files, self.files)
        if self.listed is not None:
            spell = self.speller(names)
            for film, listed in enumerate(_values(films, self.listed, rows)):
                if listed is not None:
                    known[film] &= np.isin(names, spell(listed))
        return known

    def check_columns(self, source: FilmSource) -> None:
        """Refuse a movies file without the columns of the rules, by its header alone.

        Raises:
            DataError: It lacks one; the message names the option.
        """
        for column in self.columns(source.inputs):
            option = "data.known_genres" if column.column == self.listed else "data.label_date"
            find_columns(replace(source, inputs=(column,)), [column.column], option)

    def check_listed(self, films: FilmTable, rows: NDArray[np.int64], names: Sequence[str]) -> None:
        """Refuse a column of the genres that films were labelled for if it lists none of the genres.

        Raises:
            ConfigError: It lists others only, as one with another separator does.
        """
        if self.listed is None:
            return
        listed = [one for one in _values(films, self.listed, rows) if one is not None]
        if listed and set(names).isdisjoint(self.speller(names)(chain.from_iterable(listed))):
            raise ConfigError(
                f"data.known_genres is {self.listed!r}, a column that lists none of the genres {', '.join(names[:5])}, "
                f"but such as {listed[0][0][:60]!r}: write it as the genres are written, or name another column"
            )

    def speller(self, genres: Sequence[str]) -> Callable[[Iterable[str]], list[str]]:
        """Return what puts names into a run's spelling if it merges the case of genres; others stay as they are.

        Args:
            genres: Of the run.
        """
        own = {genre.casefold(): genre for genre in genres} if self.merge_case else {}
        return lambda names: [own.get(name.casefold(), name) for name in names] if own else list(names)


def known_of_other_films(
    rules: LabelRules,
    films: FilmTable,
    rows: NDArray[np.int64],
    labels: NDArray[np.bool_],
    genres: Sequence[str],
    file: str,
    sides: Sequence[KeptSplits] = (),
) -> NDArray[np.bool_] | None:
    """Find the labels that are known of films of another file than a run's own; see `known_labels`.

    Args:
        rules: Of the run.
        films: Of the file, read by `LabelRules.reading`.
        rows: Positions of films.
        labels: bool (rows, genres).
        genres: Of the run.
        file: Name of the file.
        sides: Splits of the run: of films that an earlier run of its chain has had, later genres are unknown.

    Returns:
        bool (rows, genres); None if all labels are known.
    """
    known = rules.known(films, rows, genres, np.full(len(rows), file, dtype=object))
    if any(kept.genres for kept in sides):
        digests = as_bytes(text_digests(films.strings("overview", rows)))
        for kept in sides:
            born = dict(zip(kept.digests, kept.births, strict=True))
            births = np.array([born.get(digest, kept.generation) for digest in digests], dtype=np.int64)
            _mask_later_genres(known, births, kept, genres, rules)
    known |= labels
    return None if known.all() else known


def _mask_later_genres(
    known: NDArray[np.bool_], births: NDArray[np.int64], sides: KeptSplits, genres: Sequence[str], rules: LabelRules
) -> None:
    """Mark genres that came with a continued run as unknown for the films of earlier runs."""
    for column, name in enumerate(genres):
        if name in sides.genres and name not in rules.since:
            known[:, column] &= births >= sides.genres[name]


def _values(films: FilmTable, column: str, rows: NDArray[np.int64]) -> Iterator[Any]:
    if input_column(column) not in films.table.column_names:
        return iter([None] * len(rows))
    return values_of(films, column, rows)


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
        ConfigError: `label_since` names a genre that is not there, or `known_genres` a column without genres.
    """
    rules = LabelRules.of_options(options)
    if unknown := sorted(set(rules.since) - set(vocabulary.names)):
        raise ConfigError(f"data.label_since names {unknown[0]!r}, which no film has: fix the name, or leave it out")
    rules.check_listed(films, rows, vocabulary.names)
    files = np.full(len(rows), rules.files[0], dtype=object)
    if ORIGIN in films.table.column_names:
        files = np.array(rules.files, dtype=object)[films.table[ORIGIN].to_numpy()[rows]]
    known = rules.known(films, rows, vocabulary.names, files)
    if sides.genres:
        born = dict(zip(sides.ids, sides.births, strict=True))
        births = np.array([born[str(name)] for name in films.ids[rows].tolist()], dtype=np.int64)
        _mask_later_genres(known, births, sides, vocabulary.names, rules)
    known |= labels
    return None if known.all() else known


def _year(date: str) -> float:
    """Return a date as the columns of dates are read: the year, with the part of it that has passed."""
    value = value_of(Feature("date", "date"), date)
    assert isinstance(value, int | float)
    return value
