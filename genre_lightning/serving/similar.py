"""Training films that are like a text, as evidence of where its genres come from."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genre_lightning.cache import default_cache_dir
from genre_lightning.data.splits import text_digests
from genre_lightning.errors import DataError
from genre_lightning.inference.other_films import sides_of
from genre_lightning.inference.tagger import Text
from genre_lightning.learning.film_file import vectors_of
from genre_lightning.learning.monitor import labels_in_file
from genre_lightning.serving.served import ServedRun

CHUNK = 16
"""Films whose vectors are computed together: requests wait for no more."""
_SHOWN_CHARACTERS = 300


def training_films(served: ServedRun, count: int) -> list[dict[str, Any]]:
    """Read a sample of the films that a run was trained on.

    Args:
        served: The run.
        count: Of the films; those whose digests are the smallest, so that they are the same each time.

    Returns:
        The cells of each, as the run reads them, and what is shown of it.

    Raises:
        DataError: The movies file is not where the run was trained on it, or has other films now.
    """
    file = served.movies_file()
    if file is None:
        raise DataError("the run does not name its movies file")
    train = {
        digest
        for sides in sides_of(served.run)
        for digest, side in zip(sides.digests, sides.sides, strict=True)
        if side == "train"
    }
    wanted = set(sorted(train)[:count])
    genres = labels_in_file(file, default_cache_dir())
    films = []
    for chunk in file.chunks():
        digests = text_digests(film.cells.get("overview", "") for film in chunk)
        for film, halves in zip(chunk, digests, strict=True):
            if halves.tobytes() in wanted:
                wanted.discard(halves.tobytes())
                text = str(film.cells.get("overview", ""))
                cut = textwrap.shorten(text, _SHOWN_CHARACTERS, placeholder=" …")
                shown = {"title": film.title, "text": cut}
                films.append({"cells": film.cells, **shown, "genres": sorted(genres.get(halves.tobytes(), ()))})
    if not films:
        raise DataError("the movies file has none of the training films")
    return films


class SimilarFilms:
    """Training films and their vectors, computed a chunk at a time.

    Args:
        served: The run.
        films: See `training_films`.
    """

    def __init__(self, served: ServedRun, films: list[dict[str, Any]]) -> None:
        self.served, self.films = served, films
        self._parts: list[NDArray[np.float32]] = []
        self.done = 0

    def step(self) -> bool:
        """Compute the vectors of the next films, in the model's thread; return whether any are left."""
        part = self.films[self.done : self.done + CHUNK]
        self._parts.append(_vectors(self.served, [film["cells"] for film in part]))
        self.done += len(part)
        return self.done < len(self.films)

    def nearest(self, film: Text, count: int) -> list[dict[str, Any]]:
        """Find the films whose vectors are nearest to that of a text, by their cosine."""
        if not self._parts:
            return []
        vector = _vectors(self.served, [self.served.tagger.cells(film)])[0]
        cosines = np.concatenate(self._parts) @ vector
        return [
            {**{name: self.films[row][name] for name in ("title", "text", "genres")}, "similarity": float(cosines[row])}
            for row in np.argsort(-cosines, kind="stable")[:count].tolist()
        ]


def _vectors(served: ServedRun, cells: list[Any]) -> NDArray[np.float32]:
    vectors = vectors_of(served.tagger.scorer, cells)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-9)
