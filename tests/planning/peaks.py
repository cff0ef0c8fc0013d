"""The largest memory of tensors while a run really trains, counted storage by storage."""

import weakref
from contextlib import contextmanager

import torch
from lightning.pytorch.callbacks import Callback
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakIdKeyDictionary

from genre_lightning.config.parser import parse
from genre_lightning.training.setup import bind_model, build_trainer, check_setup


class PeakOfTensors(TorchDispatchMode):
    """Adds up the storages of all tensors that operations give, each from its first sight until it is freed.

    torch.distributed._tools.MemTracker does this too, but hooks every parameter, and quantised ones cannot be hooked.
    """

    def __init__(self):
        super().__init__()
        self.sizes = WeakIdKeyDictionary()
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if DTensor in types:
            return NotImplemented  # it comes again with what this rank has of it
        result = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                self.count(tensor.untyped_storage())
        return result

    def count(self, storage):
        """Notes the size that a storage has now."""
        size = self.sizes.get(storage)
        if size is None:
            size = self.sizes[storage] = [0]
            weakref.finalize(storage, self._freed, size)
        self.now += storage.nbytes() - size[0]
        size[0] = storage.nbytes()
        self.peak = max(self.peak, self.now)

    def _freed(self, size):
        self.now -= size[0]

    @contextmanager
    def tracking(self):
        """Tracks, and sees storages resized: fully_shard frees and fills its own so."""
        resize = torch.UntypedStorage.resize_

        def resized(storage, size):
            result = resize(storage, size)
            self.count(storage)
            return result

        torch.UntypedStorage.resize_ = resized
        try:
            with self:
                yield self
        finally:
            torch.UntypedStorage.resize_ = resize


class _Weights(Callback):
    """Has a tracker count the weights too: files are read in threads, which it does not see."""

    def __init__(self, tracker):
        self.tracker = tracker

    def on_train_start(self, trainer, pl_module):
        for weight in pl_module.parameters():
            local = weight.to_local() if isinstance(weight, DTensor) else weight
            self.tracker.count(local.untyped_storage())


def measured_peak(words):
    """Bytes that tensors take at most in the optimizer steps of `fit` with these options, on the CPU."""
    config, parser = parse("fit", [*words, "--trainer.enable_progress_bar=false"])
    setup = check_setup(config, parser)
    setup.trainer_options["limit_val_batches"] = 0
    bind_model(setup)
    trainer, _ = build_trainer(setup)
    trainer.callbacks = [each for each in trainer.callbacks if "Checkpoint" not in type(each).__name__]
    tracker = PeakOfTensors()
    trainer.callbacks.append(_Weights(tracker))
    with tracker.tracking():
        trainer.fit(setup.model, datamodule=setup.data)
    return tracker.peak
