"""The largest memory of tensors while a run really trains, counted storage by storage."""

import weakref

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten
from torch.utils.weak import WeakIdKeyDictionary

from genre_lightning.commands.build import bind_model, build_trainer, check_setup
from genre_lightning.commands.parser import parse


class PeakOfTensors(TorchDispatchMode):
    """Adds up the storages of all tensors that operations give, each from its first sight until it is freed.

    torch's own MemTracker does this too, but hooks every parameter, and quantised ones cannot be hooked.
    """

    def __init__(self):
        super().__init__()
        self.seen = WeakIdKeyDictionary()
        self.now = self.peak = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in tree_flatten(result)[0]:
            if isinstance(tensor, torch.Tensor) and tensor.device.type == "cpu":
                self._count(tensor.untyped_storage())
        self.peak = max(self.peak, self.now)
        return result

    def _count(self, storage):
        if storage in self.seen:
            return
        self.seen[storage] = True
        size = storage.nbytes()
        self.now += size
        weakref.finalize(storage, self._freed, size)

    def _freed(self, size):
        self.now -= size


def measured_peak(words, steps=3):
    """Bytes that tensors take at most in the first optimizer steps of `fit` with these options, on the CPU."""
    config, parser = parse("fit", [*words, "--trainer.limit_val_batches=0", "--trainer.enable_progress_bar=false"])
    setup = check_setup(config, parser)
    bind_model(setup)
    setup.trainer_options["max_steps"] = steps
    trainer, _ = build_trainer(setup)
    trainer.callbacks = [each for each in trainer.callbacks if "Checkpoint" not in type(each).__name__]
    with PeakOfTensors() as tracker:
        trainer.fit(setup.model, datamodule=setup.data)
    return tracker.peak
