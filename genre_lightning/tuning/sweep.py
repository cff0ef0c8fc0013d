"""A space as a sweep of Weights & Biases."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from genre_lightning.errors import ConfigError
from genre_lightning.metrics import better_is_higher
from genre_lightning.tuning.space import SearchOption, Space

METHODS = ("bayes", "random", "grid")


def sweep_configuration(
    space: Space, words: Sequence[str], *, name: str, monitor: str, method: str, early_epochs: int | None
) -> dict[str, Any]:
    """Return the configuration of a sweep, as `wandb sweep` takes it.

    Args:
        space: To search.
        words: Options of `fit` that all trials have.
        name: Shown for the sweep.
        monitor: Validation metric.
        method: One of `METHODS`.
        early_epochs: First epoch after which W&B's Hyperband may end a trial; None never does.

    Raises:
        ConfigError: The space has what a sweep cannot search.
    """
    if method == "grid":
        space.grid()
    configuration: dict[str, Any] = {
        "name": name,
        "method": method,
        "metric": {"name": monitor, "goal": "maximize" if better_is_higher(monitor) else "minimize"},
        "parameters": {option.name: _parameter(option, method) for option in space.options},
        "command": ["${env}", "genre-lightning", "fit", *words, "${args}"],
    }
    if early_epochs is not None:
        configuration["early_terminate"] = {"type": "hyperband", "min_iter": early_epochs}
    return configuration


def _parameter(option: SearchOption, method: str) -> dict[str, Any]:
    if option.when:
        raise ConfigError(f"{option.name} has a condition, which sweeps of W&B do not have: leave it out, or use tune")
    # q_uniform would round to multiples of q, whatever the low end is
    if option.choices or option.step is not None or method == "grid":
        return {"values": option.grid()}
    limits: dict[str, Any] = {"min": option.low, "max": option.high}
    if option.log and option.is_integer:
        return {"distribution": "q_log_uniform_values", "q": 1, **limits}
    if option.log:
        return {"distribution": "log_uniform_values", **limits}
    return {"distribution": "int_uniform" if option.is_integer else "uniform", **limits}
