"""What a study does with a run that is one of its trials: it reads the metric of each epoch, and may end the run."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from genre_lightning.data.prepare import PreparedData
from genre_lightning.errors import PrunedError


class TrialReporter(Callback):
    """Reports the metric of each epoch with a validation, and ends the training after an epoch if it is asked to.

    Lightning calls it before the callbacks that save, so that every epoch that is saved has been reported; one that is
    trained again after a kill is reported again. The metric is the one by which the best checkpoint is chosen. Rank 0
    reports it, and all ranks end by its answer.

    Args:
        monitor: Name of the metric.
        report: Takes the number of epochs done and the metric; returns why the training is to end, or None.
    """

    def __init__(self, monitor: str, report: Callable[[int, float], str | None]) -> None:
        super().__init__()
        self.monitor = monitor
        self.report = report
        self.reason: str | None = None
        """Why the training was ended early; None if it was not."""
        self._validated = False

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._validated = not trainer.sanity_checking

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # the metrics of an earlier epoch's validation are still there
        validated, self._validated = self._validated, False
        metric = trainer.callback_metrics.get(self.monitor)
        if not validated or metric is None or math.isnan(float(metric)):
            return
        done = trainer.current_epoch + 1
        reason = self.report(done, float(metric)) if trainer.is_global_zero else None
        reason = trainer.strategy.broadcast(reason)
        # after the last epoch nothing is saved by it, and only a whole trial has an evaluation
        if reason is not None and not (trainer.max_epochs or 0) <= done:
            self.reason, trainer.should_stop = reason, True

    def check(self) -> None:
        """Raise if the training was ended early.

        Raises:
            PrunedError: It was.
        """
        if self.reason is not None:
            raise PrunedError(self.reason)


@dataclass(frozen=True)
class TrialHooks:
    """What a study does with a run."""

    reporter: TrialReporter
    check_films: Callable[[PreparedData], None]
    """Refuses films or splits other than the study's, before anything is written."""


def of_sweep(monitor: str) -> TrialHooks:
    """Return the hooks of a trial that W&B's agent has started: only its test split is left out.

    Args:
        monitor: Name of the validation metric, which W&B's logger reports.
    """
    return TrialHooks(TrialReporter(monitor, lambda epoch, value: None), lambda data: None)
