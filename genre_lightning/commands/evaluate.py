"""`genre-lightning validate`, `test` and `predict`: a trained run at work, from its directory alone."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from genre_lightning.callbacks.loggers import closing
from genre_lightning.callbacks.tracking import log_evaluation
from genre_lightning.commands.build import Setup, bind_model, build_trainer, check_setup, is_first_rank, tell
from genre_lightning.commands.evaluation import (
    evaluate_split,
    fit_and_store_decision,
    load_decision,
    predict_split,
    restore_weights,
    steps_done,
)
from genre_lightning.commands.parser import parse
from genre_lightning.commands.words import with_run_config, with_run_named
from genre_lightning.distributed.watch import explaining_failures, watch_ranks
from genre_lightning.evaluation.console import print_headlines
from genre_lightning.evaluation.report import write_report
from genre_lightning.runs import RunDirectory, check_same_training


def open_run(command: str, arguments: Sequence[str], *, films: bool = True) -> Setup:
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
    RunDirectory(Path(config.run_dir)).require_trained()
    setup = check_setup(config, parser, films=films)
    if films:
        check_same_training(setup.run, setup.config_text, override=config.override)
    return setup


def validate(arguments: Sequence[str]) -> int:
    """Evaluates the validation split, and fits the decision on it where the run has none."""
    return _evaluate("validation", open_run("validate", arguments))


def test(arguments: Sequence[str]) -> int:
    """Evaluates the test split with the decision that was fitted on validation."""
    return _evaluate("test", open_run("test", arguments))


def _evaluate(split: str, setup: Setup) -> int:
    watch_ranks()
    with explaining_failures():
        return _evaluate_split(split, setup)


def _evaluate_split(split: str, setup: Setup) -> int:
    bind_model(setup)
    trainer, _ = build_trainer(setup)
    restore_weights(setup.model, setup.run.best)
    fits = split == "validation" and not setup.run.decision.is_file()
    decision = None if fits else load_decision(setup)
    predictions = predict_split(trainer, setup.model, setup.data, split)
    if not is_first_rank():
        return 0
    decision = decision or fit_and_store_decision(setup, predictions)
    result = evaluate_split(setup.run, setup.data.prepare(), predictions, decision, split, setup.config.seed)
    with closing(trainer.loggers):
        log_evaluation(trainer.loggers, setup.run.evaluation(split), result, steps_done(setup.run))
    write_report(setup.run.path)
    if setup.config.json:
        print(json.dumps(result))
    else:
        print_headlines(result, sys.stdout)
        tell(f"written to {setup.run.evaluation(split).path}")
    return 0
