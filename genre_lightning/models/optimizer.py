"""Parameter groups, learning rates and their schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, get_args

from torch import nn

from genre_lightning.config.model import Schedule
from genre_lightning.errors import ConfigError

HEAD_LEARNING_RATE_FACTOR = 10.0
"""A new head learns this many times faster than the pretrained backbone below it."""


def default_learning_rate(parameters: int, *, adapters: bool, from_scratch: bool) -> float:
    """A good peak learning rate of AdamW for a backbone of that size.

    Args:
        parameters: of the backbone.
        adapters: only LoRA's matrices train, which stand ten times more than whole weights.
        from_scratch: the backbone starts from random weights.
    """
    if from_scratch:
        return 1e-3
    full = 2e-4 if parameters < 40e6 else 5e-5 if parameters < 200e6 else 2e-5
    return max(full, 2e-4) if adapters else full


def parameter_groups(
    backbone: Iterable[tuple[str, nn.Parameter]],
    head: Iterable[tuple[str, nn.Parameter]],
    *,
    lr: float,
    head_lr: float,
    weight_decay: float,
) -> list[dict[str, Any]]:
    """AdamW's groups: backbone and head apart, biases and norms (everything of one dimension) without decay."""
    groups = []
    for part, parameters, rate in (("backbone", list(backbone), lr), ("head", list(head), head_lr)):
        trained = [(name, p) for name, p in parameters if p.requires_grad]
        for kind, decay in (("decay", weight_decay), ("no_decay", 0.0)):
            members = [p for _, p in trained if (p.ndim > 1) == (kind == "decay")]
            if members:
                groups.append({"params": members, "lr": rate, "weight_decay": decay, "name": f"{part}_{kind}"})
    return groups


def schedule_factor(schedule: Schedule, *, warmup_steps: int, total_steps: int) -> Callable[[int], float]:
    """The factor on the peak learning rate of optimizer step k = 0, 1, …: linear warm-up, then the named decay to 0.

    Raises:
        ConfigError: there is no schedule of that name.
    """
    if schedule not in get_args(Schedule):
        raise ConfigError(f"model.schedule is {schedule!r}: choose one of {', '.join(get_args(Schedule))}")

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        if schedule == "constant":
            return 1.0
        done = min((step - warmup_steps) / max(total_steps - warmup_steps, 1), 1.0)
        return 1.0 - done if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * done))

    return factor
