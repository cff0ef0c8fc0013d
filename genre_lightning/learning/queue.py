"""The queue of films to label next: read, scored, chosen, and written for people to fill in."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from genre_lightning.config.decision import SHIPPED_POLICY
from genre_lightning.data.new_films import NewFilm
from genre_lightning.data.splits import text_digests
from genre_lightning.errors import DataError
from genre_lightning.evaluation.runs import Run
from genre_lightning.inference.other_films import sides_of
from genre_lightning.inference.scoring import Scorer
from genre_lightning.learning.feedback_files import FIELD, joined
from genre_lightning.learning.film_file import FilmFile, vectors_of
from genre_lightning.learning.selection import POOL, best_films, diverse_films, reason, score_films
from genre_lightning.learning.store import FeedbackStore
from genre_lightning.runs import RunDirectory


@dataclass
class KnownFilms:
    """Films that need no label: those that a run has learnt from or is measured on, and those that people labelled.

    Attributes:
        digests: Of normalised overviews.
        ids: Of films; empty if ids are not compared.
    """

    digests: set[bytes] = field(default_factory=set)
    ids: set[str] = field(default_factory=set)

    def of_run(self, run: RunDirectory, *, same_ids: bool) -> KnownFilms:
        """Add the films of a run, whatever their side.

        Raises:
            CheckpointError: The run does not record which they are.
        """
        for sides in sides_of(run):
            self.digests.update(sides.digests)
            if same_ids and not sides.numbered:
                self.ids.update(sides.ids)
        return self


@dataclass(frozen=True)
class Queue:
    """Films to label.

    Attributes:
        rows: Of the CSV.
        rows_read: Rows of the file.
        known: Of them, films that need no label, or that the file has twice.
        unreadable: Of them, films without an overview.
    """

    rows: list[dict[str, Any]]
    rows_read: int
    known: int
    unreadable: int

    @property
    def candidates(self) -> int:
        """Films that could have been chosen."""
        return self.rows_read - self.known - self.unreadable


def training_counts(run: RunDirectory, genres: Collection[str]) -> NDArray[np.float64]:
    """Count the training films of each genre; of a run without an audit, such as an ensemble, the validation films.

    Raises:
        CheckpointError: A file of the run is damaged.
    """
    found = Run(run.path)
    splits = (found.audit() or {}).get("splits") or {}
    if "train" in splits:
        counts = splits["train"]["genres"]
    else:
        predictions = found.predictions("validation").predictions
        counts = dict(zip(predictions.genres, predictions.labels.sum(axis=0).tolist(), strict=True))
    return np.array([counts.get(genre, 0) for genre in genres], dtype=np.float64)


def make_queue(
    file: FilmFile,
    scorer: Scorer,
    run: RunDirectory,
    known: KnownFilms,
    *,
    size: int,
    rare_weight: float,
    seed: int,
    done: Callable[[int], None],
) -> Queue:
    """Choose films to label; equal seeds give equal queues on one machine.

    Args:
        file: Films without labels.
        scorer: The run.
        run: Its directory.
        known: Films to leave out.
        size: Films to choose.
        rare_weight: See `score_films`.
        seed: Random seed of the clusters.
        done: Called with the number of rows that have been read.

    Raises:
        DataError: The file has no film that could be chosen.
    """
    decision, genres = scorer.decision, scorer.decision.genres
    rows, logits, counts = _score(file, scorer, known, done)
    if not len(rows):
        raise DataError(
            f"{file.films.path} has no film to label: {counts['known']:,} of {counts['rows_read']:,} are known to the "
            f"run or labelled, {counts['unreadable']:,} have no overview"
        )
    scale, shift = decision.affine
    thresholds, positives = decision.thresholds(SHIPPED_POLICY), training_counts(run, genres)
    scores = score_films(logits.astype(np.float64) * scale + shift, thresholds, positives, rare_weight)
    pool = best_films(scores.score, POOL * size)
    films = _films_at(file, rows[pool])
    vectors = vectors_of(scorer, [film.cells for film in films])
    chosen, like_it = diverse_films(vectors, scores.score[pool], size, seed)
    probabilities = decision.probabilities(logits)
    decided = decision.decide(probabilities)
    table = []
    for place, alike in zip(chosen.tolist(), like_it.tolist(), strict=True):
        film, at = films[place], pool[place]
        why = reason(
            genres, probabilities[at], thresholds, positives, scores.uncertainty[at], scores.rare[at], alike
        )  # fmt: skip
        others = {
            name: cell if isinstance(cell, str) else json.dumps(cell)
            for name, cell in film.cells.items()
            if name not in ("overview", "title")
        }
        table.append(
            {
                "id": film.id,
                "title": film.title,
                "text": film.cells["overview"],
                "suggested": joined(np.array(genres, dtype=object)[decided[at]]),
                "genres": "",
                "user": "",
                "reason": why,
                "score": round(float(scores.score[at]), 4),
                **{f"{FIELD}{name}": cell for name, cell in others.items()},
                "run": str(run.path),
                "checkpoint_sha256": decision.checkpoint_sha256,
            }
        )
    return Queue(table, **counts)


def _score(
    file: FilmFile, scorer: Scorer, known: KnownFilms, done: Callable[[int], None]
) -> tuple[NDArray[np.int64], NDArray[np.float32], dict[str, int]]:
    """Return the row numbers of the candidates, their logits, and what became of the other rows."""
    rows: list[int] = []
    parts: list[NDArray[np.float32]] = []
    counts = {"rows_read": 0, "known": 0, "unreadable": 0}
    seen: set[bytes] = set()
    for chunk in file.chunks():
        cells = []
        digests = text_digests(film.cells.get("overview", "") for film in chunk)
        for number, (film, halves) in enumerate(zip(chunk, digests, strict=True), start=counts["rows_read"]):
            digest = halves.tobytes()
            if film.reason is not None:
                counts["unreadable"] += 1
            elif digest in known.digests or digest in seen or film.id in known.ids:
                counts["known"] += 1
            else:
                seen.add(digest)
                rows.append(number)
                cells.append(film.cells)
        counts["rows_read"] += len(chunk)
        parts.append(scorer.logits(cells))
        done(len(chunk))
    return np.array(rows, dtype=np.int64), np.concatenate(parts or [np.zeros((0, 0), np.float32)]), counts


def _films_at(file: FilmFile, rows: NDArray[np.int64]) -> list[NewFilm]:
    """Read the films of some rows again, in the order of `rows`."""
    wanted = set(rows.tolist())
    found: dict[int, NewFilm] = {}
    start = 0
    for chunk in file.chunks():
        found.update((start + place, film) for place, film in enumerate(chunk) if start + place in wanted)
        start += len(chunk)
    return [found[row] for row in rows.tolist()]


def labelled_in(database: Path) -> set[bytes]:
    """Return the digests of the texts that people have labelled; empty without a database.

    Raises:
        DataError: The database cannot be used.
    """
    if not database.is_file():
        return set()
    with FeedbackStore(database) as store:
        return store.digests()
