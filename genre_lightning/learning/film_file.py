"""A file of new films, read as a run reads its own, with what the run makes of each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from genre_lightning.data.new_films import NewFilm, NewFilms
from genre_lightning.data.tables import FileState, read_rows
from genre_lightning.data.templates import columns_to_tag
from genre_lightning.inference.model_scorer import ModelScorer
from genre_lightning.inference.run_settings import Cells
from genre_lightning.inference.scoring import Scorer

CHUNK = 4096
"""Films whose texts are in memory at a time."""


@dataclass(frozen=True)
class FilmFile:
    """A file of films to be read as often as needed; it must not change meanwhile.

    Attributes:
        films: Of the file; the cells of each have its overview as "overview" too.
        state: Of the file when it was opened.
    """

    films: NewFilms
    state: FileState

    @classmethod
    def of(cls, path: Path, scorer: Scorer, renamed: Mapping[str, str], encoding: str) -> FilmFile:
        """Open a file, with a column for each that the run's text template names.

        Args:
            path: Of the file.
            scorer: The run.
            renamed: The file's column for each role whose column has another name than in the training file.
            encoding: Of its text.

        Raises:
            DataError: It cannot be read, or lacks a column.
        """
        columns = replace(scorer.columns, **renamed)
        fields = columns_to_tag(scorer.fields, scorer.columns, columns)
        named = {**fields, "overview": columns.overview}
        films = NewFilms(path, columns, named, encoding, scorer.features, scorer.join)
        films.check()
        return cls(films, FileState.of(path))

    @property
    def has_ids(self) -> bool:
        """Whether the file names its films; without, the id of each is the number of its row."""
        row = next(read_rows(self.films.path, [], encoding=self.films.encoding), {})
        return self.films.columns.id in row

    def count(self) -> int:
        """Count the rows, for the progress."""
        return sum(1 for _ in read_rows(self.films.path, [], optional=[], encoding=self.films.encoding))

    def chunks(self) -> Iterator[list[NewFilm]]:
        """Read the films, `CHUNK` at a time.

        Raises:
            DataError: The file has changed since it was opened.
        """
        self.state.check_unchanged()
        yield from self.films.chunks(CHUNK)
        self.state.check_unchanged()


def vectors_of(scorer: Scorer, cells: Sequence[Cells]) -> NDArray[np.float32]:
    """Give a vector of each film: of length 1 from the backbone, or the probabilities of a run without one."""
    parts = []
    for start in range(0, len(cells), CHUNK):
        part = cells[start : start + CHUNK]
        if isinstance(scorer, ModelScorer) and scorer.pools:
            states = scorer.pooled(part)
            parts.append(states / np.maximum(np.linalg.norm(states, axis=1, keepdims=True), 1e-9))
        else:
            parts.append(scorer.decision.probabilities(scorer.logits(part)))
    return np.concatenate(parts)
