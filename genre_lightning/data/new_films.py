"""Films to be tagged: every row of a file in its order, with what the model reads or why there is nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from genre_lightning.data.cells import readable
from genre_lightning.data.movies import ColumnNames, ReadShare, is_placeholder, read_rows


@dataclass(frozen=True, slots=True)
class NewFilm:
    """A row of a file of films whose genres are asked for.

    Attributes:
        id: as the file has it; None where the cell is empty or the column missing.
        title: likewise, or empty.
        cells: what text templates are filled with, as words.
        reason: why the film cannot be tagged, one of `missing_overview` and `placeholder_overview`; None where it can.
    """

    id: str | None
    title: str
    cells: dict[str, str]
    reason: str | None


@dataclass(frozen=True)
class NewFilms:
    """Where films to be tagged come from.

    Attributes:
        path: the file: .csv, .csv.gz or .parquet.
        columns: names of its columns; those of ids, titles and genres may be missing.
        fields: the file's column for each name in a text template.
    """

    path: Path
    columns: ColumnNames
    fields: Mapping[str, str]

    def check(self) -> None:
        """Opens the file and checks its header: cheap, for use before any work.

        Raises:
            DataError: the file is missing, empty, not readable in its format, or lacks a column.
        """
        next(self.read(), None)

    def read(self, share: ReadShare | None = None) -> Iterator[NewFilm]:
        """Yields every row.

        Args:
            share: told how far the reading has come.

        Raises:
            DataError: as `check`.
        """
        columns = self.columns
        for row in read_rows(self.path, [columns.overview, *self.fields.values()], share):
            yield NewFilm(
                id=_id_text(row.get(columns.id)),
                title=str(row.get(columns.title) or "").strip(),
                cells={name: readable(row.get(column)) for name, column in self.fields.items()},
                reason=reason_not_to_tag(str(row.get(columns.overview) or "")),
            )

    def chunks(self, rows: int, share: ReadShare | None = None) -> Iterator[list[NewFilm]]:
        """Yields the rows by so many, the last ones fewer.

        Raises:
            DataError: as `check`.
        """
        films = self.read(share)
        while chunk := list(islice(films, rows)):
            yield chunk


def reason_not_to_tag(overview: str) -> str | None:
    """Why an overview gives a model nothing to read, in the words of the data audit; None where it does."""
    if not overview.strip():
        return "missing_overview"
    return "placeholder_overview" if is_placeholder(overview.strip()) else None


def _id_text(cell: Any) -> str | None:
    if isinstance(cell, float) and cell.is_integer():  # Parquet from pandas, whose integers cannot be missing
        cell = int(cell)
    return (str(cell).strip() or None) if cell is not None else None
