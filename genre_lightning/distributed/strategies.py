"""From the name of a strategy to Lightning's objects, and what cannot work together."""

from __future__ import annotations

import os
from typing import Any

import torch
from lightning.pytorch.accelerators import CPUAccelerator, CUDAAccelerator, MPSAccelerator
from lightning.pytorch.plugins.precision import Precision
from lightning.pytorch.strategies import DDPStrategy, SingleDeviceStrategy, Strategy

from genre_lightning.config.trainer import listed_devices
from genre_lightning.distributed.scaling import ScaledPrecision
from genre_lightning.distributed.sharded import ShardedPrecision, ShardedStrategy
from genre_lightning.errors import ConfigError

SHARDED = "fsdp"
NAMES = ("auto", "ddp", SHARDED)
_RANKS_PER_CORE = 4
_SHARDS_INTEGERS = (2, 13)
"""The first torch whose `fully_shard` was seen to take NF4 weights in uint8; 2.11 fails."""
_MADE = (DDPStrategy, SingleDeviceStrategy)
_SHARDED_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")


def is_sharded(strategy: Any) -> bool:
    """Return whether a strategy, by name, in a configuration or made, shards the model."""
    configured = str(getattr(strategy, "class_path", "")).rpartition(".")[2]
    return strategy == SHARDED or isinstance(strategy, ShardedStrategy) or configured == ShardedStrategy.__name__


def rank_count(devices: Any, num_nodes: int, accelerator: str) -> int:
    """Return how many ranks a trainer starts.

    Args:
        devices: Devices as Lightning takes them: "auto", -1, a number, a list, or "0,2".
        num_nodes: Machines.
        accelerator: Resolved.
    """
    kind = {"cuda": CUDAAccelerator, "mps": MPSAccelerator}.get(accelerator, CPUAccelerator)
    found = kind.auto_device_count() if devices == "auto" else kind.parse_devices(devices)
    return num_nodes * (len(found) if isinstance(found, list) else int(found or 0))


def devices_here(accelerator: str) -> tuple[int, str]:
    """Return how many ranks this machine may have, and what it has in words.

    Args:
        accelerator: Resolved.
    """
    if accelerator == "cuda":
        gpus = CUDAAccelerator.auto_device_count()
        return gpus, "one GPU" if gpus == 1 else f"{gpus} GPUs"
    if accelerator == "cpu":
        cores = os.cpu_count() or 1
        # ranks that share a core are slow, yet a few serve for a test; a thousand of them would take all memory
        return _RANKS_PER_CORE * cores, f"{cores} CPU cores"
    return 1, f"one {accelerator} device"


def device_problems(devices: Any, accelerator: str) -> list[str]:
    """List what `trainer.devices` asks of this machine that it does not have.

    Args:
        devices: Devices as Lightning takes them, well-formed: "auto", -1, a number, a list, or "0,2".
        accelerator: Resolved.
    """
    if devices == "auto":
        return []
    if str(devices) == "-1":
        return (
            [] if accelerator != "cpu" else ["trainer.devices is -1, which stands for all GPUs: give a number of ranks"]
        )
    listed = listed_devices(devices)
    if listed is not None:
        if accelerator != "cuda":
            return [f"trainer.devices is {devices}, and a list chooses among GPUs: give a number"]
        wanted = 1 + max(map(int, listed))
    else:
        wanted = int(devices)
    most, there = devices_here(accelerator)
    if wanted <= most:
        return []
    return [f"trainer.devices is {devices}, and this machine has {there}: give at most {most}, or leave it out"]


def make_strategy(
    strategy: str | Strategy, precision: str, accelerator: str, *, ranks: int = 1, shards_checkpoints: bool = False
) -> tuple[str | Strategy, Precision | None]:
    """Return Lightning's strategy for a name, and the precision plugin that it needs in place of the trainer's own.

    Args:
        strategy: "auto", "ddp", "fsdp", or one already made.
        precision: Resolved.
        accelerator: Resolved.
        ranks: Number of ranks of the run; "auto" is "ddp" if there are several.
        shards_checkpoints: Whether a sharded model's checkpoint is sharded too, see `ShardedStrategy`.
    """
    if is_sharded(strategy):
        made = strategy if isinstance(strategy, ShardedStrategy) else ShardedStrategy()
        made.shards_checkpoints = made.shards_checkpoints or shards_checkpoints
        return made, ShardedPrecision(precision, accelerator)  # type: ignore[arg-type]  # checked by check_strategy
    scaled = ScaledPrecision(accelerator) if precision == "16-mixed" else None
    if strategy == "ddp" or (strategy == "auto" and ranks > 1):
        # all parameters take part in every step, so no search for unused ones; views spare a copy of all gradients;
        # buffers are equal on all ranks already, or are sums of the rank's own
        return DDPStrategy(find_unused_parameters=False, gradient_as_bucket_view=True, broadcast_buffers=False), scaled
    return strategy, scaled


def check_strategy(
    strategy: Any,
    precision: str,
    accelerator: str,
    *,
    optimizer: str = "adamw",
    quantization: str = "none",
    compute_dtype: str = "auto",
    quant_storage: str = "uint8",
    trains: bool = True,
) -> None:
    """Refuse what cannot work together, before anything is loaded.

    Args:
        strategy: A name, or one already made.
        precision: Resolved.
        accelerator: Resolved.
        optimizer: The model's option, such as "adamw" or "adamw_8bit".
        quantization: The model's option: "none", "nf4" or "int8".
        compute_dtype: The model's option: "auto", or the dtype of the frozen weights' matmuls.
        quant_storage: The model's option: the dtype that packed NF4 weights are stored in.
        trains: Whether the model has anything to train.

    Raises:
        ConfigError: Options cannot work together; the message names the fix.
    """
    # a subclass, such as DeepSpeed's, steps in its own way
    if not (strategy in NAMES if isinstance(strategy, str) else is_sharded(strategy) or type(strategy) in _MADE):
        name = strategy if isinstance(strategy, str) else type(strategy).__name__
        raise ConfigError(
            f"trainer.strategy is {name}, whose steps are not known to be those of one device: set trainer.strategy to "
            f"one of {', '.join(NAMES)}"
        )
    if not is_sharded(strategy):
        return
    if accelerator == "mps":
        raise ConfigError("trainer.strategy fsdp needs CUDA GPUs or a CPU: set trainer.accelerator=cpu")
    if precision not in _SHARDED_PRECISIONS:
        raise ConfigError(
            f"trainer.strategy fsdp cannot train in trainer.precision {precision}: set one of "
            f"{', '.join(_SHARDED_PRECISIONS)}"
        )
    if not trains:
        raise ConfigError("trainer.strategy fsdp shards what trains, and this model trains nothing: set ddp or auto")
    if "8bit" in optimizer:
        # bitsandbytes steps by pointers to whole tensors of the device, and refuses shards, on the host or not
        raise ConfigError(
            f"model.optimizer {optimizer} cannot step the shards of trainer.strategy fsdp: set model.optimizer=adamw, "
            "whose states are divided by the number of ranks, or trainer.strategy=ddp"
        )
    if quantization == "int8":
        # bitsandbytes keeps the scales on the parameter, and another reference to its whole memory
        raise ConfigError(
            "model.quantization int8 cannot be sharded by trainer.strategy fsdp: set model.quantization=nf4 or none, "
            "or trainer.strategy=ddp"
        )
    if quantization == "nf4" and quant_storage == "uint8" and _torch_version() < _SHARDS_INTEGERS:
        # fully_shard makes a parameter that wants a gradient first, and integers have none
        raise ConfigError(
            f"model.quant_storage is uint8, and torch {torch.__version__} shards no integers under trainer.strategy "
            f"fsdp: install torch 2.13, or set model.quant_storage={_dtype_name(precision)}"
        )
    if precision != "32-true" and compute_dtype not in ("auto", dtype := _dtype_name(precision)):
        raise ConfigError(
            f"model.compute_dtype is {compute_dtype} under trainer.precision {precision}: trainer.strategy fsdp casts "
            f"all weights of a block to {dtype}: set model.compute_dtype=auto"
        )


def _dtype_name(precision: str) -> str:
    return {"16": "float16", "bf": "bfloat16"}.get(precision[:2], "float32")


def _torch_version() -> tuple[int, int]:
    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(minor)
