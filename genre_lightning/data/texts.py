"""The texts of films, never all in memory at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genre_lightning.config.columns import FilmSource, TextTemplate
from genre_lightning.data.films import FilmTable
from genre_lightning.data.tokens import Progress


class LazyTexts(Sequence[str]):
    """The texts of films: a slice taken from the mapped table, or all in a pass that holds a few in memory.

    Args:
        films: Films of a file.
        rows: int64: positions of the films, ascending.
        column: "text", or another that holds texts.
        progress: Called with the number of texts that a pass has yielded.
    """

    def __init__(
        self, films: FilmTable, rows: NDArray[np.int64], column: str = "text", progress: Progress | None = None
    ) -> None:
        self.films = films
        self.rows = rows
        self.column = column
        self.progress = progress

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, places: Any) -> Any:
        if not isinstance(places, slice):
            return self.films.strings(self.column, self.rows[[places]])[0]
        return self.films.strings(self.column, self.rows[places])

    def __iter__(self) -> Iterator[str]:
        for batch in self.films.batches(self.column, self.rows):
            yield from batch.to_pylist()
            if self.progress:
                self.progress(len(batch))


class OverviewTexts(Sequence[str]):
    """The texts of films as if nothing but their overviews were known.

    Args:
        overviews: Overviews of the films.
        template: Template of the texts.
        fields: Its fields that are the overview; the others are taken for empty.
    """

    def __init__(self, overviews: LazyTexts, template: TextTemplate, fields: Sequence[str]) -> None:
        self.overviews = overviews
        self.template = template
        self.fields = tuple(fields)
        self._empty = dict.fromkeys(template.fields, "")

    @classmethod
    def of(cls, films: FilmTable, rows: NDArray[np.int64], source: FilmSource) -> OverviewTexts | None:
        """Return the texts of films; None if a text is its overview anyway, or has none.

        Args:
            films: Films of a file.
            rows: int64: positions of the films, ascending.
            source: How the file is read.
        """
        columns = source.template.columns(source.columns)
        fields = [name for name, column in columns.items() if column == source.columns.overview]
        if not 0 < len(fields) < len(columns):
            return None
        return cls(LazyTexts(films, rows, "overview"), source.template, fields)

    def __len__(self) -> int:
        return len(self.overviews)

    def __getitem__(self, places: Any) -> Any:
        found = self.overviews[places]
        return list(map(self._text, found)) if isinstance(places, slice) else self._text(found)

    def __iter__(self) -> Iterator[str]:
        return map(self._text, self.overviews)

    def _text(self, overview: str) -> str:
        return self.template.fill(self._empty | dict.fromkeys(self.fields, overview))
