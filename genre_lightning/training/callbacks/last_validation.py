"""LastValidation: a training ends with a validation, wherever in an epoch it ends."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from typing_extensions import override


class LastValidation(Callback):
    """Validate once more when training ends, even if its interval does not ask for it.

    The steps since the last validation would be trained in vain: the best checkpoint is chosen among validated ones.
    It comes after all callbacks that may end the training.
    """

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        last_epoch = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= int(trainer.max_epochs or 0)
        steps_end = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
        if (last_epoch and trainer.is_last_batch) or steps_end or trainer.should_stop:
            # Lightning asks for these two when it decides on a validation, after this hook
            trainer.check_val_every_n_epoch = 1
            trainer.should_stop = True
