"""RunCheckpoint: keeps a run's last and best checkpoint under fixed names."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from typing_extensions import override


def better_is_higher(monitor: str) -> bool:
    """Whether a metric of that name is to be maximised: all but losses, errors and distances are."""
    name = monitor.rsplit("/", 1)[-1]
    return not any(word in name for word in ("loss", "ece", "hamming", "error"))


class RunCheckpoint(Checkpoint):
    """Saves `last.ckpt` at the end of every epoch and at the chosen rhythm between, and `best.ckpt`.

    Args:
        directory: where the two lie.
        monitor: metric of a validation that says which is best.
        every_minutes: save last.ckpt at the next step's end when so much time has passed; None for no such rhythm.
        every_steps: save last.ckpt after so many optimizer steps; None for no such rhythm.
    """

    def __init__(
        self,
        directory: Path,
        monitor: str,
        every_minutes: float | None = None,
        every_steps: int | None = None,
    ) -> None:
        super().__init__()
        self.directory = directory
        self.monitor = monitor
        self.every_minutes = every_minutes
        self.every_steps = every_steps
        self.best_score: float | None = None
        self.best_step: int | None = None
        self._last_saved = time.monotonic()

    @property
    def last(self) -> Path:
        """The checkpoint that a resumed run starts from."""
        return self.directory / "last.ckpt"

    @property
    def best(self) -> Path:
        """The checkpoint that is evaluated and used."""
        return self.directory / "best.ckpt"

    @override
    def state_dict(self) -> dict[str, Any]:
        return {"best_score": self.best_score, "best_step": self.best_step, "monitor": self.monitor}

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if state_dict["monitor"] == self.monitor:
            self.best_score, self.best_step = state_dict["best_score"], state_dict["best_step"]

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._last_saved = time.monotonic()

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        at_step_end = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        # the end of the epoch saves by itself, after validation
        if not at_step_end or trainer.is_last_batch or not self._is_due(trainer):
            return
        self._save_last(trainer)

    def _is_due(self, trainer: Trainer) -> bool:
        if self.every_steps and trainer.global_step % self.every_steps == 0:
            return True
        if not self.every_minutes:
            return False
        # clocks differ between ranks, and a save that only some of them start would wait for ever
        due = time.monotonic() - self._last_saved >= 60 * self.every_minutes
        return bool(trainer.strategy.broadcast(due))

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        score = trainer.callback_metrics.get(self.monitor)
        improved = False
        if score is not None and (score := score.item()) == score:
            sign = 1 if better_is_higher(self.monitor) else -1
            improved = self.best_score is None or sign * score > sign * self.best_score
        if improved:
            self.best_score, self.best_step = score, trainer.global_step
            trainer.save_checkpoint(self.best)
        self._save_last(trainer)

    def _save_last(self, trainer: Trainer) -> None:
        trainer.save_checkpoint(self.last)
        self._last_saved = time.monotonic()
