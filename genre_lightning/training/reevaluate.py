"""A trained run at work, from its directory alone: opened for its commands, and evaluated again."""

from __future__ import annotations

from typing import Any

from jsonargparse import ArgumentParser, Namespace

from genre_lightning.config.changes import check_same_training, decision_changes, with_decision_of
from genre_lightning.data.prepare import PreparedData
from genre_lightning.distributed.ranks import is_first_rank, tell
from genre_lightning.distributed.watch import explaining_failures, watch_ranks
from genre_lightning.errors import CheckpointError, ConfigError, one_line
from genre_lightning.evaluation.decisions import Decision
from genre_lightning.evaluation.report import write_report
from genre_lightning.lineage import read_lineage
from genre_lightning.models.restore import restore_weights
from genre_lightning.training.continuation import use_lineage
from genre_lightning.training.evaluate import (
    evaluate_split,
    fit_and_store_decision,
    load_decision,
    predict_split,
    steps_done,
)
from genre_lightning.training.loggers.build import closing
from genre_lightning.training.loggers.tracking import log_evaluation
from genre_lightning.training.resume import check_films, kept_splits, locked
from genre_lightning.training.setup import Setup, bind_model, build_trainer, check_setup


def trained_setup(config: Namespace, parser: ArgumentParser, *, films: bool = True) -> Setup:
    """Return the setup of a run that has been trained.

    Args:
        config: Parsed, with the run's directory.
        parser: That parsed it.
        films: Whether the run's own films are needed; without, its best checkpoint defines it, whatever of the
            training the configuration has.

    Raises:
        ConfigError, DataError: Settings that would change the training, or films that cannot be read.
    """
    setup = check_setup(config, parser, films=films)
    if films:
        check_same_training(setup.run, setup.config_text, override=None)
        setup.data.keep_splits(kept_splits(setup.run))
        if (lineage := read_lineage(setup.run.lineage)) is not None:
            use_lineage(setup, lineage)
    return setup


def reevaluate(split: str, setup: Setup) -> dict[str, Any] | None:
    """Evaluate a split, and fit the decision if validation is evaluated and the run has none, or other options of it.

    Args:
        split: "validation" or "test".
        setup: Of the run.

    Returns:
        What metrics.json holds; nothing on other ranks than rank 0.

    Raises:
        ConfigError: Other options of the decision are given with test, which does not fit it.
    """
    if split == "test" and (changes := decision_changes(setup.run, setup.config_text)):
        raise ConfigError(
            f"the decision of {setup.run.path} was fitted on validation with other options ({'; '.join(changes)}): "
            "give them to 'genre-lightning fit', which fits it again and evaluates both splits"
        )
    watch_ranks()
    with explaining_failures():
        return _reevaluate(split, setup)


def _reevaluate(split: str, setup: Setup) -> dict[str, Any] | None:
    data = bind_model(setup)
    check_films(setup.run, data, setup.data.options.source.path, override=None)
    setup.run.check_writable()
    with locked(setup.run):
        return _write_evaluation(split, setup, data)


def _write_evaluation(split: str, setup: Setup, data: PreparedData) -> dict[str, Any] | None:
    changes = decision_changes(setup.run, setup.config_text)
    decision = None if changes else _stored_decision(split, setup, data)
    trainer, _ = build_trainer(setup)
    restore_weights(setup.model, setup.run.best)
    predictions = predict_split(trainer, setup.model, setup.data, split)
    if not is_first_rank():
        return None
    if decision is None:
        decision = fit_and_store_decision(setup, predictions)
        if changes:
            setup.run.write_config(with_decision_of(setup.run, setup.config_text))
        tell(f"the decision is new: run 'genre-lightning test --run_dir {setup.run.path}' for test metrics under it")
    result = evaluate_split(
        setup.run, data, predictions, decision, split, setup.config.seed, trainer.strategy.root_device
    )
    with closing(trainer.loggers):
        log_evaluation(trainer.loggers, setup.run.evaluation(split), result, steps_done(setup.run))
    write_report(setup.run.path)
    return result


def _stored_decision(split: str, setup: Setup, data: PreparedData) -> Decision | None:
    """Return the run's decision; None if `validate` fits it again: it is missing, damaged or of another checkpoint."""
    try:
        return load_decision(setup).for_genres(data.vocabulary.names)
    except CheckpointError as error:
        if split != "validation":
            raise
        tell(one_line(error).partition(": run ")[0])
        return None
