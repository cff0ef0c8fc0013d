"""The memory of a training step on one device, part by part, from the shapes of the model and of its micro-batch.

All sizes are bytes. What is reckoned is the largest moment: the start of the backward pass, when every state that it
needs is kept and the gradients of the step before are not yet freed. The formulas are in `memory_parts.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

from genre_lightning.planning.memory_parts import (
    activation_bytes,
    cast_bytes,
    communication_bytes,
    dequantisation_bytes,
    gradient_bytes,
    optimizer_bytes,
    step_bytes,
    weight_bytes,
    working_bytes,
)
from genre_lightning.planning.setting import BatchShape, Setting
from genre_lightning.planning.shape import ModelShape

CUDA_CONTEXT = 1_000_000_000
"""Assumed: the driver's context, loaded kernels and the workspaces of cuBLAS."""

NCCL_BUFFERS = 500_000_000
"""Assumed, if there are several ranks."""

RESERVE = 0.05
"""Assumed fraction of all tensors that the allocator loses to fragments."""

PARTS = {
    "weights": "weights",
    "gradients": "gradients",
    "optimizer": "optimizer state",
    "activations": "activations",
    "working": "states' gradients",
    "casts": "weights cast by autocast",
    "dequantisation": "dequantised weights",
    "communication": "communication",
    "step": "optimizer's step, above these",
}
"""Parts of the tensors' memory, and what a table calls them."""


@dataclass(frozen=True)
class Memory:
    """Bytes by part.

    Attributes:
        tensors: Bytes on the device, by the names of PARTS: what `torch.cuda.max_memory_allocated` counts.
        host: Bytes on the host, if shards are offloaded.
        context: Assumed for CUDA and NCCL.
        reserve: Assumed for fragments.
    """

    tensors: dict[str, int]
    host: int
    context: int
    reserve: int

    @property
    def allocated(self) -> int:
        """All tensors."""
        return sum(self.tensors.values())

    @property
    def total(self) -> int:
        """All that the device must have."""
        return self.allocated + self.context + self.reserve


def memory(shape: ModelShape, setting: Setting, batch: BatchShape) -> Memory:
    """Return the memory of a rank at the largest moment of a training step."""
    kept = {
        "weights": weight_bytes(shape, setting),
        "gradients": gradient_bytes(shape, setting),
        "optimizer": optimizer_bytes(shape, setting),
    }
    host = 0
    if setting.offload:
        scales = sum(weight.scales for weight in shape.weights)
        accumulated = kept["gradients"] if setting.micro_batches > 1 else 0
        host = sum(kept.values()) - scales - accumulated
        kept = {"weights": scales, "gradients": accumulated, "optimizer": 0}
    activations = shape.passes * activation_bytes(shape, setting, batch)
    passing = {
        "activations": activations,
        "working": working_bytes(shape, setting, batch),
        "casts": cast_bytes(shape, setting),
        "dequantisation": dequantisation_bytes(shape, setting),
        "communication": communication_bytes(shape, setting, freed=activations // shape.blocks),
    }
    beyond = max(step_bytes(shape, setting) - sum(passing.values()), 0)
    return _with_assumed({**kept, **passing, "step": beyond}, host, setting)


def evaluation_memory(shape: ModelShape, setting: Setting, tokens: int) -> Memory:
    """Return the memory of a model that trains nothing: weights, a batch's keys and values, and one block's states.

    Keys and values take 2 x blocks x key-value heads x head width x c a token, a block's states 8d + 3fc.

    Args:
        shape: Shape of a decoder.
        setting: What it runs on.
        tokens: Number of tokens that are processed at once.
    """
    c = setting.number
    cache = 2 * shape.blocks * shape.kv_heads * shape.head_width * c
    tensors = {
        "weights": weight_bytes(shape, setting),
        "activations": cache * tokens,
        "working": (8 * shape.width + 3 * shape.inner_width * c) * tokens,
        "dequantisation": dequantisation_bytes(shape, setting),
    }
    return _with_assumed(tensors, 0, setting)


def _with_assumed(tensors: dict[str, int], host: int, setting: Setting) -> Memory:
    if setting.device == "cpu":
        return Memory(tensors, host, 0, 0)
    context = CUDA_CONTEXT + (NCCL_BUFFERS if setting.ranks > 1 else 0)
    return Memory(tensors, host, context, round(RESERVE * sum(tensors.values())))


def largest_micro_batch(
    shape: ModelShape, setting: Setting, *, available: int, longest: int, packed: bool, step: int = 64
) -> int | None:
    """Return the most tokens of a micro-batch that fit, as `data.micro_batch_tokens` counts them; None if none do.

    Args:
        shape: Shape of the model.
        setting: What it is trained on.
        available: Bytes of the device.
        longest: Tokens of the longest text, which is processed alone if the budget is smaller.
        packed: How batches are laid out.
        step: The answer is a multiple of it.
    """

    def fits(tokens: int) -> bool:
        batch = BatchShape.full(tokens, longest, packed=packed, encoder=not shape.decoder)
        return memory(shape, setting, batch).total <= available

    if not fits(longest):
        return None
    low, high = longest, 2 * longest
    while fits(high):
        low, high = high, 2 * high
    while high - low > step:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return max(low // step * step, longest)
