"""The training of a trial: in this process, or on several devices by ranks that end with it."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from optuna.trial import Trial

from genre_lightning.compat import running_trial
from genre_lightning.config.words import option_word
from genre_lightning.data.prepare import PreparedData
from genre_lightning.distributed.ranks import is_first_rank
from genre_lightning.distributed.watch import watch_parent
from genre_lightning.errors import DataError, GenreLightningError, PrunedError
from genre_lightning.progress import say
from genre_lightning.training.fit import fit_run
from genre_lightning.training.resume import films_of
from genre_lightning.training.trial import TrialHooks, TrialReporter
from genre_lightning.tuning.configuration import trial_configuration
from genre_lightning.tuning.parallel import TUNER, run_commands
from genre_lightning.tuning.space import Options
from genre_lightning.tuning.study import StudyDirectory

_PRUNED = "pruned"
"""User attribute of a trial that its ranks have ended: why."""
_LAST_LINES = 200


class RanksError(GenreLightningError):
    """The ranks of a trial have failed; its notes hold their last lines."""

    exit_status = 1


def train_trial(folder: StudyDirectory, trial: Trial, options: Options, devices: int) -> None:
    """Train a trial, or what is left of it, and report each epoch to the study.

    Args:
        folder: Of the study.
        trial: Running.
        options: Of the trial.
        devices: Of the trial.

    Raises:
        PrunedError: The study has ended it early.
        PreemptedError: A signal has stopped it; its state is saved.
        DataError: The metric was never logged, or the films are others.
    """
    if devices > 1:
        run_ranks(_rank_words(folder, trial.number, devices), devices)
        why = trial.study.trials[trial.number].user_attrs.get(_PRUNED)
        if why is not None:
            raise PrunedError(why)
        return
    _train_here(folder, trial, options, devices)


def train_finalist(folder: StudyDirectory, number: int, options: Options, seed: int, devices: int) -> None:
    """Train a trial's configuration with a further seed.

    Args:
        folder: Of the study.
        number: Of the trial.
        options: Of the trial.
        seed: The further one.
        devices: Of the training.
    """
    if devices > 1:
        run_ranks([*_rank_words(folder, number, devices), option_word("rank_seed", seed)], devices)
        return
    _repeat_here(folder, number, options, seed, devices)


def train_as_rank(folder: StudyDirectory, number: int, seed: int | None, devices: int) -> None:
    """Train a trial in the process of rank 0, which starts the others by the same command line, or as one of those.

    Args:
        folder: Of the study.
        number: Of the trial.
        seed: A finalist's further one; None trains the trial itself.
        devices: Of the trial.
    """
    if TUNER in os.environ and "LOCAL_RANK" not in os.environ:
        watch_parent(int(os.environ[TUNER]), "the worker")
    study = folder.open(number)
    trial = running_trial(study, study.get_trials(deepcopy=False)[number])
    if seed is not None:
        _repeat_here(folder, number, dict(trial.params), seed, devices)
        return
    try:
        _train_here(folder, trial, folder.space.suggest(trial), devices)
    except PrunedError as error:
        if is_first_rank():
            trial.set_user_attr(_PRUNED, str(error))


def run_ranks(words: Sequence[str], devices: int) -> None:
    """Run a command of several ranks.

    Args:
        words: Arguments of genre-lightning.
        devices: A rank on each.

    Raises:
        PreemptedError: A signal has stopped it; its state is saved.
        RanksError: It has failed.
    """
    lines: list[str] = []

    def show(_: int, line: str) -> None:
        lines.append(line)
        say(line)

    status = run_commands([(words, {})], devices, show)[0]
    if status != 0:
        said = [line.partition("genre-lightning: ")[2] for line in lines if line.startswith("genre-lightning: ")]
        error = RanksError(said[0].removeprefix("error: ") if said else f"its ranks ended with status {status}")
        error.add_note("\n".join(lines[-_LAST_LINES:]))
        raise error


def _rank_words(folder: StudyDirectory, number: int, devices: int) -> list[str]:
    return ["tune", "--study", str(folder.path), "--devices_per_trial", str(devices), "--rank_of", str(number)]


def _film_check(folder: StudyDirectory) -> Callable[[PreparedData], None]:
    def check(data: PreparedData) -> None:
        settings = folder.settings
        if films_of(data).splits != settings.splits or list(data.vocabulary.names) != settings.genres:
            raise DataError(
                f"the films, splits or genres are not those that {folder.path} was started with, so that trials could "
                "not be compared: give the same file, or name another --study"
            )

    return check


def _train_here(folder: StudyDirectory, trial: Trial, options: Options, devices: int) -> None:
    settings = folder.settings
    epochs = {int(epoch) for epoch in trial.study.trials[trial.number].intermediate_values}

    def report(epoch: int, value: float) -> str | None:
        if epoch not in epochs:  # a resumed trial validates an epoch again if it was not saved
            trial.report(value, epoch)
            epochs.add(epoch)
        if not trial.should_prune():
            return None
        return f"after epoch {epoch}, {settings.monitor.removeprefix('val/')} {value:.4f}"

    hooks = TrialHooks(TrialReporter(settings.monitor, report), _film_check(folder))
    config, parser = trial_configuration(folder, folder.trial(trial.number), options, devices)
    fit_run(config, parser, trial=hooks)
    if is_first_rank() and not epochs:
        raise DataError(
            f"{settings.monitor} was never logged: lower trainer.check_val_every_n_epoch, or choose another "
            "checkpoint.monitor"
        )


def _repeat_here(folder: StudyDirectory, number: int, options: Options, seed: int, devices: int) -> None:
    path = folder.finalist(number, seed)
    config, parser = trial_configuration(folder, path, {**options, "seed": seed}, devices)
    hooks = TrialHooks(TrialReporter(folder.settings.monitor, lambda epoch, value: None), _film_check(folder))
    fit_run(config, parser, trial=hooks)
