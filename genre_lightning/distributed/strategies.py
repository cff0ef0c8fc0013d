"""From the name of a strategy to Lightning's objects, and what cannot work together."""

from __future__ import annotations

from typing import Any

from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import DDPStrategy, Strategy

from genre_lightning.distributed.sharded import ShardedPrecision, ShardedStrategy
from genre_lightning.errors import ConfigError

SHARDED = "fsdp"
_SHARDED_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def is_sharded(strategy: Any) -> bool:
    """Whether a strategy, by name or made, shards the model."""
    return strategy == SHARDED or isinstance(strategy, ShardedStrategy)


def make_strategy(
    strategy: str | Strategy, precision: str, accelerator: str, *, shards_checkpoints: bool = False
) -> tuple[str | Strategy, Precision | None]:
    """Lightning's strategy for a name, and the precision plugin that it needs in place of the trainer's own.

    Args:
        strategy: "auto", "ddp", "fsdp", another of Lightning's names, or one already made.
        precision: resolved.
        accelerator: resolved.
        shards_checkpoints: of a sharded model, see `ShardedStrategy`.
    """
    if strategy == "ddp":
        # all parameters take part in every step, so no search for unused ones; views spare a copy of all gradients
        return DDPStrategy(find_unused_parameters=False, gradient_as_bucket_view=True), None
    if is_sharded(strategy):
        made = strategy if isinstance(strategy, ShardedStrategy) else ShardedStrategy()
        made.shards_checkpoints = made.shards_checkpoints or shards_checkpoints
        return made, ShardedPrecision(precision, accelerator)  # type: ignore[arg-type]  # checked by check_strategy
    return strategy, None


def check_strategy(strategy: Any, precision: str, accelerator: str, *, cpu_offload: bool, optimizer: str) -> None:
    """Refuses what cannot work together, before anything is loaded.

    Args:
        strategy: "auto", "ddp", "fsdp" or one already made.
        precision: resolved.
        accelerator: resolved.
        cpu_offload: whether a sharded model lies in the host's memory.
        optimizer: the model's option, such as "adamw" or "adamw_8bit".

    Raises:
        ConfigError: with the cure.
    """
    if not is_sharded(strategy):
        return
    if precision not in _SHARDED_PRECISIONS:
        raise ConfigError(
            f"trainer.strategy fsdp cannot train in trainer.precision {precision}: set one of "
            f"{', '.join(_SHARDED_PRECISIONS)}"
        )
    if cpu_offload and "8bit" in optimizer:
        raise ConfigError(
            f"strategy fsdp with cpu_offload keeps optimizer states on the host, where model.optimizer {optimizer} "
            "cannot step: set model.optimizer=adamw"
        )
    if accelerator == "mps":
        raise ConfigError("trainer.strategy fsdp needs CUDA GPUs or a CPU: set trainer.accelerator=cpu")
