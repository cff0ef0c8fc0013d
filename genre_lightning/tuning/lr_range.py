"""A learning-rate range test: the loss while the learning rate rises from step to step (Smith, 2017)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from matplotlib.figure import Figure
from typing_extensions import override

from genre_lightning.errors import ConfigError, DivergedError
from genre_lightning.evaluation.plots.style import BLUE, GREY, ORANGE, one_axes, save_figure, styled
from genre_lightning.files import write_csv
from genre_lightning.training.setup import Setup

_SMOOTHING = 0.9
"""Weight of the past in the moving average of the loss."""
_DIVERGED = 2.0
"""The test ends when the smoothed loss is this many times its smallest value."""
_FEWEST_STEPS = 10
_FIRST_STEPS = 0.1
"""Fraction of the points, at the start, in which no fall is looked for: the average has not settled."""


@dataclass(frozen=True)
class LrRange:
    """The points of a range test.

    Attributes:
        lrs: Learning rate of the backbone at each step.
        losses: Of the step.
        smoothed: Moving average of the losses.
        diverged: Whether the test ended early, as the loss rose.
    """

    lrs: list[float]
    losses: list[float]
    smoothed: list[float]
    diverged: bool

    @property
    def lowest(self) -> float:
        """Learning rate at which the smoothed loss is lowest."""
        return self.lrs[int(np.argmin(self.smoothed))]

    @property
    def steepest(self) -> float | None:
        """Learning rate at which the smoothed loss falls fastest, before it is lowest; None if it does not fall."""
        start, end = int(_FIRST_STEPS * len(self.lrs)), int(np.argmin(self.smoothed))
        if end <= start:
            return None
        slopes = np.gradient(self.smoothed[: end + 1], np.log(self.lrs[: end + 1]))[start:]
        place = int(np.argmin(slopes))
        return self.lrs[start + place] if slopes[place] < 0 else None


class _Rising(Callback):
    """Sets the learning rate of each step, and keeps its loss."""

    def __init__(self, lrs: Sequence[float]) -> None:
        super().__init__()
        self.lrs = lrs
        self.losses: list[float] = []
        self.diverged = False
        self._ratios: list[float] = []

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        rates = [float(group.get("initial_lr", group["lr"])) for group in trainer.optimizers[0].param_groups]
        module: Any = pl_module
        lr, _ = module.learning_rates()
        # every part keeps its ratio to what model.lr sets, which need not be the first part's
        self._ratios = [rate / lr for rate in rates]

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        lr = self.lrs[min(trainer.global_step, len(self.lrs) - 1)]
        for group, ratio in zip(trainer.optimizers[0].param_groups, self._ratios, strict=True):
            group["lr"] = lr * ratio

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step <= len(self.losses):
            return  # within a step
        self.losses.append(float(trainer.callback_metrics["train/loss"]))
        smoothed = smooth(self.losses)
        if len(self.losses) >= _FEWEST_STEPS and smoothed[-1] > _DIVERGED * min(smoothed):
            self.diverged = trainer.should_stop = True


def run_range(setup: Setup, *, low: float, high: float, steps: int | None) -> LrRange:
    """Train one pass at most with a rising learning rate, and forget the model.

    Args:
        setup: Checked.
        low: Learning rate of the first step.
        high: Of the last.
        steps: How many; None is one pass, and at most 200.

    Raises:
        ConfigError: There are too few steps in a pass.
    """
    data = setup.data.prepare()
    films, batch = len(data.splits["train"].films), setup.data.options.global_batch_size
    one_pass = films // batch
    count = min(steps or 200, one_pass)
    if count < _FEWEST_STEPS:
        raise ConfigError(
            f"a range test needs {_FEWEST_STEPS} steps, and {films:,} films in steps of {batch} make {one_pass}: lower "
            "data.global_batch_size, or raise data.max_films or --steps"
        )
    rising = _Rising([low * (high / low) ** (number / (count - 1)) for number in range(count)])
    trainer = Trainer(
        accelerator=setup.config.trainer.accelerator, devices=1, precision=setup.config.trainer.precision,
        gradient_clip_val=setup.config.trainer.gradient_clip_val, max_epochs=1, max_steps=count, log_every_n_steps=1,
        limit_val_batches=0, num_sanity_val_steps=0, callbacks=[rising], logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, use_distributed_sampler=False,
    )  # fmt: skip
    try:
        trainer.fit(setup.model, datamodule=setup.data)
    except DivergedError:
        rising.diverged = True
    losses = [loss for loss in rising.losses if math.isfinite(loss)]
    return LrRange(list(rising.lrs[: len(losses)]), losses, smooth(losses), rising.diverged)


def smooth(losses: Sequence[float]) -> list[float]:
    """Return the moving average, corrected for its start."""
    smoothed, average = [], 0.0
    for step, loss in enumerate(losses, 1):
        average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
        smoothed.append(average / (1 - _SMOOTHING**step))
    return smoothed


@styled
def range_figure(found: LrRange) -> Figure:
    """Draw the loss over the learning rate."""
    figure, axes = one_axes("Learning-rate range test")
    axes.plot(found.lrs, found.losses, color=GREY, linewidth=0.6, label="loss of a step")
    axes.plot(found.lrs, found.smoothed, color=BLUE, label="smoothed")
    if (steepest := found.steepest) is not None:
        axes.axvline(steepest, color=ORANGE, label=f"steepest at {steepest:.2g}")
    axes.set_xscale("log")
    axes.set_xlabel("learning rate of the backbone")
    axes.set_ylabel("loss (nats)")
    axes.legend()
    return figure


def write_range(found: LrRange, folder: Path) -> None:
    """Write lr_range.csv and lr_range.png into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    points = zip(found.lrs, found.losses, found.smoothed, strict=True)
    write_csv(folder / "lr_range.csv", [{"lr": lr, "loss": loss, "smoothed": mean} for lr, loss, mean in points])
    save_figure(range_figure(found), folder / "lr_range.png")
