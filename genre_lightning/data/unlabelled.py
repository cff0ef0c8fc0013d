"""Films without genres: what a training may read beside the films of its training split."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from genre_lightning.config.data import DataOptions
from genre_lightning.data.films import FilmTable
from genre_lightning.data.kept_splits import as_bytes
from genre_lightning.data.prepare import PreparedFilms, read_files
from genre_lightning.data.splits import text_digests


@dataclass(frozen=True)
class UnlabelledFilms:
    """Films without genres.

    Attributes:
        films: All films of their files, with and without genres.
        rows: int64, ascending: positions of those without, each of a text of its own.
        held_out: How many more have the text or the id of a film of the splits, or a text twice, and are left out.
    """

    films: FilmTable
    rows: NDArray[np.int64]
    held_out: int


def without_genres(options: DataOptions, with_genres: FilmTable) -> tuple[FilmTable, NDArray[np.int64]]:
    """Find the films of the movies files that have no genres.

    Args:
        options: Of the data.
        with_genres: The other films of the files.

    Returns:
        All films, and int64, ascending: positions of those without genres.

    Raises:
        DataError: A file cannot be read.
    """
    everything = read_files(options, require_genres=False)
    labelled = set(map(str, with_genres.ids.tolist()))
    return everything, np.flatnonzero([str(name) not in labelled for name in everything.ids.tolist()])


def films_without_genres(options: DataOptions, prepared: PreparedFilms) -> UnlabelledFilms:
    """Find the films of the movies files that have no genres, and no text or id of a film of the splits.

    Args:
        options: Of the data.
        prepared: The films with genres.

    Raises:
        DataError: A file cannot be read.
    """
    films, rows = without_genres(options, prepared.films)
    sides = prepared.sides
    ids, seen, kept = set(sides.ids), set(sides.digests), []
    texts = as_bytes(text_digests(films.strings("overview", rows))) if len(rows) else []
    for row, name, text in zip(rows.tolist(), films.ids[rows].tolist(), texts, strict=True):
        if str(name) not in ids and text not in seen:
            seen.add(text)
            kept.append(row)
    return UnlabelledFilms(films, np.array(kept, dtype=np.int64), len(rows) - len(kept))
