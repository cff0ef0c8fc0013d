"""A whole run of a model that counts words, on the same films and judged in the same way as any other."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import ArgumentParser, Namespace
from numpy.typing import NDArray

from genre_lightning.config.changes import check_same_training
from genre_lightning.config.columns import FilmSource
from genre_lightning.config.data import make_paths_absolute
from genre_lightning.config.guard import instantiate
from genre_lightning.data.features.matrix import input_matrix
from genre_lightning.data.prepare import PreparedFilms, prepare_films
from genre_lightning.distributed.ranks import tell
from genre_lightning.evaluation.decisions import fit_decision, write_decision
from genre_lightning.evaluation.predictions import Predictions
from genre_lightning.models.tfidf import TfidfBaseline
from genre_lightning.provenance import device_name, made_by
from genre_lightning.runs import RunDirectory
from genre_lightning.training.evaluate import evaluate_split, predictions_of
from genre_lightning.training.resume import (
    begin,
    check_films,
    finish,
    finished_results,
    kept_splits,
    locked,
    undone_if_refused,
)

# data.* options that a model of words does not read; they are accepted so that one data section serves every model
_OF_TOKENS = ("tokenizer", "revision", "vocab_size", "max_tokens", "global_batch_size")
_WITHOUT_EFFECT = tuple(f"data.{name}" for name in _OF_TOKENS)


def fit_baseline(config: Namespace, parser: ArgumentParser) -> tuple[RunDirectory, dict[str, dict[str, Any]]]:
    """Train and evaluate a baseline, resume it, or do nothing if it is finished.

    Args:
        config: Parsed, with a run directory.
        parser: That parsed it.

    Returns:
        The run, and what each split's metrics.json holds.

    Raises:
        ConfigError, DataError, CheckpointError: Nothing has been changed.
    """
    config = config.clone()
    make_paths_absolute(config.data)
    config.run_dir = Path(config.run_dir).expanduser().absolute()
    run, override = RunDirectory(config.run_dir), config.override
    made = instantiate(parser, config, run.path)
    text = parser.dump(config, skip_none=False)
    changed = check_same_training(run, text, override=override, without_effect=_WITHOUT_EFFECT)
    data = prepare_films(made.data, kept_splits(run))
    with locked(run):
        anew = check_films(run, data, made.data.source.path, override=override) or bool(changed)
        with undone_if_refused(run):
            begin(run, text, data, anew=anew)
            results = finished_results(run)
            if results is None:
                for difference in changed:
                    tell(f"overriding {difference}")
                results = _train_and_evaluate(run, made.model, config, data, made.data.source)
    return run, results


def _train_and_evaluate(
    run: RunDirectory, model: TfidfBaseline, config: Namespace, data: PreparedFilms, source: FilmSource
) -> dict[str, dict[str, Any]]:
    seed = config.seed
    train = data.splits["train"]
    genres = data.vocabulary.names
    if absent := [genres[column] for column in np.flatnonzero(~train.labels.any(axis=0))]:
        tell(f"no training film has {', '.join(absent)}: the model knows nothing of them")
    started = time.monotonic()
    texts, columns = data.films.strings("text", data.rows[train.films]), input_matrix(data.encoded, train.films)
    overviews = None if columns is None else _overviews(data, source, train.films)
    model.fit(texts, train.labels, genres, seed, data.inputs, columns, train.known, overviews)
    sha256 = model.write(run.baseline)
    seconds = time.monotonic() - started
    linear = model.fitted()
    tell(f"{model.name}: {len(linear.terms):,} terms, {model.parameters:,} parameters, trained in {seconds:.1f} s")
    run.set_status(
        "evaluating",
        train_seconds=round(seconds, 1),
        trainable_parameters=model.parameters,
        training=made_by(device_name()),
    )
    predicted = {split: _predict(model, data, split) for split in ("validation", "test")}
    options = config.decision.as_dict()
    decision = fit_decision(predicted["validation"], "validation", seed=seed, checkpoint_sha256=sha256, **options)
    write_decision(decision, run.decision)
    results = {
        split: evaluate_split(run, data, predictions, decision, split, seed) for split, predictions in predicted.items()
    }
    finish(run)
    return results


def _overviews(data: PreparedFilms, source: FilmSource, films: NDArray[np.int64]) -> list[str] | None:
    """Return the texts of films if nothing but their overviews is known; None if the texts have no overviews."""
    columns = source.template.columns(source.columns)
    of_overview = [name for name, column in columns.items() if column == source.columns.overview]
    if not of_overview:
        return None
    empty = dict.fromkeys(columns, "")
    overviews = data.films.strings("overview", data.rows[films])
    return [source.template.fill(empty | dict.fromkeys(of_overview, text)) for text in overviews]


def _predict(model: TfidfBaseline, data: PreparedFilms, split: str) -> Predictions:
    films = data.splits[split].films
    texts = data.films.strings("text", data.rows[films])
    return predictions_of(data, split, model.logits(texts, input_matrix(data.encoded, films)))
