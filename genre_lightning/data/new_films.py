"""Films to be tagged: every row of a file in its order, with what the model reads or why there is nothing."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from genre_lightning.config.columns import ColumnNames
from genre_lightning.data.cells import is_placeholder_genre, readable
from genre_lightning.data.csv_rows import MisfitRow
from genre_lightning.data.movies import is_placeholder
from genre_lightning.data.shapes import whole_number
from genre_lightning.data.tables import read_rows
from genre_lightning.progress import ReadShare


@dataclass(frozen=True, slots=True)
class NewFilm:
    """A row of a file of films whose genres are asked for.

    Attributes:
        id: as the file has it, or the row's number from 1 if it has no such column; None if the cell is empty.
        title: likewise, or empty.
        cells: what text templates are filled with, as words.
        reason: why the film cannot be tagged, one of `malformed`, `missing_overview` and `placeholder_overview`; None
            if it can.
    """

    id: str | None
    title: str
    cells: dict[str, str]
    reason: str | None


@dataclass(frozen=True)
class NewFilms:
    """Where films to be tagged come from.

    Attributes:
        path: the file, in any format that `read_rows` reads.
        columns: names of its columns; those of ids, titles and genres may be missing.
        fields: the file's column for each name in a text template.
        encoding: of the text of a CSV.
    """

    path: Path
    columns: ColumnNames
    fields: Mapping[str, str]
    encoding: str = "utf-8"

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
        needed = [columns.overview, *self.fields.values()]
        rows = read_rows(self.path, needed, share, optional=[columns.id, columns.title], encoding=self.encoding)
        for number, row in enumerate(rows, start=1):
            if isinstance(row, MisfitRow):
                yield NewFilm(None, "", {}, "malformed")
                continue
            yield NewFilm(
                id=_id_text(row[columns.id]) if columns.id in row else str(number),
                title=readable(row.get(columns.title)),
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
    if (number := whole_number(cell)) is not None:
        return str(number)  # of 862.0 too, as pandas writes numbers that may be missing
    text = "" if cell is None else str(cell).strip()
    return None if is_placeholder_genre(text) else text
