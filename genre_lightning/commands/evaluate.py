"""`genre-lightning validate`, `test` and `predict`: a trained run at work, from its directory alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

from genre_lightning.commands.words import with_run_config, with_run_named
from genre_lightning.config.changes import check_same_training
from genre_lightning.data.prepare import PreparedData
from genre_lightning.distributed.ranks import is_first_rank, tell
from genre_lightning.distributed.watch import explaining_failures, watch_ranks
from genre_lightning.errors import CheckpointError, one_line
from genre_lightning.evaluation.console import print_headline, print_headlines
from genre_lightning.evaluation.decisions import Decision
from genre_lightning.evaluation.report import write_report
from genre_lightning.models.restore import restore_weights
from genre_lightning.runs import open_run
from genre_lightning.training.evaluate import (
    evaluate_split,
    fit_and_store_decision,
    load_decision,
    predict_split,
    steps_done,
)
from genre_lightning.training.loggers.build import closing
from genre_lightning.training.loggers.tracking import log_evaluation
from genre_lightning.training.parser import parse
from genre_lightning.training.resume import check_films, kept_splits, locked
from genre_lightning.training.setup import Setup, bind_model, build_trainer, check_setup


def trained_setup(command: str, arguments: Sequence[str], *, films: bool = True) -> Setup:
    """The setup of a run that has been trained.

    Args:
        command: for messages.
        arguments: of it.
        films: whether the run's own films are needed; without, its best checkpoint says what it is, whatever of the
            training the configuration says.

    Raises:
        ConfigError, CheckpointError: no run directory, no run in it, or one that has not finished training.
    """
    config, parser = parse(command, with_run_config(with_run_named(command, arguments)))
    open_run(config.run_dir)
    setup = check_setup(config, parser, films=films)
    if films:
        check_same_training(setup.run, setup.config_text, override=config.override)
        setup.data.keep_splits(kept_splits(setup.run))
    return setup


def validate(arguments: Sequence[str]) -> int:
    """Evaluates the validation split, and fits the decision on it where the run has none."""
    return _evaluate("validation", trained_setup("validate", arguments))


def test(arguments: Sequence[str]) -> int:
    """Evaluates the test split with the decision that was fitted on validation."""
    return _evaluate("test", trained_setup("test", arguments))


def _evaluate(split: str, setup: Setup) -> int:
    watch_ranks()
    with explaining_failures():
        return _evaluate_split(split, setup)


def _evaluate_split(split: str, setup: Setup) -> int:
    data = bind_model(setup)
    check_films(setup.run, data, setup.data.options.source.path, override=setup.config.override)
    setup.run.check_writable()
    with locked(setup.run):
        return _evaluate_locked(split, setup, data)


def _evaluate_locked(split: str, setup: Setup, data: PreparedData) -> int:
    decision = _stored_decision(split, setup, data)
    trainer, _ = build_trainer(setup)
    restore_weights(setup.model, setup.run.best)
    predictions = predict_split(trainer, setup.model, setup.data, split)
    if not is_first_rank():
        return 0
    if decision is None:
        decision = fit_and_store_decision(setup, predictions)
        tell(f"the decision is new: run 'genre-lightning test --run_dir {setup.run.path}' for test metrics under it")
    result = evaluate_split(
        setup.run, data, predictions, decision, split, setup.config.seed, trainer.strategy.root_device
    )
    with closing(trainer.loggers):
        log_evaluation(trainer.loggers, setup.run.evaluation(split), result, steps_done(setup.run))
    write_report(setup.run.path)
    if setup.config.json:
        print(json.dumps(result))
    else:
        print_headlines(result, sys.stdout)
        print_headline(result, sys.stdout)
        tell(f"written to {setup.run.evaluation(split).path}")
    return 0


def _stored_decision(split: str, setup: Setup, data: PreparedData) -> Decision | None:
    """The run's decision; None for one that `validate` fits anew as it is missing, damaged or of another checkpoint."""
    try:
        return load_decision(setup).for_genres(data.vocabulary.names)
    except CheckpointError as error:
        if split != "validation":
            raise
        tell(one_line(error).partition(": run ")[0])
        return None
