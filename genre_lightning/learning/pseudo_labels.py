"""Films without labels as training films: the genres that a trained run is sure of, and unknown ones otherwise."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from genre_lightning.cache import build_once, key_of
from genre_lightning.config.continuation import SelfTrainingOptions
from genre_lightning.config.data import MAIN, DataOptions
from genre_lightning.data.corrections import Correction, read_corrections, write_corrections
from genre_lightning.data.kept_splits import KeptSplits, as_bytes
from genre_lightning.data.new_films import NewFilm
from genre_lightning.data.prepare import read_files
from genre_lightning.data.splits import text_digests
from genre_lightning.data.unlabelled import without_genres
from genre_lightning.distributed.ranks import tell
from genre_lightning.errors import ConfigError
from genre_lightning.evaluation.runs import Run
from genre_lightning.files import file_digest
from genre_lightning.inference.scoring import Scorer, open_scorer
from genre_lightning.learning.cutoffs import Cutoffs, fit_cutoffs
from genre_lightning.learning.film_file import FilmFile
from genre_lightning.runs import RunDirectory

_FORMAT = 1
_FILE = "labels.jsonl"


def pseudo_labels(options: DataOptions, parent: RunDirectory, settings: SelfTrainingOptions) -> list[Correction]:
    """Give the films of `data.unlabelled` the genres that a run is sure of.

    Films of the parent's splits and labelled films of the movies files are left out, by id and by text; those to which
    the parent itself gave pseudo-labels get new ones. The result is kept in the cache, so that all ranks of a node
    train on the same.

    Args:
        options: Of the data.
        parent: The run that is continued.
        settings: Of the teacher and its cut-offs.

    Raises:
        ConfigError, DataError, CheckpointError: A file or the teacher cannot be used, or no film gets a genre.
    """
    if options.reader is not None:
        raise ConfigError("data.unlabelled reads files, and data.reader yields films of its own: leave one of them out")
    teacher = RunDirectory(settings.teacher or parent.path)
    cutoffs, checkpoint = cutoffs_of(teacher, settings)
    files = [source.path for source in options.sources]
    files += [Path(name) for name in options.unlabelled_files if name != MAIN]
    if missing := [path for path in files if not path.is_file()]:
        raise ConfigError(f"data.unlabelled names {missing[0]}, which is not there: name a file of films, or {MAIN}")
    content = [_FORMAT, checkpoint, [file_digest(path) for path in files], options.reading, file_digest(parent.splits)]
    key = key_of([*content, {name: str(value) for name, value in asdict(settings).items()}])

    def build(folder: Path) -> dict[str, Any]:
        scorer = open_scorer(teacher.path)
        found = []
        films = 0
        for chunk in _new_films(options, parent, scorer):
            films += len(chunk)
            found += _labelled(chunk, scorer, cutoffs, settings.weight)
        write_corrections(found, folder / _FILE)
        return {"films": films}

    folder, kept = build_once(options.cache / "pseudo_labels", key, build)
    found = read_corrections(folder / _FILE)
    sure = int(np.isfinite(cutoffs.upper).sum())
    tell(
        f"pseudo-labels of {teacher.path.name}: {len(found):,} of {kept['films']:,} films without labels get a genre; "
        f"{sure} of {len(cutoffs.upper)} genres can be given with precision {settings.precision:g}"
    )
    if not found:
        raise ConfigError(
            f"none of {kept['films']:,} films of data.unlabelled gets a genre with self_training.precision "
            f"{settings.precision:g}: lower it, or leave data.unlabelled out"
        )
    return found


def cutoffs_of(teacher: RunDirectory, settings: SelfTrainingOptions) -> tuple[Cutoffs, str]:
    """Fit a run's cut-offs on its validation films.

    Returns:
        The cut-offs, and a digest that names the teacher's state.

    Raises:
        CheckpointError: The run is not finished or damaged.
        ConfigError: Its validation films are its test films.
    """
    teacher.require_trained()
    run = Run(teacher.path).require_finished()
    if run.test_is_validation:
        raise ConfigError(
            f"{teacher.path} has no validation films apart from its test films, on which no cut-offs are fitted: name "
            "a run with three fractions in data.split by self_training.teacher"
        )
    predictions, decision = run.predictions("validation").predictions, run.decision
    predictions.require_genres(decision.genres)
    cutoffs = fit_cutoffs(
        decision.probabilities(predictions.logits),
        predictions.labels,
        predictions.known,
        precision=settings.precision,
        negative_precision=settings.negative_precision,
    )
    return cutoffs, file_digest(teacher.decision)


def _new_films(options: DataOptions, parent: RunDirectory, scorer: Scorer) -> Iterator[list[NewFilm]]:
    """Yield the films to give genres to, a few at a time."""
    sides = KeptSplits.read(parent.splits)
    labelled = read_files(options)
    # numbers of rows are the ids of no film
    ids = {*([] if sides.numbered else sides.ids), *([] if labelled.numbered else map(str, labelled.ids.tolist()))}
    texts = {*sides.digests, *as_bytes(text_digests(labelled.strings("overview")))}
    if parent.corrections.is_file():
        earlier = [one.text for one in read_corrections(parent.corrections) if one.known is not None]
        texts -= set(as_bytes(text_digests(earlier)))
    main: set[str] | None = None
    for name in options.unlabelled_files:
        if name != MAIN:
            yield from _chunks(Path(name), options, scorer, ids, texts, None)
            continue
        everything, rows = without_genres(options, labelled)
        main = set(map(str, everything.ids[rows].tolist()))
        for source in options.sources:
            yield from _chunks(source.path, options, scorer, ids, texts, main)


def _chunks(
    path: Path, options: DataOptions, scorer: Scorer, ids: set[str], texts: set[bytes], only: set[str] | None
) -> Iterator[list[NewFilm]]:
    """Yield the usable films of a file, and add their texts to those that are known."""
    renamed = {} if options.columns is None else {n: v for n, v in vars(options.columns).items() if n != "genres"}
    file = FilmFile.of(path, scorer, renamed, options.encoding)
    ids = ids if file.has_ids else set()
    for chunk in file.chunks():
        kept = []
        digests = as_bytes(text_digests(film.cells.get("overview", "") for film in chunk))
        for film, digest in zip(chunk, digests, strict=True):
            known = digest in texts or film.id in ids
            if film.reason is None and not known and (only is None or film.id in only):
                texts.add(digest)
                kept.append(film)
        if kept:
            yield kept


def _labelled(films: list[NewFilm], scorer: Scorer, cutoffs: Cutoffs, weight: float) -> list[Correction]:
    """Return the films that get a genre."""
    decision = scorer.decision
    genres = np.array(decision.genres, dtype=object)
    probabilities = decision.probabilities(scorer.logits([film.cells for film in films]))
    positive, known = cutoffs.apply(probabilities)
    return [
        Correction(
            text=film.cells["overview"],
            genres=tuple(genres[positive[place]]),
            # as digits that a file keeps: every rank reads the same number
            weight=round(weight * float(probabilities[place][positive[place]].mean()), 4),
            title=film.title,
            fields={name: cell for name, cell in film.cells.items() if isinstance(cell, str)},
            known=tuple(genres[known[place]]),
        )
        for place, film in enumerate(films)
        if positive[place].any()
    ]
