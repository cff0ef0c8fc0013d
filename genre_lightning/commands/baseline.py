"""`genre-lightning baseline`: models that count words, on the same films and judged in the same way as any other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jsonargparse import Namespace

from genre_lightning.commands.baseline_options import baseline_parser
from genre_lightning.commands.words import default_run_dir, with_run_config
from genre_lightning.config.arguments import in_one_line
from genre_lightning.config.changes import check_same_training
from genre_lightning.config.data import DataOptions
from genre_lightning.config.guard import check_arguments, instantiate
from genre_lightning.data.movies import check_data
from genre_lightning.data.prepare import PreparedFilms, prepare_films
from genre_lightning.distributed.ranks import tell
from genre_lightning.errors import check_all
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
    show,
    undone_if_refused,
)

# data.* options that a model of words does not read; they are accepted so that one data section serves every model
_OF_TOKENS = ("tokenizer", "revision", "vocab_size", "max_tokens", "global_batch_size")
_WITHOUT_EFFECT = tuple(f"data.{name}" for name in _OF_TOKENS)


@dataclass
class BaselineSetup:
    """A checked configuration of a baseline; nothing is read or written yet."""

    config: Namespace
    config_text: str
    run: RunDirectory
    data: DataOptions
    model: TfidfBaseline


def tfidf_nb(arguments: Sequence[str]) -> int:
    """TF-IDF and naive Bayes."""
    return _run("tfidf_nb", arguments)


def tfidf_logreg(arguments: Sequence[str]) -> int:
    """TF-IDF and logistic regression."""
    return _run("tfidf_logreg", arguments)


def _run(name: str, arguments: Sequence[str]) -> int:
    setup = check_baseline(name, with_run_config(arguments, f"baseline {name}"))
    run = setup.run
    override = setup.config.override
    changed = check_same_training(run, setup.config_text, override=override, without_effect=_WITHOUT_EFFECT)
    data = prepare_films(setup.data, kept_splits(run))
    with locked(run):
        anew = check_films(run, data, setup.data.source.path, override=override) or bool(changed)
        with undone_if_refused(run):
            begin(run, setup.config_text, data, anew=anew)
            results = finished_results(run)
            if results is None:
                for difference in changed:
                    tell(f"overriding {difference}")
                results = _train_and_evaluate(setup, data)
        show(run, results, as_json=setup.config.json)
    return 0


def check_baseline(name: str, arguments: Sequence[str]) -> BaselineSetup:
    """The setup of a baseline, every problem of its configuration named at once.

    Raises:
        ConfigError, DataError: nothing has been written.
    """
    check_arguments(arguments)
    parser = baseline_parser(name)
    config = in_one_line(f"baseline {name}", arguments, parser.parse_args)
    config.data.csv = str(Path(config.data.csv).expanduser().absolute())
    run = RunDirectory(Path(config.run_dir or default_run_dir(arguments)).expanduser().absolute())
    config.run_dir = run.path
    instances = instantiate(parser, config, run.path)
    check_all((lambda: check_data(instances.data), instances.model.check, run.check_writable))
    return BaselineSetup(config, parser.dump(config, skip_none=False), run, instances.data, instances.model)


def _train_and_evaluate(setup: BaselineSetup, data: PreparedFilms) -> dict[str, dict[str, Any]]:
    run, model, seed = setup.run, setup.model, setup.config.seed
    train = data.splits["train"]
    genres = data.vocabulary.names
    if absent := [genres[column] for column in np.flatnonzero(~train.labels.any(axis=0))]:
        tell(f"no training film has {', '.join(absent)}: the model knows nothing of them")
    started = time.monotonic()
    model.fit(data.films.strings("text", data.rows[train.films]), train.labels, genres, seed)
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
    options = setup.config.decision.as_dict()
    decision = fit_decision(predicted["validation"], "validation", seed=seed, checkpoint_sha256=sha256, **options)
    write_decision(decision, run.decision)
    results = {
        split: evaluate_split(run, data, predictions, decision, split, seed) for split, predictions in predicted.items()
    }
    finish(run)
    return results


def _predict(model: TfidfBaseline, data: PreparedFilms, split: str) -> Predictions:
    texts = data.films.strings("text", data.rows[data.splits[split].films])
    return predictions_of(data, split, model.logits(texts))
