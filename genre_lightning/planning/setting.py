"""What a model is trained on, and the size of its micro-batch: what memory is reckoned from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from genre_lightning.models.layers.cpu_attention import neighbours_of_like_length

Strategy = Literal["single", "ddp", "fsdp"]


@dataclass(frozen=True)
class Setting:
    """What a model is trained on and how.

    Attributes:
        strategy: "single" is one device.
        ranks: Devices in all.
        device: "cuda", or "cpu", whose kernels keep other things.
        half: Whether matmuls are in half precision.
        optimizer: The model's option.
        fused: Whether the optimizer steps without copies of its states.
        micro_batches: Micro-batches of a step, on each rank.
        offload: Keep shards, gradients and optimizer states on the host.
        averaged: Whether a moving average of the trained weights is kept.
    """

    strategy: Strategy
    ranks: int
    device: Literal["cpu", "cuda"]
    half: bool
    optimizer: str = "adamw"
    fused: bool = False
    micro_batches: int = 1
    offload: bool = False
    averaged: bool = False

    @property
    def number(self) -> int:
        """Bytes of a number in matmuls: c."""
        return 2 if self.half else 4

    @property
    def mask(self) -> int:
        """Bytes of what dropout keeps for each element: on a CPU this package's own has masks of 16 bits."""
        return 2 if self.device == "cpu" else 1

    @property
    def autocast(self) -> bool:
        """Whether autocast casts each operand; sharding casts whole blocks in its place."""
        return self.half and self.strategy != "fsdp"


@dataclass(frozen=True)
class BatchShape:
    """The size of a micro-batch.

    Attributes:
        tokens: Tokens that linear layers see, padding included, but for the tail of up to 31 that a CPU is given.
        attention_tokens: Tokens that attention sees: packed texts are padded for it, to the longest or in groups.
        longest: Tokens of the longest text.
        masked: Whether attention is given a mask, as padded texts of an encoder need.
        packed: How the texts are laid out.
        pairs: Pairs of tokens that attention weighs, if it takes packed texts in groups of like length; else 0.
    """

    tokens: int
    attention_tokens: int
    longest: int
    masked: bool
    packed: bool = False
    pairs: int = 0

    @classmethod
    def of(cls, lengths: Sequence[int], *, packed: bool, encoder: bool, in_groups: bool = False) -> BatchShape:
        """Return the setting of texts.

        Args:
            lengths: Tokens of each, in their order.
            packed: Whether they are laid one behind another.
            encoder: Whether attention needs a mask if texts are padded.
            in_groups: Whether attention takes them in groups of like length.
        """
        longest, tokens = max(lengths), sum(lengths)
        padded = longest * len(lengths)
        if packed and in_groups:
            groups = neighbours_of_like_length(lengths)
            attended = sum((end - first) * places for first, end, places in groups)
            pairs = sum((end - first) * places**2 for first, end, places in groups)
            return cls(tokens, attended, longest, masked=False, packed=True, pairs=pairs)
        masked = encoder and not packed and min(lengths) < longest
        return cls(tokens if packed else padded, padded, longest, masked, packed)

    @classmethod
    def full(cls, tokens: int, longest: int, *, packed: bool, encoder: bool) -> BatchShape:
        """Return the largest that a budget of tokens allows."""
        tokens = max(tokens, longest)
        pairs = tokens * longest if packed else 0
        return cls(tokens, tokens, longest, masked=encoder and not packed, packed=packed, pairs=pairs)
