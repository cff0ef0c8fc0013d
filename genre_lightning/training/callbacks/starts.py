"""NoteStart: when and where each start of a run's training began, for those who look at the run from outside."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override

from genre_lightning.runs import RunDirectory


class NoteStart(Callback):
    """Keeps in the run's state how often its training was started, when and where it was last, and where it ends.

    Args:
        run: the directory.
        facts: of the start, such as the job's id.
    """

    def __init__(self, run: RunDirectory, facts: Mapping[str, Any]) -> None:
        super().__init__()
        self.run = run
        self.facts = facts

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.is_global_zero:
            # seconds since the epoch: compared with the times of files
            start = {"time": round(time.time(), 3), "step": trainer.global_step, **self.facts}
            total = int(trainer.estimated_stepping_batches)
            self.run.set_status("training", starts=self.run.facts().get("starts", 0) + 1, start=start, steps=total)
