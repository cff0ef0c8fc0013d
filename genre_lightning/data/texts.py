"""The texts of films, never all in memory at once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
