"""What a trainer must not do to steps that are planned as sets of films."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from genre_lightning.errors import ConfigError

if TYPE_CHECKING:
    from lightning.pytorch import Trainer


def step_problems(trainer: Mapping[str, Any], planned: int = 1) -> list[str]:
    """List what options of a trainer would break the plan of the steps.

    Args:
        trainer: Its options by name.
        planned: Micro-batches of a step that an earlier fit has planned.
    """
    problems = []
    if trainer["accumulate_grad_batches"] not in (1, planned):
        problems.append(
            "trainer.accumulate_grad_batches is planned from data.global_batch_size and data.micro_batch_tokens: "
            "leave it out and set those"
        )
    for name in ("limit_train_batches", "overfit_batches", "reload_dataloaders_every_n_epochs"):
        if not (is_all(trainer[name]) if name.startswith("limit") else trainer[name] == 0):
            problems.append(f"trainer.{name} would break the plan of the steps: use data.max_films for a quick try")
    if trainer["fast_dev_run"] is not False:
        problems.append("trainer.fast_dev_run saves nothing that could be evaluated: use data.max_films instead")
    if trainer["gradient_clip_algorithm"] not in (None, "norm"):
        problems.append(
            f"trainer.gradient_clip_algorithm is {trainer['gradient_clip_algorithm']}, and gradients are clipped by "
            "their norm over all ranks: leave it out"
        )
    return problems


_OPTIONS = ("limit_train_batches", "overfit_batches", "reload_dataloaders_every_n_epochs", "fast_dev_run",
            "gradient_clip_algorithm", "accumulate_grad_batches")  # fmt: skip


def check_trainer(trainer: Trainer, *, planned: int) -> None:
    """Refuse a trainer that would break the plan of the steps.

    Raises:
        ConfigError: With every problem, and the fix.
    """
    options = {name: getattr(trainer, name) for name in _OPTIONS}
    algorithm = options["gradient_clip_algorithm"]
    options["gradient_clip_algorithm"] = getattr(algorithm, "value", algorithm)
    if options["fast_dev_run"]:  # which sets the limits too
        options |= {"limit_train_batches": 1.0, "overfit_batches": 0}
    if problems := step_problems(options, planned):
        raise ConfigError("; and ".join(problems))


def is_all(limit: float | None) -> bool:
    """Return whether a limit on batches is none: 1.0 is all of them, and 1 a single one."""
    return limit is None or (isinstance(limit, float) and limit == 1)
