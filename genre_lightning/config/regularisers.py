"""What R-Drop and adversarial embeddings cannot be used with."""

from __future__ import annotations

from typing import Any

from genre_lightning.bounds import Bounds
from genre_lightning.errors import ConfigError

REGULARISER = Bounds(0, 100)
"""Of the weights and lengths of regularisers."""

_HALF = ("16-mixed", "16-true", "16")


def check_regularisers(options: Any, *, drops: bool) -> None:
    """Refuse regularisers that would do nothing, or that the model cannot compute.

    Args:
        options: Of an encoder or decoder.
        drops: Whether anything is dropped in training.

    Raises:
        ConfigError: With the option and the fix.
    """
    if options.r_drop and not drops:
        raise ConfigError(
            f"model.r_drop is {options.r_drop:g} without dropout, and two passes are the same then: leave it out, or "
            "set model.dropout"
        )
    if not options.fgm:
        return
    if getattr(options, "quantization", "none") != "none":
        raise ConfigError(
            f"model.fgm is {options.fgm:g} with model.quantization {options.quantization}, whose matmuls are too "
            "coarse for the gradient of the embeddings: set model.quantization=none, or leave model.fgm out"
        )
    if options.activation_checkpointing:
        raise ConfigError(
            f"model.fgm is {options.fgm:g} with model.activation_checkpointing, and goes back through the states of a "
            "pass twice: leave one of them out"
        )


def check_passes(options: Any, precision: str, *, sharded: bool) -> None:
    """Refuse regularisers under a strategy or precision that they cannot be computed in.

    Args:
        options: Of a model.
        precision: Of the trainer.
        sharded: Whether the strategy shards weights.

    Raises:
        ConfigError: With the option and the fix.
    """
    for name in ("r_drop", "fgm"):
        if sharded and bool(getattr(options, name, 0)):
            raise ConfigError(
                f"model.{name} goes through the model twice before the backward pass, which sharded weights do not "
                f"stand for: set trainer.strategy=ddp, or leave model.{name} out"
            )
    if precision in _HALF and bool(getattr(options, "fgm", 0)):
        raise ConfigError(
            f"model.fgm takes a gradient within the step, which no loss scale protects under trainer.precision "
            f"{precision}: set trainer.precision=bf16-mixed or 32-true, or leave model.fgm out"
        )
