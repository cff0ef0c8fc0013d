"""An exponential moving average of the trained weights, kept in the optimizer's state beside its moments.

There it is sharded, saved and restored as they are, at any number of ranks, under any strategy, in any checkpoint.
While a model trains, the optimizer's state holds the average; in evaluation and in every checkpoint it is the other way
round, so that whatever reads a checkpoint's weights has the average.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

if TYPE_CHECKING:
    from torch.optim import Optimizer

AVERAGE = "average"
"""Name of the average among an optimizer's states of a parameter."""


def follow(optimizer: Optimizer, decay: float, steps: Callable[[], int]) -> None:
    """Update the average after each step of an optimizer.

    Args:
        optimizer: Of the weights.
        decay: Of the average: avg = d avg + (1 - d) weight, with d = min(decay, (1 + k) / (10 + k)) after k steps, so
            that a short training does not keep what it started from.
        steps: Gives the optimizer steps before the one at hand.
    """

    @torch.no_grad()
    def update(*_: Any) -> None:
        k = steps()
        keep = min(decay, (1 + k) / (10 + k))
        averages, weights = [], []
        for p in _parameters(optimizer):
            state = optimizer.state[p]
            if AVERAGE not in state:
                state[AVERAGE] = p.detach().clone()
            else:
                averages.append(_local(state[AVERAGE]))
                weights.append(_local(p.detach()))
        if averages:
            torch._foreach_lerp_(averages, weights, 1 - keep)

    optimizer.register_step_post_hook(update)


def forget(optimizer: Optimizer) -> None:
    """Drop the average."""
    for p in _parameters(optimizer):
        optimizer.state.get(p, {}).pop(AVERAGE, None)


@torch.no_grad()
def exchange(optimizer: Optimizer, *parts: nn.Module) -> None:
    """Put the average in the place of the weights and the weights in its place, in place.

    Args:
        optimizer: Of the weights.
        parts: The modules that were sharded, which may hold gathered weights.
    """
    for p in _parameters(optimizer):
        if (average := optimizer.state.get(p, {}).get(AVERAGE)) is not None:
            mine, other = _local(p.detach()), _local(average)
            kept = mine.clone()
            mine.copy_(other)
            other.copy_(kept)
    for part in parts:
        if isinstance(part, FSDPModule):
            part.reshard()  # an evaluation leaves it gathered, and the next step would compute with what it gathered


def exchange_in_checkpoint(checkpoint: dict[str, Any], optimizer: Optimizer, module: nn.Module) -> None:
    """Exchange both in a checkpoint that is about to be written; one of weights alone takes the average.

    A collective for sharded weights.
    """
    names = {id(p): name for name, p in module.named_parameters()}
    states = checkpoint["optimizer_states"][0]["state"] if checkpoint.get("optimizer_states") else None
    for index, p in enumerate(_parameters(optimizer)):
        state = optimizer.state.get(p, {}) if states is None else states.get(index, {})
        if AVERAGE not in state:
            continue
        weight = checkpoint["state_dict"][names[id(p)]]
        if states is None:
            checkpoint["state_dict"][names[id(p)]] = _like(weight, state[AVERAGE])
        else:  # the states are the optimizer's own objects
            checkpoint["state_dict"][names[id(p)]] = state[AVERAGE]
            states[index] = {**state, AVERAGE: weight}


def _like(weight: Tensor, average: Tensor) -> Tensor:
    """Return an average whole where the weight is, as the strategy has gathered it."""
    return average.full_tensor() if isinstance(average, DTensor) and not isinstance(weight, DTensor) else average


def _parameters(optimizer: Optimizer) -> Iterator[nn.Parameter]:
    return (p for group in optimizer.param_groups for p in group["params"])


def _local(tensor: Tensor) -> Tensor:
    return tensor.to_local() if isinstance(tensor, DTensor) else tensor
