"""Progress of a training: a live bar on a terminal, and now and then a whole line in a log file."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from rich.console import Console
from typing_extensions import override

from genre_lightning.progress import clock, say

_LINES_AN_EPOCH = 10
_SECONDS_BETWEEN_LINES = 5.0


class LogFileProgress(ProgressBar):
    """Ten lines an epoch at most, each a whole sentence: what a log file or a CI page can show."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._started = 0.0
        self._first_step = 0
        self._last_line = 0.0
        self._last_step = 0

    @override
    def disable(self) -> None:
        self._enabled = False

    @override
    def enable(self) -> None:
        self._enabled = True

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = self._last_line = time.monotonic()
        self._first_step = self._last_step = trainer.global_step

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        steps = int(trainer.num_training_batches) // trainer.accumulate_grad_batches
        step = trainer.global_step
        now = time.monotonic()
        at_step_end = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not self._enabled or not at_step_end or step - self._last_step < steps / _LINES_AN_EPOCH:
            return
        if now - self._last_line < _SECONDS_BETWEEN_LINES:
            return
        self._last_line, self._last_step = now, step
        rate = (step - self._first_step) / (now - self._started)
        left = (int(trainer.estimated_stepping_batches) - step) / rate
        loss = trainer.callback_metrics.get("train/loss")
        shown = "" if loss is None else f"  loss {loss.item():.4f}"
        tokens = trainer.callback_metrics.get("tokens/s")
        speed = "" if tokens is None else f"  {tokens.item():,.0f} tokens/s"
        within = step - trainer.current_epoch * steps
        say(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  step {within}/{steps}{shown}"
            f"  {rate:.2f} steps/s{speed}  {clock(left)} left"
        )

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._enabled or trainer.sanity_checking:
            return
        figures = {k.split("/")[1]: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        wanted = ("loss", "f1_micro_tuned", "map_macro")
        shown = "  ".join(f"{name} {figures[name]:.4f}" for name in wanted if name in figures)
        say(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  validation  {shown}")


def progress_bar() -> ProgressBar:
    """The bar that fits where the error stream goes."""
    return RichProgressBar(leave=True) if Console(stderr=True).is_terminal else LogFileProgress()
