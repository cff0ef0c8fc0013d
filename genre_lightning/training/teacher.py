"""Distillation: the probabilities that trained runs, ensembles or tables of these have of the training films."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import numpy as np
import torch
from numpy.typing import NDArray

from genre_lightning.cache import build_once, key_of
from genre_lightning.config.classifier import ClassifierOptions
from genre_lightning.config.continuation import ContinueOptions
from genre_lightning.data.kept_splits import KeptSplits
from genre_lightning.data.prepare import PreparedData, progress_bar
from genre_lightning.distributed.ranks import is_first_rank, tell
from genre_lightning.errors import CheckpointError, ConfigError
from genre_lightning.evaluation.runs import Run
from genre_lightning.files import file_digest, replacing
from genre_lightning.inference.other_films import sides_of
from genre_lightning.inference.scoring import open_scorer
from genre_lightning.inference.soft_labels import SoftLabels, log_odds_of
from genre_lightning.runs import RunDirectory

if TYPE_CHECKING:
    from genre_lightning.training.setup import Setup

_FORMAT = 1
_FILE = "log_odds.npy"
_KEPT = "distillation.npz"
"""In the run directory."""


def teachers_of(named: list[str] | str | None) -> list[str]:
    """Return the paths that `model.teacher` names."""
    return list(named) if isinstance(named, list) else [named] if named else []


def check_teachers(options: ClassifierOptions, continuation: ContinueOptions, *, trains: bool, continues: bool) -> None:
    """Refuse teachers that cannot be used, before anything is read.

    Args:
        options: Of the model.
        continuation: How it continues from another run.
        trains: Whether the model is trained.
        continues: Whether it continues from another run.

    Raises:
        ConfigError, CheckpointError: With the fix.
    """
    if options.teacher is None:
        return
    if not trains:
        raise ConfigError(f"model.teacher is {options.teacher} for a model that is not trained: leave it out")
    if continues and continuation.distilled:
        raise ConfigError(
            f"model.teacher is {options.teacher}, and continue.replay {continuation.replay} distils from the run that "
            "is continued: leave model.teacher out, or set continue.distillation=0"
        )
    if not (names := teachers_of(options.teacher)):
        raise ConfigError("model.teacher is an empty list: name a run or a table, or leave it out")
    for name in names:
        _check(Path(name))


def _check(path: Path) -> None:
    if path.suffix == ".parquet":
        SoftLabels.read(path)
        return
    run = RunDirectory(path)
    if not run.config.is_file():
        raise CheckpointError(
            f"model.teacher {path} is neither a run directory nor a table of 'genre-lightning folds': name a run of "
            "fit, baseline or ensemble, or logits.parquet"
        )
    run.require_trained()
    Run(path).require_finished()


def teach(setup: Setup, data: PreparedData) -> None:
    """Have a training learn its teachers' probabilities too, if it has any.

    They are predicted once and kept in the run directory, so that a resumed training needs no teacher. Until then each
    node of several predicts for its own ranks.

    Raises:
        ConfigError: A teacher knows films of validation or test, none of the training films, or none of the genres.
        CheckpointError: It cannot be opened.
    """
    options = setup.model.options
    if options.teacher is None or not setup.model.trains:
        return
    train = data.splits["train"]
    key = key_of([_FORMAT, options.teacher, train.sha256, data.vocabulary.names])
    path = setup.run.path / _KEPT
    kept = _kept(path, key)
    if kept is None:
        kept = _mean([_predicted(Path(name), setup, data) for name in teachers_of(options.teacher)])
        kept = kept.astype(np.float16)
        if is_first_rank():
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.savez(file, log_odds=kept, key=np.array(key))
    setup.data.distil(kept.astype(np.float32))
    setup.model.distillation = options.teacher_weight


def check_labeller(setup: Setup, data: PreparedData) -> None:
    """Refuse another run than the parent that gave pseudo-labels and has seen this run's validation or test films.

    Raises:
        ConfigError: It was trained on such films.
    """
    options = getattr(setup.config, "self_training", None)
    if options is None or options.teacher is None or not setup.data.options.unlabelled_files:
        return
    if setup.run.corrections.is_file():  # pseudo-labels of an earlier start
        return
    run = RunDirectory(Path(options.teacher))
    trained = [_films_of(kept, lambda side: side == "train") for kept in sides_of(run)]
    _refuse_held_out(f"self_training.teacher {run.path}", data, trained)


def is_taught(run: RunDirectory) -> bool:
    """Return whether a run keeps its teacher's predictions."""
    return (run.path / _KEPT).is_file()


def _kept(path: Path, key: str) -> NDArray[Any] | None:
    """Return the log-odds that a run keeps; None if they are of another teacher or other films, or not whole."""
    try:
        with path.open("rb") as stream, np.load(stream) as file:  # closed too if it is not an archive
            return np.asarray(file["log_odds"]) if str(file["key"]) == key else None
    except (OSError, ValueError, KeyError, EOFError, BadZipFile):
        return None


def _mean(log_odds: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Return the mean over the teachers that know a film and genre; NaN if none does."""
    stacked = np.stack(log_odds)
    known = (~np.isnan(stacked)).sum(axis=0)
    total = np.nansum(stacked, axis=0)
    return np.divide(total, known, out=np.full_like(total, np.nan), where=known > 0)


def _predicted(path: Path, setup: Setup, data: PreparedData) -> NDArray[np.float32]:
    """Return the log-odds (training films, genres): NaN for films and genres that the teacher does not know."""
    films = len(data.splits["train"].films)
    if path.suffix == ".parquet":
        genres, log_odds = _of_table(path, data)
    else:
        genres, log_odds = _of_run(RunDirectory(path), setup, data)
    column = {name: place for place, name in enumerate(data.vocabulary.names)}
    own = [place for place, name in enumerate(genres) if name in column]
    if not own:
        raise ConfigError(f"model.teacher {path} knows none of the genres of the films: name another, or leave it out")
    taught = int((~np.isnan(log_odds).all(axis=1)).sum())
    if not taught:
        raise ConfigError(f"model.teacher {path} has none of the {films:,} training films: make it of the same files")
    tell(f"teacher {path}: {taught:,} of {films:,} training films, {len(own)} of {len(column)} genres")
    found = np.full((films, len(column)), np.nan, dtype=np.float32)
    found[:, [column[genres[place]] for place in own]] = log_odds[:, own]
    return found


def _of_table(path: Path, data: PreparedData) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    table = SoftLabels.read(path)
    _refuse_held_out(f"model.teacher {path}", data, [(set(table.ids), set(table.digests))])
    own, numbered = data.sides, data.films.numbered
    digest_of = dict(zip(own.ids, own.digests, strict=True))
    # a film is the same if its id and its text are; numbers of rows say nothing
    keys = [(None if numbered else name, digest) for name, digest in zip(table.ids, table.digests, strict=True)]
    place = {key: row for row, key in enumerate(keys)}
    wanted = [(None if numbered else name, digest_of[name]) for name in map(str, _training_ids(data))]
    rows = np.array([place.get(key, -1) for key in wanted], dtype=np.int64)
    log_odds = np.full((len(rows), len(table.genres)), np.nan, dtype=np.float32)
    log_odds[rows >= 0] = table.log_odds[rows[rows >= 0]]
    return table.genres, log_odds


def _of_run(run: RunDirectory, setup: Setup, data: PreparedData) -> tuple[tuple[str, ...], NDArray[np.float32]]:
    trained = [_films_of(kept, lambda side: side == "train") for kept in sides_of(run)]
    _refuse_held_out(f"model.teacher {run.path}", data, trained)
    own, ids = data.sides, _training_ids(data)
    digest_of = dict(zip(own.ids, own.digests, strict=True))
    known = {digest for _, digests in trained for digest in digests}
    if seen := sum(digest_of.get(str(name)) in known for name in ids):
        tell(
            f"model.teacher {run.path} was trained on {seen:,} of the {len(ids):,} training films, of which it is "
            "surer than of new ones: 'genre-lightning folds' makes probabilities of films out of fold"
        )
    options = setup.data.options
    files = [file_digest(path) for path in _files_of(setup)]
    key = key_of([_FORMAT, file_digest(run.decision), files, options.reading, data.splits["train"].sha256])

    def build(folder: Path) -> dict[str, Any]:
        scorer = open_scorer(run.path)
        with progress_bar()("Asking the teacher", len(ids)) as progress:
            log_odds = log_odds_of(scorer, options, ids, progress or (lambda films: None))
        np.save(folder / _FILE, log_odds)
        return {"genres": list(scorer.decision.genres)}

    folder, kept = build_once(options.cache / "teachers", key, build)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # the teacher's memory is the student's
    return tuple(kept["genres"]), np.load(folder / _FILE)


def _files_of(setup: Setup) -> list[Path]:
    sources = setup.data.options.sources
    return [*(source.path for source in sources), *(Path(join.file) for join in sources[0].join)]


def _training_ids(data: PreparedData) -> list[Any]:
    ids: list[Any] = data.films.ids[data.rows[data.splits["train"].films]].tolist()
    return ids


def _films_of(kept: KeptSplits, wanted: Any) -> tuple[set[str], set[bytes]]:
    """Return the ids, if they are not numbers of rows, and digests of the texts of the films on the wanted sides."""
    films = [place for place, side in enumerate(kept.sides) if wanted(side)]
    ids = set() if kept.numbered else {kept.ids[place] for place in films}
    return ids, {kept.digests[place] for place in films}


def _refuse_held_out(teacher: str, data: PreparedData, trained: Sequence[tuple[set[str], set[bytes]]]) -> None:
    """Refuse a teacher that was trained on films of validation or test, whose labels it would pass on."""
    ids, digests = _films_of(data.sides, lambda side: side != "train")
    seen = {digest for _, theirs in trained for digest in theirs & digests}
    by_id = set() if data.films.numbered else {name for theirs, _ in trained for name in theirs & ids}
    if count := max(len(seen), len(by_id)):
        raise ConfigError(
            f"{teacher} was trained on {count:,} of this run's validation and test films, whose metrics it "
            "would flatter: name a teacher of the same data.csv, data.split, data.seed and data.max_films"
        )
