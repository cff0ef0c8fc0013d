"""What a trainer must not do to steps that are planned as sets of films."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BaseFinetuning, GradientAccumulationScheduler

from genre_lightning.config.trainer import step_problems
from genre_lightning.errors import ConfigError

_OPTIONS = ("limit_train_batches", "overfit_batches", "reload_dataloaders_every_n_epochs", "fast_dev_run",
            "gradient_clip_algorithm", "accumulate_grad_batches")  # fmt: skip

_CALLBACKS = {
    GradientAccumulationScheduler: "GradientAccumulationScheduler would cut steps into other parts than are planned "
    "from data.global_batch_size: leave it out",
    BaseFinetuning: "callbacks that freeze the backbone, such as BackboneFinetuning, look for it before it is built: "
    "leave them out, and set lora, unfreeze or layer_lr_decay in the model",
}
"""What a callback of a kind would break, and the fix."""


class PlannedMicroBatches(int):
    """Micro-batches of a step as a data module has planned them: a later fit of the same trainer plans its own."""


class PlannedInterval(int):
    """Micro-batches between two validations; `steps` is what the trainer was set to.

    Lightning counts batches, and their number in a step depends on ranks and micro-batches. Its callbacks compare the
    interval with 1.0, which is a whole epoch: that one is compared with what was set.
    """

    steps: float

    def __new__(cls, micro_batches: int, steps: float) -> PlannedInterval:
        """Make it of both."""
        made = super().__new__(cls, micro_batches)
        made.steps = steps
        return made

    def __getnewargs__(self) -> tuple[int, float]:  # type: ignore[override]  # what copies are made of
        """Return the arguments of `__new__`."""
        return int(self), self.steps

    def __eq__(self, other: object) -> bool:
        """Compare an int with the micro-batches, and a float with the fraction of an epoch that was set."""
        if isinstance(other, float):
            return isinstance(self.steps, float) and self.steps == other
        return super().__eq__(other)

    __hash__ = int.__hash__


def plan_validations(trainer: Trainer, steps: int, micro_batches: int) -> None:
    """Have the trainer validate after whole optimizer steps: the same ones on any number of ranks.

    Args:
        trainer: Its `val_check_interval` is a number of steps or a fraction of an epoch; one of time is left as it is.
        steps: Optimizer steps of an epoch.
        micro_batches: Of each step, on each rank.

    Raises:
        ConfigError: No epoch has as many steps.
    """
    interval: Any = getattr(trainer, "val_check_interval", None)  # which a trainer that counts time does not have
    interval = getattr(interval, "steps", interval)
    if isinstance(interval, float) and interval < 1:
        every = max(int(steps * interval), 1)
    elif isinstance(interval, int):
        every = interval
    else:
        return
    if every > steps and trainer.check_val_every_n_epoch is not None and trainer.limit_val_batches > 0:
        raise ConfigError(
            f"trainer.val_check_interval is {every}, and an epoch has {steps:,} optimizer steps: give {steps} or "
            "fewer, or a fraction of an epoch"
        )
    trainer.val_check_interval = PlannedInterval(every * micro_batches, interval)


def check_trainer(trainer: Trainer) -> None:
    """Refuse a trainer that would break the plan of the steps.

    Raises:
        ConfigError: With every problem, and the fix.
    """
    options = {name: getattr(trainer, name) for name in _OPTIONS}
    algorithm = options["gradient_clip_algorithm"]
    options["gradient_clip_algorithm"] = getattr(algorithm, "value", algorithm)
    if options["fast_dev_run"]:  # which sets the limits too
        options |= {"limit_train_batches": 1.0, "overfit_batches": 0}
    if isinstance(options["accumulate_grad_batches"], PlannedMicroBatches):
        options["accumulate_grad_batches"] = 1
    problems = step_problems(options)
    callbacks = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector, where mypy cannot see
    problems += [problem for kind, problem in _CALLBACKS.items() if any(isinstance(one, kind) for one in callbacks)]
    if problems:
        raise ConfigError("; and ".join(problems))
