"""The films of a monitored file as a run sees them, beside its validation films, with labels that have arrived."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType

import numpy as np

from genre_lightning.config.columns import FilmSource, TextTemplate
from genre_lightning.config.decision import SHIPPED_POLICY
from genre_lightning.data.films import FilmTable, load_films
from genre_lightning.data.kept_splits import as_bytes
from genre_lightning.data.known_labels import known_of_other_films
from genre_lightning.data.movies import source_rows
from genre_lightning.data.splits import text_digests
from genre_lightning.errors import DataError
from genre_lightning.evaluation.runs import Run
from genre_lightning.inference.other_films import rules_of
from genre_lightning.inference.run_settings import Cells
from genre_lightning.inference.scoring import EnsembleScorer, Scorer
from genre_lightning.learning.drift import Tagged
from genre_lightning.learning.film_file import FilmFile
from genre_lightning.learning.store import FeedbackStore
from genre_lightning.runs import RunDirectory

FEWEST_FILMS = 30
"""Fewer tell nothing."""

Labels = Mapping[bytes, frozenset[str]]
"""Genres by the digest of the overview."""
KnownGenres = Mapping[bytes, frozenset[str]]
"""Genres of which the label is known, by the digest of the overview; of a film that is not there, all are known."""


def reference_of(run: RunDirectory) -> Tagged:
    """Give the validation films of a run.

    Raises:
        CheckpointError: They are missing or damaged.
    """
    stored = Run(run.path).predictions("validation")
    films = stored.predictions
    everyone = np.ones(len(films), dtype=bool)
    return Tagged(films.texts, stored.probabilities, stored.decided, films.labels, everyone, films.known)


def labels_in_file(file: FilmFile, cache_dir: Path) -> dict[bytes, frozenset[str]]:
    """Read the genres that the file has, however they are written; nothing if it has no column of genres.

    Raises:
        DataError: The file cannot be read.
    """
    table = _labelled_films(_source_of(file), cache_dir)
    return {} if table is None else dict(zip(_digests_of(table), map(frozenset, table.genres()), strict=True))


def known_labels_in_file(
    file: FilmFile, cache_dir: Path, run: RunDirectory, genres: Sequence[str]
) -> tuple[dict[bytes, frozenset[str]], dict[bytes, frozenset[str]]]:
    """Read the genres that the file has, and those of which its labels are known by the run's options.

    Args:
        file: The file.
        cache_dir: Root of the cache.
        run: The run.
        genres: That it knows.

    Returns:
        `Labels` and `KnownGenres`.
    """
    rules = rules_of(run)
    table = _labelled_films(rules.reading(replace(_source_of(file), join=file.films.join)), cache_dir)
    if table is None:
        return {}, {}
    digests, found = _digests_of(table), [frozenset(names) for names in map(rules.speller(genres), table.genres())]
    labels = np.array([[name in names for name in genres] for names in found], dtype=bool).reshape(-1, len(genres))
    known = known_of_other_films(rules, table, np.arange(len(table)), labels, genres, file.films.path.name)
    said = dict(zip(digests, found, strict=True))
    if known is None:
        return said, {}
    names = np.array(genres, dtype=object)
    return said, {digest: frozenset(names[row]) for digest, row in zip(digests, known, strict=True)}


def _source_of(file: FilmFile) -> FilmSource:
    films = file.films
    return FilmSource(films.path, films.columns, TextTemplate("{overview}"), encoding=films.encoding)


def _labelled_films(source: FilmSource, cache_dir: Path) -> FilmTable | None:
    try:
        next(source_rows(source), None)
        return load_films(source, cache_dir)
    except DataError:  # no such column, or no film has genres yet; what else is wrong has been found before
        return None


def _digests_of(table: FilmTable) -> list[bytes]:
    return as_bytes(text_digests(table.strings("overview")))


def labels_in_feedback(database: Path) -> dict[bytes, frozenset[str]]:
    """Read the genres on which all people agree; nothing without a database.

    Raises:
        DataError: The database cannot be used.
    """
    if not database.is_file():
        return {}
    said: dict[bytes, set[frozenset[str]]] = {}
    with FeedbackStore(database) as store:
        for row in store.rows(newest=True):
            said.setdefault(row.digest, set()).add(frozenset(row.genres))
    return {digest: next(iter(opinions)) for digest, opinions in said.items() if len(opinions) == 1}


def tag_file(
    file: FilmFile,
    scorer: Scorer,
    known: set[bytes],
    labels: Labels,
    done: Callable[[int], None],
    known_genres: KnownGenres = MappingProxyType({}),
) -> tuple[Tagged, int]:
    """Tag the films of a file.

    Args:
        file: The file.
        scorer: The run.
        known: Digests of films that the run was trained or evaluated on, which are left out.
        labels: That have arrived.
        done: Called with the number of rows that have been read.
        known_genres: Genres of which the labels are known.

    Returns:
        The films, and how many were left out.

    Raises:
        DataError: Too few films are left.
    """
    genres = scorer.decision.genres
    place = {name: column for column, name in enumerate(genres)}
    texts: list[str] = []
    logits, truths, masks = [], [], []
    left_out = 0
    for chunk in file.chunks():
        films = [film for film in chunk if film.reason is None]
        digests = [row.tobytes() for row in text_digests(film.cells["overview"] for film in films)]
        new = [number for number, digest in enumerate(digests) if digest not in known]
        left_out += len(films) - len(new)
        cells = [films[number].cells for number in new]
        texts += filled(scorer, cells)
        logits.append(scorer.logits(cells))
        truths += [labels.get(digests[number]) for number in new]
        masks += [known_genres.get(digests[number]) for number in new]
        done(len(chunk))
    if len(texts) < FEWEST_FILMS:
        raise DataError(
            f"{file.films.path} has {len(texts):,} films that the run does not know ({left_out:,} are its own): give "
            f"{FEWEST_FILMS} or more"
        )
    probabilities = scorer.decision.probabilities(np.concatenate(logits))
    labelled = np.array([truth is not None for truth in truths])
    truth = np.zeros(probabilities.shape, dtype=bool)
    for row, names in enumerate(truths):
        truth[row, [place[name] for name in names or () if name in place]] = True
    known_labels = None
    if any(mask is not None for mask in masks):
        known_labels = np.array([[mask is None or name in mask for name in genres] for mask in masks])
    new_genres = Counter(name for names in truths for name in names or () if name not in place)
    decided = scorer.decision.decide(probabilities, SHIPPED_POLICY)
    return Tagged(texts, probabilities, decided, truth, labelled, known_labels, new_genres), left_out


def filled(scorer: Scorer, cells: Sequence[Cells]) -> list[str]:
    """Give what the run reads of films; of an ensemble, its first run."""
    while isinstance(scorer, EnsembleScorer):
        scorer = scorer.members[0]
    return scorer.texts(cells)  # type: ignore[attr-defined]  # every other scorer fills a template
