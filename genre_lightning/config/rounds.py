"""Several rounds of self-training by one command, each a run directory `round-N`."""

from __future__ import annotations

from pathlib import Path

from jsonargparse import Namespace

from genre_lightning.config.sweep import sweep_run_id
from genre_lightning.config.trainer import is_on_one_device
from genre_lightning.errors import ConfigError
from genre_lightning.runs import RunDirectory


def round_directory(place: Path, number: int) -> RunDirectory:
    """Return the run directory of a round, counted from 1."""
    return RunDirectory(place / f"round-{number}")


def check_rounds(config: Namespace) -> None:
    """Refuse what several rounds cannot be trained with, and a place where they cannot be.

    Args:
        config: Of the command, with more than one round and the directory of all rounds.

    Raises:
        ConfigError: Nothing has been written.
    """
    option, place = f"self_training.rounds is {config.self_training.rounds}", Path(config.run_dir)
    if not config.data.unlabelled:
        raise ConfigError(f"{option}, and there are no films to label: name them with --data.unlabelled")
    if config.data.max_films is not None:
        raise ConfigError(f"{option}, and data.max_films would add other films in each round: leave it out")
    if len(config.data.split) < 3:
        raise ConfigError(
            f"{option}, and with two fractions in data.split a round has no validation films to fit cut-offs of the "
            "next one on: continue from a run with three fractions"
        )
    if sweep_run_id() is not None:
        raise ConfigError(f"{option}, and each start of a sweep is one run: leave it out")
    if not is_on_one_device(config.trainer):
        raise ConfigError(
            f"{option}, and trainer.devices is {config.trainer.devices}: rounds are trained on one device; leave "
            "trainer.devices out, or train each round by its own command, with --continue_from the round before it"
        )
    if RunDirectory(place).config.is_file():
        raise ConfigError(f"{option}, and {place} is a run itself: name another --run_dir")


def of_round(config: Namespace, place: Path, number: int) -> Namespace:
    """Return the configuration of a round as of an ordinary run, whose parent is the round before it.

    Learning rates and epochs are those of the first round. A teacher that is named labels for that one alone.

    Args:
        config: Of the command.
        place: Directory of all rounds.
        number: Of the round, counted from 1.
    """
    own = config.clone()
    own.self_training.rounds = 1
    own.trainer.devices = 1
    own.run_dir = round_directory(place, number).path
    if number > 1:
        own.continue_from = round_directory(place, number - 1).path
        own.self_training.teacher = None
    if own.wandb is not None:  # "round-1" alone would be the name of many runs
        own.wandb.name = f"{own.wandb.name or place.name}-round-{number}"
        own.wandb.group = own.wandb.group or place.name
    return own
