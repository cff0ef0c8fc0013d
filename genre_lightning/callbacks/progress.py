"""Progress of a run: a live bar on a terminal, and now and then a whole line in a log file."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ProgressBar, RichProgressBar
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from typing_extensions import override

from genre_lightning.data.movies import ReadShare

_LINES_AN_EPOCH = 10
_SECONDS_BETWEEN_LINES = 5.0
_SECONDS_BETWEEN_TASK_LINES = 30.0


def say(line: str) -> None:
    """Prints a line of news; on the error stream, as the output stream is for results."""
    print(line, file=sys.stderr, flush=True)


@contextmanager
def task_progress(task: str, total: int) -> Iterator[Any]:
    """A bar for a task of so many units on a terminal; lines now and then and at its end where there is none.

    Nothing is shown for a task that never reports, such as one whose result lies in the cache.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        done = 0
        started = said = time.monotonic()

        def count(units: int) -> None:
            nonlocal done, said
            done += units
            now = time.monotonic()
            if now - said >= _SECONDS_BETWEEN_TASK_LINES and done < total:
                said = now
                say(f"{task}: {done:,} of {total:,}, {_clock((now - started) / done * (total - done))} left")

        yield count
        if done:
            say(f"{task}: {done:,} done in {time.monotonic() - started:.1f} s")
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        row = bar.add_task(task, total=total)
        yield lambda units: bar.advance(row, units)


@contextmanager
def file_progress(task: str, share: ReadShare) -> Iterator[Callable[[int], None]]:
    """A bar for work through a file whose rows nobody has counted; lines now and then where there is no terminal.

    Args:
        task: what is done.
        share: how much of the file has been read.

    Yields:
        a function to report rows done to.
    """
    console = Console(stderr=True)
    started = said = time.monotonic()
    first: tuple[float, float] | None = None
    done = 0

    def rate(rows: int) -> str:
        nonlocal done, first
        # what an earlier start had done, and the reading over it, is no measure of the time left
        first = first or (time.monotonic(), share.measure())
        done += rows
        return f"{done / max(time.monotonic() - started, 1e-3):,.0f} rows/s"

    if console.is_terminal:
        columns = (TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
        with Progress(*columns, TextColumn("{task.fields[rate]}"), console=console, transient=True) as bar:
            row = bar.add_task(task, total=1.0, rate="")
            yield lambda rows: bar.update(row, rate=rate(rows), completed=share.measure())
        return

    def line(rows: int) -> None:
        nonlocal said
        speed, now = rate(rows), time.monotonic()
        if now - said < _SECONDS_BETWEEN_TASK_LINES:
            return
        said = now
        read = share.measure()
        since, before = first or (now, read)
        left = f"  {_clock((now - since) / (read - before) * (1 - read))} left" if read > before else ""
        say(f"{task}  {read:.0%} of the file  {done:,} rows  {speed}{left}")

    yield line


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
            f"  {rate:.2f} steps/s{speed}  {_clock(left)} left"
        )

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if not self._enabled or trainer.sanity_checking:
            return
        figures = {k.split("/")[1]: v.item() for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        wanted = ("loss", "f1_micro_tuned", "map_macro")
        shown = "  ".join(f"{name} {figures[name]:.4f}" for name in wanted if name in figures)
        say(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  validation  {shown}")


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def progress_bar() -> ProgressBar:
    """The bar that fits where the error stream goes."""
    return RichProgressBar(leave=True) if Console(stderr=True).is_terminal else LogFileProgress()
