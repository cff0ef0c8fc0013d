"""What the parser of `fit` refuses in the configuration of all trials and in a space, before the first trial."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from genre_lightning.config.parser import make_options, parse
from genre_lightning.config.trainer import length_problems, option_problems
from genre_lightning.config.words import option_word
from genre_lightning.errors import ConfigError, check_all
from genre_lightning.tuning.space import Space

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace


def parse_for_trials(words: Sequence[str]) -> tuple[Namespace, ArgumentParser]:
    """Parse the options of `fit` that all trials have.

    Raises:
        ConfigError: An option cannot be used, or cannot be used in a search.
    """
    config, parser = parse("fit", words)
    if config.continue_from is not None:
        raise ConfigError("--continue_from: every trial is trained from the backbone: leave --continue_from out")
    return config, parser


def check_options(config: Namespace, parser: ArgumentParser) -> None:
    """Check what needs neither torch nor the machine.

    Raises:
        ConfigError: An option cannot be used.
    """
    options = make_options("tune", config, parser)
    checks = [options.model.options.check_options] if "model" in options else []
    problems = [*option_problems(config), *length_problems(config.trainer)]
    check_all([*checks, options.data.check_options], problems)


def check_space(space: Space, words: Sequence[str]) -> None:
    """Check the ends of every range and every choice by the parser.

    Args:
        space: To search.
        words: Options of `fit` of all trials.

    Raises:
        ConfigError: The first value that `fit` would refuse.
    """
    for name, options in space.samples_to_check():
        try:
            config, parser = parse("fit", [*words, *(option_word(*item) for item in options.items())])
            check_options(config, parser)
        except ConfigError as error:
            raise ConfigError(f"--space: {name}={options[name]} is refused: {error}") from None
