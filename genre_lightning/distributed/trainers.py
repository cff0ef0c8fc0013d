"""What a trainer must not do to steps that are planned as sets of films."""

from __future__ import annotations

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
