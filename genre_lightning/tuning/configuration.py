"""The configuration of a study and of its trials, by the one parser."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from genre_lightning.config.changes import differences
from genre_lightning.config.data import make_paths_absolute
from genre_lightning.config.parser import parse
from genre_lightning.config.words import option_values, option_word
from genre_lightning.errors import ConfigError
from genre_lightning.files import write_text
from genre_lightning.training.resume import films_of
from genre_lightning.training.setup import check_setup
from genre_lightning.tuning.checks import check_options, check_space, parse_for_trials
from genre_lightning.tuning.parallel import worker_devices
from genre_lightning.tuning.sampling import Pruning, Sampler
from genre_lightning.tuning.space import Options, Space
from genre_lightning.tuning.study import StudyDirectory, StudySettings, create, study_name

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from genre_lightning.data.prepare import PreparedData
    from genre_lightning.distributed.slurm import PlannedStep


def base_configuration(words: Sequence[str], folder: StudyDirectory, devices: int) -> tuple[Namespace, ArgumentParser]:
    """Parse what all trials have in common.

    Args:
        words: Options of `fit`.
        folder: Of the study.
        devices: Of each trial.

    Raises:
        ConfigError: An option cannot be used, or cannot be used in a study.
    """
    if option_values(words, "--run_dir"):
        raise ConfigError("--run_dir: tune makes the run directories of its trials in --study: leave --run_dir out")
    config, parser = parse_for_trials(words)
    trainer = config.trainer
    if trainer.num_nodes > 1:
        raise ConfigError(f"trainer.num_nodes is {trainer.num_nodes}, and a trial runs on one node: leave it out")
    if str(trainer.devices) not in ("auto", str(devices)):
        raise ConfigError(
            f"trainer.devices is {trainer.devices}, and a trial has {_counted(devices)}: leave it out; "
            "--devices_per_trial N gives a trial N devices, --parallel N does N trials at once"
        )
    trainer.devices, config.run_dir = devices, folder.trial(0)
    return config, parser


def devices_of(folder: StudyDirectory) -> int:
    """Return how many devices a trial was given when the study was started."""
    return int(_trainer(folder)["devices"])


def accelerator_of_study(folder: StudyDirectory) -> str:
    """Return the accelerator of the trials, as Lightning takes it."""
    return str(_trainer(folder)["accelerator"])


def _trainer(folder: StudyDirectory) -> dict[str, Any]:
    trainer: dict[str, Any] = yaml.safe_load(folder.base.read_text(encoding="utf-8"))["trainer"]
    return trainer


def _counted(devices: int) -> str:
    return "one device" if devices == 1 else f"{devices} devices"


def trial_configuration(
    folder: StudyDirectory, run_dir: Path, options: Options, devices: int
) -> tuple[Namespace, ArgumentParser]:
    """Parse the configuration of a trial.

    Args:
        folder: Of the study.
        run_dir: Of the trial.
        options: Those that are searched.
        devices: That the trial has here.

    Raises:
        ConfigError: The options cannot be used together.
    """
    words = [f"--config={folder.base}", *(option_word(name, value) for name, value in options.items())]
    places = [option_word("run_dir", run_dir), option_word("trainer.devices", devices)]
    config, parser = parse("fit", [*words, *places])
    if config.wandb is not None and config.wandb.group is None:
        config.wandb.group = folder.path.name
    check_options(config, parser)
    return config, parser


def start_study(
    folder: StudyDirectory,
    space_file: Path,
    space: Space,
    words: Sequence[str],
    *,
    sampler: Sampler,
    pruning: Pruning,
    trials: int,
    storage: str | None,
    devices: int,
    parallel: int,
    planned: PlannedStep | None = None,
    dry_run: bool = False,
) -> None:
    """Check a study as a whole, its films included, and write its directory.

    Args:
        folder: To write.
        space_file: That holds the space.
        space: To search.
        words: Options of `fit` of all trials.
        sampler: How options are chosen.
        pruning: How trials are ended early.
        trials: How many there are to be.
        storage: URL of a database; None for the journal.
        devices: Of each trial.
        parallel: Workers of this machine.
        planned: What a trial will be done on, if that is not this machine.
        dry_run: Check all, and write nothing.

    Raises:
        ConfigError, DataError: Nothing has been written.
    """
    config, parser = base_configuration(words, folder, devices)
    if planned is None:
        worker_devices(config.trainer.accelerator, parallel, devices)
    if sampler == "cmaes":
        space.require_numbers(sampler)
    if sampler == "grid":
        space.grid()
    if pruning == "hyperband" and (config.trainer.max_epochs or -1) < 1:
        raise ConfigError("--pruning hyperband needs trainer.max_epochs: set it, or use --pruning asha")
    check_space(space, words)
    setup = check_setup(config, parser, planned)
    if not setup.model.trains:
        raise ConfigError(
            f"{type(setup.model).__name__} trains nothing, so that there is nothing to tune: name another"
        )
    data: PreparedData = setup.data.prepare()
    films = films_of(data)
    config.data.csv = setup.config.data.csv
    epochs = max([config.trainer.max_epochs or 0, *_searched_epochs(space)])
    settings = StudySettings(
        study_name(folder.path, storage), config.checkpoint.monitor, sampler, pruning, trials, config.seed, epochs,
        storage, films.films, films.splits or {}, list(data.vocabulary.names),
    )  # fmt: skip
    if dry_run:
        return
    if storage is None:
        folder.path.mkdir(parents=True, exist_ok=True)
    create(folder.path, settings)
    folder.path.mkdir(parents=True, exist_ok=True)
    config.run_dir = None
    write_text(folder.base, parser.dump(config, skip_none=False))
    write_text(folder.space_file, space_file.read_text(encoding="utf-8"))
    folder.write(settings)


def check_same_study(folder: StudyDirectory, words: Sequence[str], devices: int) -> None:
    """Refuse to resume a study with another configuration or other films; a file of films that was moved is taken.

    Args:
        folder: Of the study.
        words: Options of `fit` of the command; none of them are those of the study.
        devices: Of each trial.

    Raises:
        ConfigError, DataError: With what differs.
    """
    if not words:
        return
    config, parser = base_configuration(words, folder, devices)
    make_paths_absolute(config.data)
    config.run_dir = None
    text = parser.dump(config, skip_none=False)
    before, after = (yaml.safe_load(one) for one in (folder.base.read_text(encoding="utf-8"), text))
    if changed := differences(before, after):
        raise ConfigError(
            f"{folder.path} was started with other settings ({'; '.join(changed)}): take those back, or name another "
            "--study"
        )
    if before["data"]["csv"] != after["data"]["csv"]:
        config.run_dir = folder.trial(0)
        _check_films(folder, config, parser)
        before["data"]["csv"] = after["data"]["csv"]
        write_text(folder.base, yaml.safe_dump(before, sort_keys=False, allow_unicode=True))


def check_same_films(folder: StudyDirectory, devices: int) -> None:
    """Refuse to resume a study whose file holds other films than it was started with.

    Args:
        folder: Of the study.
        devices: Of each trial.

    Raises:
        ConfigError, DataError: They differ, or the configuration cannot be used on this machine.
    """
    _check_films(folder, *trial_configuration(folder, folder.trial(0), {}, devices))


def _check_films(folder: StudyDirectory, config: Namespace, parser: ArgumentParser) -> None:
    setup = check_setup(config, parser)
    films = films_of(setup.data.prepare())
    if films.films != folder.settings.films or films.splits != folder.settings.splits:
        raise ConfigError(
            f"{folder.path} was started with other films than {setup.config.data.csv} gives: give the file that it was "
            "started with, or name another --study"
        )


def _searched_epochs(space: Space) -> list[int]:
    return [
        int(value)
        for option in space.options
        if option.name == "trainer.max_epochs"
        for value in option.edges()
        if isinstance(value, int | float)
    ]
