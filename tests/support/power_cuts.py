"""Trainings that end in the middle, as by a power cut, and the weights that they leave."""

from contextlib import contextmanager

import pytest
import torch

from genre_lightning.models.base import GenreClassifier


class PowerCutError(Exception):
    """Stands for whatever ends a process."""


@contextmanager
def power_cut(step, model=GenreClassifier):
    """A block whose training must be cut off once it has done so many optimizer steps."""
    original = model.training_step

    def cut(self, batch, batch_idx):
        if self.trainer.global_step == step:
            raise PowerCutError
        return original(self, batch, batch_idx)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model, "training_step", cut)
        with pytest.raises(PowerCutError):
            yield


def weights(run_dir, name="last"):
    """The state dict of a checkpoint of a run."""
    return torch.load(run_dir / "checkpoints" / f"{name}.ckpt", weights_only=True)["state_dict"]
