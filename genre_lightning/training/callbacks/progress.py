"""Progress of a training and of its predictions: a live line on a terminal, now and then a whole one in a log file."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from typing_extensions import override

from genre_lightning.progress import clock, say, task_progress

_LINES_AN_EPOCH = 10
_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_BETWEEN_UPDATES = 0.5  # of the live line: reading the loss waits for a GPU
_SHOWN = ("loss", "f1_micro_tuned", "map_macro")  # of a validation


class TrainingProgress(ProgressBar):
    """What there is to show of a training: the place in it, loss, speed, and the time left to its end."""

    def __init__(self) -> None:
        super().__init__()
        self._enabled = True
        self._started = 0.0
        self._first_step = 0
        self._task = ExitStack()
        self._count: Callable[[int], None] | None = None

    @override
    def disable(self) -> None:
        self._enabled = False

    @override
    def enable(self) -> None:
        self._enabled = True

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._started = time.monotonic()
        self._first_step = trainer.global_step

    def place(self, trainer: Trainer) -> str:
        """Give the epoch and the step in it, counted from one."""
        steps = steps_of_epoch(trainer)
        return f"{epoch_of(trainer)}  step {trainer.global_step - trainer.current_epoch * steps:,}/{steps:,}"

    def speed(self, trainer: Trainer) -> tuple[float, float]:
        """Give the optimizer steps a second since the start, and the seconds left of all epochs at that speed."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        rate = (trainer.global_step - self._first_step) / seconds
        return rate, (int(trainer.estimated_stepping_batches) - trainer.global_step) / rate

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._enabled or trainer.sanity_checking:
            return
        metrics = {k.split("/")[1]: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        shown = "  ".join(f"{name} {metrics[name]:.4f}" for name in _SHOWN if name in metrics)
        self.report(f"{epoch_of(trainer)}  validation  {shown}")

    @override
    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.start_task("predicting, in batches", trainer.num_predict_batches)

    @override
    def on_predict_batch_end(self, *given: Any, **named: Any) -> None:
        self.count_batch()

    @override
    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.end_task()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        self.end_task()

    def start_task(self, task: str, batches: list[int | float]) -> None:
        """Show the progress of what has no steps.

        Args:
            task: What is done.
            batches: Number of batches of each loader.
        """
        if self._enabled:
            self._count = self._task.enter_context(task_progress(task, int(sum(batches)), at_end=False))

    def count_batch(self) -> None:
        """Note that a batch of the task is done."""
        if self._count is not None:
            self._count(1)

    def end_task(self) -> None:
        """Take its progress off the terminal."""
        self._task.close()
        self._count = None

    def report(self, line: str) -> None:
        """Print a line that stays."""
        say(line)


class LogFileProgress(TrainingProgress):
    """Ten lines an epoch at most and a few of a long validation, all whole: what a log file or a CI page can show."""

    def __init__(self) -> None:
        super().__init__()
        self._last_line = 0.0
        self._last_step = 0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        self._last_line, self._last_step = self._started, self._first_step

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        step, now = trainer.global_step, time.monotonic()
        at_step_end = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        if not self._enabled or not at_step_end or step - self._last_step < steps_of_epoch(trainer) / _LINES_AN_EPOCH:
            return
        if now - self._last_line < _SECONDS_BETWEEN_LINES:
            return
        self._last_line, self._last_step = now, step
        rate, left = self.speed(trainer)
        loss, tokens = (trainer.callback_metrics.get(name) for name in ("train/loss", "tokens/s"))
        shown = "" if loss is None else f"  loss {loss.item():.4f}"
        tokens_a_second = "" if tokens is None else f"  {tokens.item():,.0f} tokens/s"
        say(f"{self.place(trainer)}{shown}  {rate:.2f} steps/s{tokens_a_second}  {clock(left)} left")

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not trainer.sanity_checking:
            self.start_task(f"{epoch_of(trainer)}  validation, in batches", trainer.num_val_batches)

    @override
    def on_validation_batch_end(self, *given: Any, **named: Any) -> None:
        self.count_batch()

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.end_task()
        super().on_validation_end(trainer, pl_module)


class TerminalProgress(TrainingProgress):
    """One live line of at most the terminal's width; what validation gives stays above it."""

    def __init__(self) -> None:
        super().__init__()
        self._bar: Progress | None = None
        self._row = TaskID(0)
        self._last_update = 0.0

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        super().on_train_start(trainer, pl_module)
        if self._enabled:
            columns = (TextColumn("{task.description}"), BarColumn(bar_width=None), TextColumn("{task.fields[shown]}"))
            self._bar = Progress(*columns, console=Console(stderr=True), transient=True, expand=True)
            total = int(trainer.estimated_stepping_batches)
            self._row = self._bar.add_task(self.place(trainer), total=total, completed=trainer.global_step, shown="")
            self._bar.start()

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now = time.monotonic()
        if self._bar is None or now - self._last_update < _SECONDS_BETWEEN_UPDATES:
            return
        if trainer.global_step == self._first_step:  # the first step's micro-batches
            return
        self._last_update = now
        rate, left = self.speed(trainer)
        loss = trainer.callback_metrics.get("train/loss")
        shown = "" if loss is None else f"loss {loss.item():.4f}  "
        self._bar.update(
            self._row, description=self.place(trainer), completed=trainer.global_step,
            shown=f"{shown}{rate:.2f} steps/s  {clock(left)} left",
        )  # fmt: skip

    @override
    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self._bar is not None:
            self._bar.update(self._row, description=f"{epoch_of(trainer)}  validation", shown="")

    @override
    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, *rest: Any
    ) -> None:
        if self._bar is not None:
            self._bar.update(self._row, shown=f"batch {batch_idx + 1:,}/{int(sum(trainer.num_val_batches)):,}")

    @override
    def report(self, line: str) -> None:
        if self._bar is None:
            say(line)
        else:
            self._bar.console.print(line, markup=False, highlight=False, overflow="ignore", crop=False)

    @override
    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._stop()

    @override
    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        super().on_exception(trainer, pl_module, exception)
        self._stop()

    def _stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None


def steps_of_epoch(trainer: Trainer) -> int:
    """Give the optimizer steps of an epoch."""
    return int(trainer.num_training_batches) // trainer.accumulate_grad_batches


def epoch_of(trainer: Trainer) -> str:
    """Write the epoch, counted from one, and how many there are, unless steps alone end the training."""
    epochs = trainer.max_epochs or -1
    return f"epoch {trainer.current_epoch + 1}" + (f"/{epochs}" if epochs > 0 else "")


def progress_bar() -> ProgressBar:
    """Choose the progress that fits where the error stream goes."""
    return TerminalProgress() if Console(stderr=True).is_terminal else LogFileProgress()
