"""A Llama-like decoder's elementwise passes, each in one kernel: its norms, and the gates of its feed-forward layers.

Written out, a norm goes through its states in float32 five times, and a gate twice. The matmuls stay outside, so that
their weights may be quantised; rotary embeddings stay as they are, since transformers has them in a function.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

_GATED = ("gate_proj", "up_proj", "down_proj", "act_fn")


def fuse_elementwise(decoder: nn.Module) -> int:
    """Compile the norms and gates of a decoder, in place, for any number of tokens; its weights keep their names.

    Returns:
        How many of them there are.
    """
    norm, gate = (torch.compile(function, dynamic=True) for function in (_norm, _gate))
    fused = 0
    for module in decoder.modules():
        if type(module).__name__.endswith("RMSNorm"):
            module.forward = partial(_normalise, norm, module)
        elif all(hasattr(module, name) for name in _GATED):
            module.forward = partial(_feed_forward, gate, module)
        else:
            continue
        fused += 1
    return fused


def _norm(states: Tensor, weight: Tensor, epsilon: float) -> Tensor:
    """Normalise as Zhang and Sennrich ("Root Mean Square Layer Normalization", 2019) do, in float32."""
    wide = states.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + epsilon)
    return weight * wide.to(states.dtype)


def _gate(activation: Callable[[Tensor], Tensor], gate: Tensor, up: Tensor) -> Tensor:
    return activation(gate) * up


def _normalise(norm: Callable[..., Tensor], module: Any, states: Tensor) -> Tensor:
    return norm(states, module.weight, module.variance_epsilon)


def _feed_forward(gate: Callable[..., Tensor], module: Any, states: Tensor) -> Tensor:
    output: Tensor = module.down_proj(gate(module.act_fn, module.gate_proj(states), module.up_proj(states)))
    return output
