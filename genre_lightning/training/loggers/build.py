"""The loggers of a run: made from the options, continued if a run resumes, and closed."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger

from genre_lightning.distributed.signals import StopNow
from genre_lightning.errors import ConfigError, PreemptedError, PrunedError
from genre_lightning.runs import RunDirectory
from genre_lightning.training.loggers.curves import CurvesLogger
from genre_lightning.training.loggers.tensorboard import RunTensorBoardLogger
from genre_lightning.training.loggers.wandb_run import RunWandbLogger, WandbOptions
from genre_lightning.training.loggers.wandb_settings import check_local_settings


def check_loggers(*, wandb: bool, tensorboard: bool) -> None:
    """Refuse loggers whose packages are not there, and W&B if the working directory would steer it.

    Args:
        wandb: Whether any logger is W&B's.
        tensorboard: Whether TensorBoard's events are written.

    Raises:
        ConfigError: With the fix.
    """
    for wanted, package in ((wandb, "wandb"), (tensorboard, "tensorboard")):
        if wanted and importlib.util.find_spec(package) is None:
            raise ConfigError(f"{package} is not installed: run 'pip install {package}', or leave the option out")
    if wandb:
        check_local_settings(Path.cwd())


def make_loggers(run: RunDirectory, wandb: WandbOptions | None, *, tensorboard: bool) -> list[Logger]:
    """Return the run's own loggers; curves.csv is always among them, and first.

    Args:
        run: The directory, begun.
        wandb: null for none; WANDB_MODE=disabled is none too.
        tensorboard: Whether to write TensorBoard's events.
    """
    loggers: list[Logger] = [CurvesLogger(run.curves)]
    if wandb is not None and os.environ.get("WANDB_MODE") != "disabled":
        loggers.append(RunWandbLogger(run, wandb))
    if tensorboard:
        loggers.append(RunTensorBoardLogger(run))
    return loggers


def resume_loggers(loggers: Iterable[Logger], step: int) -> None:
    """Tell every logger with rows of its own the optimizer step after which the run resumes."""
    for logger in loggers:
        if isinstance(logger, CurvesLogger | RunTensorBoardLogger):
            logger.resume_at(step)


def describe_run(loggers: Iterable[Logger], metadata: Mapping[str, Any]) -> None:
    """Give the loggers that keep such things what a run is: configuration, data audit, commit."""
    for logger in loggers:
        if isinstance(logger, RunWandbLogger):
            logger.describe(metadata)


def keep_best(loggers: Iterable[Logger]) -> None:
    """Give the best checkpoint to the loggers that were asked to keep it."""
    for logger in loggers:
        if isinstance(logger, RunWandbLogger) and logger.options.log_model:
            logger.log_best()


@contextmanager
def closing(loggers: Iterable[Logger]) -> Iterator[None]:
    """End the loggers' work with the block, whatever ends the block."""
    runs = [logger for logger in loggers if isinstance(logger, RunWandbLogger)]
    try:
        yield
    except BaseException as error:
        for logger in runs:
            failed = not isinstance(error, PrunedError)
            logger.close(preempted=isinstance(error, PreemptedError | StopNow), failed=failed)
        raise
    for logger in runs:
        logger.close()
