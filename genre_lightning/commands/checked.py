"""The configuration of a command, parsed, and refused before torch is loaded if possible."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import yaml
from jsonargparse import ArgumentParser, Namespace

from genre_lightning.bounds import bound_problems
from genre_lightning.config.continuation import (
    ContinueOptions,
    SelfTrainingOptions,
    check_same_model,
    leave_out_missing,
    require_parent,
)
from genre_lightning.config.parser import make_options, parse, parse_baseline
from genre_lightning.config.rounds import check_rounds, round_directory
from genre_lightning.config.run_pattern import fill_run_dir
from genre_lightning.config.sweep import from_agent, take_sweep
from genre_lightning.config.trainer import length_problems, option_problems, pretraining_problems
from genre_lightning.config.words import with_run_config, with_run_named
from genre_lightning.errors import ConfigError, check_all
from genre_lightning.runs import PRETRAINING, RunDirectory


def parse_checked(
    command: str, words: Sequence[str], run_dir: Path, *, in_rounds: bool = False
) -> tuple[Namespace, ArgumentParser]:
    """Parse the configuration of a run and check what needs neither torch nor the machine.

    Args:
        command: "fit", or "data inspect", which loads no model.
        words: Its arguments.
        run_dir: If the configuration names none.
        in_rounds: Whether the command trains the rounds of `self_training.rounds`.

    Raises:
        ConfigError, DataError: Nothing has been written.
    """
    config, parser, problems, checks = parse_with_checks(command, words, run_dir, in_rounds=in_rounds)
    check_all(checks, problems)
    return config, parser


def parse_with_checks(
    command: str, words: Sequence[str], run_dir: Path, *, in_rounds: bool = False
) -> tuple[Namespace, ArgumentParser, list[str], list[Callable[[], object]]]:
    """Parse the configuration of a run, for commands that continue in spite of problems; see `parse_checked`.

    Returns:
        The configuration, its parser, the problems that are known already, and the checks that find the others.

    Raises:
        ConfigError: It cannot be read at all, or what it continues from is not there.
    """
    config, parser = parse(command, from_agent(words))
    from genre_lightning.data.movies import check_data  # after a --help, which does without NumPy

    run = _run(config, run_dir, from_sweep=command == "fit")
    if (rounds := config.self_training.rounds) > 1:
        if not in_rounds:
            raise ConfigError(
                f"self_training.rounds is {rounds}, and only 'genre-lightning fit' trains them: leave it out"
            )
        check_rounds(config)
        run = round_directory(run.path, 1)
    for name in ("continue_from", "feedback", "labels"):
        if config[name] is not None:  # a job runs elsewhere
            config[name] = Path(config[name]).expanduser().absolute()
    if config.continue_from is not None:
        leave_out_missing(config.data, ContinueOptions(**vars(config["continue"])), config.continue_from)
    options = make_options(command, config, parser)
    checks: list[Callable[[], object]] = [lambda: check_data(options.data), run.check_writable]
    if "model" in options:
        model = options.model.options
        checks[:0] = [model.check_options, *([model.check_files] if command in ("fit", PRETRAINING) else [])]
    if command == "fit" and config.continue_from and run.status != "finished":
        settings = yaml.safe_load(parser.dump(config, skip_none=False))
        checks[:0] = [lambda: check_same_model(require_parent(config.continue_from), settings)]
    problems = _without_parent(command, config) if config.continue_from is None else []
    problems += ContinueOptions(**vars(config["continue"])).problems()
    problems += bound_problems(SelfTrainingOptions, vars(config.self_training), "self_training")
    if command == PRETRAINING:
        problems += pretraining_problems(config)
    return config, parser, [*option_problems(config), *length_problems(config.trainer), *problems], checks


def _without_parent(command: str, config: Namespace) -> list[str]:
    """List the options that make no sense for a run that continues from no other."""
    problems = []
    if config.require_no_worse:
        problems.append("--require_no_worse compares a run with its parent: name the parent with --continue_from")
    for name in ("feedback", "labels"):
        if config[name] is not None:
            problems.append(f"--{name} corrects a trained run: name it with --continue_from")
    if command == "fit" and config.data.unlabelled:
        problems.append(
            "data.unlabelled gives films the genres that a trained run predicts: name that run with --continue_from"
        )
    return problems


def parse_checked_baseline(
    name: str, kind: type, words: Sequence[str], run_dir: Path
) -> tuple[Namespace, ArgumentParser]:
    """Parse the configuration of a baseline and check it; see `parse_checked`.

    Args:
        name: Of the baseline.
        kind: Its class.
        words: Arguments of the command.
        run_dir: If the configuration names none.
    """
    config, parser = parse_baseline(name, kind, words)
    from genre_lightning.data.movies import check_data

    run = _run(config, run_dir)
    options = make_options(f"baseline {name}", config, parser)
    check_all((lambda: check_data(options.data), options.model.check, run.check_writable))
    return config, parser


def _run(config: Namespace, run_dir: Path, *, from_sweep: bool = False) -> RunDirectory:
    if config.run_dir is None:
        config.run_dir = run_dir
    fill_run_dir(config)
    if from_sweep:
        take_sweep(config)
    return run_of(config)


def run_of(config: Namespace) -> RunDirectory:
    """Return the run directory of a configuration that names one."""
    return RunDirectory(Path(config.run_dir).expanduser().absolute())


def parse_trained(command: str, arguments: Sequence[str]) -> tuple[Namespace, ArgumentParser]:
    """Parse the configuration of a run that has been trained.

    Args:
        command: "validate" or "test".
        arguments: Its arguments.

    Raises:
        ConfigError, CheckpointError: No run directory, no run in it, or one that has not finished training.
    """
    config, parser = parse(command, with_run_config(with_run_named(command, arguments)))
    run_of(config).require_trained()
    return config, parser
