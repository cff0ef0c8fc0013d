"""NoteStart: when and where each start of a run's training began, for those who look at the run from outside."""

from __future__ import annotations

import time

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from genre_lightning.run_state import Start
from genre_lightning.runs import RunDirectory


class NoteStart(Callback):
    """Keeps in the run's state how often its training was started, when and where it was last, and where it ends.

    Args:
        run: The directory.
        job: Id of the SLURM job; None outside of one.
    """

    def __init__(self, run: RunDirectory, job: str | None) -> None:
        super().__init__()
        self.run = run
        self.job = job

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            # seconds since the epoch: compared with the times of files
            start = Start(round(time.time(), 3), trainer.global_step, self.job)
            total = int(trainer.estimated_stepping_batches)
            self.run.set_status("training", starts=self.run.read_state().starts + 1, start=start, steps=total)
