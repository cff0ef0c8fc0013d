"""Films to be tagged: every row of a file in its order, with what the model reads or why there is nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from genre_lightning.cache import default_cache_dir
from genre_lightning.config.columns import ColumnNames, FilmSource, TextTemplate
from genre_lightning.config.features import Feature, JoinedFile
from genre_lightning.data.cells import is_placeholder_genre, readable, whole_characters
from genre_lightning.data.csv_rows import MisfitRow
from genre_lightning.data.features.read import value_or_none
from genre_lightning.data.joins import find_columns, joined_row, open_joins
from genre_lightning.data.movies import is_placeholder
from genre_lightning.data.shapes import whole_number
from genre_lightning.data.tables import read_rows
from genre_lightning.distributed.ranks import tell
from genre_lightning.progress import ReadShare


@dataclass(frozen=True, slots=True)
class NewFilm:
    """A row of a file of films whose genres are asked for.

    Attributes:
        id: Id as the file has it, or the row's number from 1 if it has no such column; None if the cell is empty.
        title: Title as the file has it, or empty.
        cells: What text templates are filled with, as words, and the values of the head's inputs.
        reason: Why the film cannot be tagged, one of `malformed`, `missing_overview` and `placeholder_overview`; None
            if it can.
    """

    id: str | None
    title: str
    cells: dict[str, Any]
    reason: str | None


@dataclass(frozen=True)
class NewFilms:
    """Where films to be tagged come from.

    Attributes:
        path: The file, in any format that `read_rows` reads.
        columns: Names of its columns; those of ids, titles and genres may be missing.
        fields: The file's column for each name in a text template.
        encoding: Text encoding of a CSV.
        features: Features that the run reads beside its template.
        join: Further files with columns of the films.
        cache_dir: Root of the cache, for joined files.
    """

    path: Path
    columns: ColumnNames
    fields: Mapping[str, str]
    encoding: str = "utf-8"
    features: tuple[Feature, ...] = ()
    join: tuple[JoinedFile, ...] = ()
    cache_dir: Path = field(default_factory=default_cache_dir)

    @property
    def source(self) -> FilmSource:
        """The files as those of films to learn from."""
        return FilmSource(
            self.path,
            self.columns,
            TextTemplate("{overview}"),
            encoding=self.encoding,
            join=self.join,
            inputs=self.features,
        )

    def check(self) -> None:
        """Open the files and check their headers: cheap, for use before any work.

        Raises:
            DataError: A file is missing, empty, not readable in its format, or lacks a column.
        """
        next(self._rows(None), None)

    def _rows(self, share: ReadShare | None) -> Iterator[dict[str, Any]]:
        columns = self.columns
        own = find_columns(self.source, list(self.fields.values())).own
        optional = [columns.id, columns.title]
        return read_rows(self.path, [columns.overview, *own], share, optional=optional, encoding=self.encoding)

    def read(self, share: ReadShare | None = None) -> Iterator[NewFilm]:
        """Yield every row.

        Args:
            share: Called with the fraction that has been read.

        Raises:
            DataError: As for `check`.
        """
        columns, source = self.columns, self.source
        inputs = {feature.column: feature for feature in self.features if not feature.in_text}
        joins = open_joins(source, self.cache_dir, list(self.fields.values()))
        for number, row in enumerate(self._rows(share), start=1):
            if isinstance(row, MisfitRow):
                yield NewFilm(None, "", {}, "malformed")
                continue
            film_id = _id_text(row[columns.id]) if columns.id in row else str(number)
            row = joined_row(joins, source, film_id, row)
            yield NewFilm(
                id=film_id,
                title=readable(row.get(columns.title)),
                cells={
                    name: value_or_none(inputs[name], row.get(column)) if name in inputs else readable(row.get(column))
                    for name, column in self.fields.items()
                },
                reason=reason_not_to_tag(str(row.get(columns.overview) or "")),
            )
        for join in joins:
            if join.unmatched and not join.matched:
                tell(f"no film of {self.path} has a row in {join.join.file}: its columns are taken for missing")

    def chunks(self, rows: int, share: ReadShare | None = None) -> Iterator[list[NewFilm]]:
        """Yield the rows in lists of at most n.

        Raises:
            DataError: As for `check`.
        """
        films = self.read(share)
        while chunk := list(islice(films, rows)):
            yield chunk


def reason_not_to_tag(overview: str) -> str | None:
    """Return why an overview gives a model nothing to read, in the words of the data audit; None if it does."""
    if not overview.strip():
        return "missing_overview"
    return "placeholder_overview" if is_placeholder(overview.strip()) else None


def _id_text(cell: Any) -> str | None:
    if (number := whole_number(cell)) is not None:
        return str(number)  # of 862.0 too, as pandas writes numbers that may be missing
    text = "" if cell is None else whole_characters(str(cell)).strip()
    return None if is_placeholder_genre(text) else text
