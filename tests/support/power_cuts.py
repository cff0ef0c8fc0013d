"""Trainings that end in the middle, as by a power cut, and the weights that they leave."""

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from genre_lightning.models.base import GenreClassifier


class PowerCutError(Exception):
    """Stands for whatever ends a process."""


@contextmanager
def power_cut(step, model=GenreClassifier, run=None):
    """A block whose training, or that of the run directory of this name, must be cut off after this optimizer step."""
    original = model.training_step

    def cut(self, batch, batch_idx):
        if self.trainer.global_step == step and run in (None, Path(self.trainer.default_root_dir).name):
            raise PowerCutError
        return original(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "training_step", cut)
        with pytest.raises(PowerCutError):
            yield


def weights(run_dir, name="last"):
    """The state dict of a checkpoint of a run."""
    return torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
