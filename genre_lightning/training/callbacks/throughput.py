"""Throughput: how fast a run trains, how near to the device's limit, and in how much memory."""

from __future__ import annotations

import resource
import sys
import time
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer
from typing_extensions import override

from genre_lightning.hardware import Precision, dense_peak
from genre_lightning.models.base import GenreClassifier

_GIB = 1024**3


class Throughput(Callback):
    """Adds the speed of the steps since the last logged one to the row of a logged step.

    Over all ranks: real tokens and films a second, the fraction of padding in the batches, model FLOPs utilisation
    (see `models.flops`) if the device's dense peak is known, and the largest memory so far of this rank. Validation
    and the writing of checkpoints are not part of it. The device is waited for at logged steps only, whose loss has to
    be read there anyway.
    """

    def __init__(self) -> None:
        super().__init__()
        self._since: float | None = None
        self._before: Tensor | None = None
        self._peak: float | None = None

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        device = trainer.strategy.root_device
        if device.type == "cuda":
            peak = dense_peak(torch.cuda.get_device_name(device), _matmul_precision(pl_module))
            self._peak = peak * trainer.world_size if peak else None
        self._since = None

    @override
    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._since = None

    @override
    def on_save_checkpoint(self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]) -> None:
        self._since = None

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        # after an epoch's end or a save the device has nothing left to do, so the clock is right without waiting
        if self._since is None:
            assert isinstance(pl_module, GenreClassifier)
            self._since, self._before = time.perf_counter(), pl_module.sums.work.clone()

    @override
    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer) -> None:
        assert isinstance(pl_module, GenreClassifier)
        if not pl_module.is_logged_step() or self._since is None or self._before is None:
            return
        done = pl_module.sums.work - self._before
        tokens, slots, tokens_squared, films = done.tolist()  # waits for the backward pass of the step
        now = time.perf_counter()
        seconds = now - self._since
        self._since, self._before = now, pl_module.sums.work.clone()
        figures = {
            "throughput/tokens_per_second": tokens / seconds,
            "throughput/films_per_second": films / seconds,
            "throughput/padding": 1 - tokens / slots,
            **_memory(trainer.strategy.root_device),
        }
        shown = {"tokens/s": tokens / seconds, "films/s": films / seconds, "padding": 1 - tokens / slots}
        cost = pl_module.training_cost()
        if self._peak and cost:
            figures["throughput/mfu"] = shown["MFU"] = cost.flops(tokens, tokens_squared) / seconds / self._peak
        shown["GiB"] = figures[next(name for name in figures if name.startswith("memory/"))]
        pl_module.row.update(figures)
        pl_module.log_dict(shown, logger=False)


def _matmul_precision(model: LightningModule) -> Precision:
    """Return what the matmuls of a model are computed in: half precision's own, or single."""
    assert isinstance(model, GenreClassifier)
    name = model.precision
    return "bf16" if name.startswith("bf16") else "fp16" if name.startswith("16") else "fp32"


def _memory(device: torch.device) -> dict[str, float]:
    """Return the largest memory so far: what tensors took of the GPU, or else the process of the host, in GiB."""
    if device.type == "cuda":
        return {"memory/gpu_peak_gib": torch.cuda.max_memory_allocated(device) / _GIB}
    unit = 1 if sys.platform == "darwin" else 1024  # macOS counts bytes, Linux KiB
    return {"memory/host_peak_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / _GIB}
