"""Parameter groups, learning rates and their schedule."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, get_args

from torch import nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from genre_lightning.config.classifier import Schedule
from genre_lightning.distributed.sharded import transformer_blocks
from genre_lightning.errors import ConfigError

HEAD_LEARNING_RATE_FACTOR = 10.0
"""A new head learns this many times faster than the pretrained backbone below it."""


def default_learning_rate(parameters: int, *, adapters: bool, from_scratch: bool) -> float:
    """Return a good peak learning rate of AdamW for a backbone of that size.

    Args:
        parameters: Parameters of the backbone.
        adapters: Only LoRA's matrices train, which stand ten times more than whole weights.
        from_scratch: The backbone starts from random weights.
    """
    if from_scratch:
        return 1e-3
    full = 2e-4 if parameters < 40e6 else 5e-5 if parameters < 200e6 else 2e-5
    return max(full, 2e-4) if adapters else full


@dataclass(frozen=True)
class Part:
    """Parameters of the backbone with a learning rate of their own.

    Attributes:
        name: In the curves and in the optimizer's groups.
        lr: Peak learning rate.
    """

    name: str
    lr: float


def parameter_groups(
    backbone: Iterable[tuple[str, nn.Parameter]],
    head: Iterable[tuple[str, nn.Parameter]],
    *,
    lr: float,
    head_lr: float,
    weight_decay: float,
    part_of: Callable[[str], Part] | None = None,
) -> list[dict[str, Any]]:
    """Return AdamW's groups: backbone and head apart, biases and norms (all of one dimension) without decay.

    Args:
        backbone: Its parameters by name.
        head: The same.
        lr: Peak learning rate of the backbone.
        head_lr: Of the head.
        weight_decay: Of the parameters that decay.
        part_of: The part of the backbone that a parameter of that name belongs to; None for one part.
    """
    members: dict[tuple[Part, str], list[nn.Parameter]] = {}
    for part, parameters in ((Part("backbone", lr), list(backbone)), (Part("head", head_lr), list(head))):
        for name, p in parameters:
            if p.requires_grad:
                own = part_of(name) if part_of and part.name == "backbone" else part
                members.setdefault((own, "decay" if p.ndim > 1 else "no_decay"), []).append(p)
    # parts in the order in which they come, each with what decays first
    order = list(dict.fromkeys(part for part, _ in members))
    return [
        {"params": members[part, kind], "lr": part.lr, "weight_decay": decay, "name": f"{part.name}_{kind}"}
        for part in order
        for kind, decay in (("decay", weight_decay), ("no_decay", 0.0))
        if (part, kind) in members
    ]


def parts_of_backbone(
    backbone: nn.Module, lr: float, *, ratio_b: float = 1.0, layer_decay: float = 1.0, unfrozen_lr: float | None = None
) -> Callable[[str], Part]:
    """Return the part of a backbone that a parameter belongs to, and the learning rate of that part.

    Args:
        backbone: With its adapters.
        lr: Peak learning rate of the backbone.
        ratio_b: The rate of LoRA's B over that of A (Hayou et al., "LoRA+", 2024).
        unfrozen_lr: Peak learning rate of what trains in full beside adapters; None if there is no such part.
        layer_decay: The rate of a transformer block over that of the one above it (Howard and Ruder, "ULMFiT", 2018);
            what is above the blocks has the rate of the last, and embeddings that of a block below the first.

    Raises:
        ConfigError: There are no blocks whose rates could differ.
    """
    depth = _depths(backbone) if layer_decay != 1.0 else {}

    def part_of(name: str) -> Part:
        part, rate = "backbone", lr
        if unfrozen_lr is not None and "lora_" not in name:
            part, rate = "unfrozen", unfrozen_lr
        if below := depth.get(name, 0):
            part, rate = f"{part}-{below}", rate * layer_decay**below
        if ratio_b != 1.0 and ".lora_B." in name:
            part, rate = f"{part}.B", rate * ratio_b
        return Part(part, rate)

    return part_of


def _depths(backbone: nn.Module) -> dict[str, int]:
    """Return how many blocks a parameter lies below the last one; those above the blocks are left out."""
    try:
        blocks = transformer_blocks(backbone)
    except ConfigError:
        raise ConfigError(
            f"model.layer_lr_decay is for transformer blocks, and {type(backbone).__name__} has no list of them: "
            "set it to 1.0"
        ) from None
    depth = {id(p): len(blocks) - 1 - place for place, block in enumerate(blocks) for p in block.parameters()}
    found = {}
    for name, p in backbone.named_parameters():
        if id(p) in depth:
            found[name] = depth[id(p)]
        elif "embed" in name:
            found[name] = len(blocks)
    return found


def schedule_factor(schedule: Schedule, *, warmup_steps: int, total_steps: int) -> Callable[[int], float]:
    """Return the factor on the peak learning rate of optimizer step k = 0, 1, …: linear warm-up, then a decay to 0.

    Raises:
        ConfigError: There is no schedule of that name.
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


def settings_of(optimizer: Optimizer) -> list[dict[str, Any]]:
    """Return what an optimizer was made with for each of its groups: rates, decay, moments, name."""
    return [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]


def refuse_other_groups(optimizer: Optimizer) -> None:
    """Have an optimizer refuse a checkpoint with other groups of parameters, in which their order differs too.

    Raises:
        ConfigError: When such a checkpoint is loaded.
    """

    def check(optimizer: Optimizer, state: dict[str, Any]) -> None:
        own, theirs = ([len(group["params"]) for group in each["param_groups"]] for each in (vars(optimizer), state))
        if own != theirs:
            raise ConfigError(
                "the checkpoint's optimizer has other groups of parameters than this one, which have learning rates of "
                "their own by model.layer_lr_decay and model.lora.lr_ratio_b: resume with those that the run was "
                "started with, or start another run"
            )

    optimizer.register_load_state_dict_pre_hook(check)


def put_back(settings: list[dict[str, Any]], scheduler: LambdaLR) -> None:
    """Train on with an optimizer's own settings in place of those of the checkpoint that it was restored from.

    Without a change of settings, nothing changes.

    Args:
        settings: Of the scheduler's optimizer before a checkpoint was restored.
        scheduler: Knows the steps done and the factors of the configured schedule.
    """
    scheduler.base_lrs = [group["initial_lr"] for group in settings]
    for group, own, factor in zip(scheduler.optimizer.param_groups, settings, scheduler.lr_lambdas, strict=True):
        group.update(own)
        group["lr"] = own["initial_lr"] * factor(scheduler.last_epoch)
    scheduler._last_lr = [group["lr"] for group in scheduler.optimizer.param_groups]
