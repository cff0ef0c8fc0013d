"""RunCheckpoint: keeps a run's last and best checkpoint under fixed names."""

from __future__ import annotations

import math
import tempfile
import time
import warnings
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Literal, Protocol

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint
from typing_extensions import override

from genre_lightning.distributed.checkpoint.files import check_space
from genre_lightning.distributed.checkpoint.io import previous_names
from genre_lightning.distributed.checkpoint.manifests import manifest_of
from genre_lightning.distributed.ranks import from_all_ranks
from genre_lightning.errors import CheckpointError, ConfigError, SaveError, agreed
from genre_lightning.metrics import better_is_higher

_LISTED_SECONDS = 60.0


class Agreement(Protocol):
    """What RunCheckpoint asks of `distributed.preemption.StopAgreement`."""

    def setup(self, trainer: Trainer) -> None: ...  # noqa: D102

    def reached(self, trainer: Trainer) -> bool: ...  # noqa: D102

    def reached_or(self, trainer: Trainer, *, due: bool = False) -> tuple[bool, bool]: ...  # noqa: D102

    def stopped(self, where: str) -> Exception: ...  # noqa: D102


def check_same_start(checkpoint: Any) -> None:
    """Refuse a start for which ranks have found different checkpoints; a collective.

    Each rank looks for itself. A node whose disk or cache shows an older file would train along on other films, or with
    other moments of the optimizer, and nothing would show it.

    Args:
        checkpoint: Path of this rank's; None starts from the beginning.

    Raises:
        CheckpointError: On all ranks, with what two of them have found.
    """
    mine = ("", 0)
    if checkpoint is not None:
        manifest = manifest_of(Path(checkpoint))
        mine = (manifest.sha256, manifest.global_step or 0)
    found = from_all_ranks(mine)
    other = next((rank for rank, theirs in enumerate(found) if theirs != found[0]), None)
    if other is not None:
        raise agreed(
            CheckpointError(
                f"rank 0 starts after optimizer step {found[0][1]:,} and rank {other} after step {found[other][1]:,}, "
                "from different checkpoints: put --run_dir on a file system that all nodes share, or start again when "
                "they do"
            )
        )


def check_shared(directory: Path) -> None:
    """Refuse a run directory that nodes do not share; a collective.

    With one of its own, a node would train along and fail at the end, as the best checkpoint is missing.

    Args:
        directory: Of the checkpoints.

    Raises:
        CheckpointError: On all ranks, with one that does not see what rank 0 writes.
    """
    ranks: Any = torch.distributed
    marker: list[Any] = [None]
    with ExitStack() as stack:
        if ranks.get_rank() == 0:
            directory.mkdir(parents=True, exist_ok=True)
            marker[0] = Path(
                stack.enter_context(tempfile.NamedTemporaryFile(dir=directory, prefix=".start-")).name
            ).name
        ranks.broadcast_object_list(marker)
        sees = from_all_ranks(_appears(directory, str(marker[0])))
    if not all(sees):
        raise agreed(
            CheckpointError(
                f"rank {sees.index(False)} does not see what rank 0 writes to {directory}: put --run_dir on a file "
                "system that all nodes share"
            )
        )


def _appears(directory: Path, name: str) -> bool:
    """Return whether a file appears within a minute, as network file systems may keep an old list of a folder."""
    deadline = time.monotonic() + _LISTED_SECONDS
    while True:
        with suppress(OSError):
            if any(path.name == name for path in directory.iterdir()):
                return True
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.5)


class RunCheckpoint(Checkpoint):
    """Saves `last.ckpt` at the end of every epoch and at the chosen rhythm between, and the best validated state.

    Args:
        directory: Directory of the checkpoints.
        monitor: Metric of a validation that says which is best.
        every_minutes: Save last.ckpt at the end of a step once n minutes have passed; None for no such rhythm.
        every_steps: Save last.ckpt after every n optimizer steps; None for no such rhythm.
        agreement: Whether a signal asks all ranks to save and stop; None never stops.
        keep_last: How many last checkpoints are kept: last.ckpt, previous.ckpt, previous-2.ckpt, …
        config_sha256: SHA-256 of the settings that the training depends on; stands in every manifest.
        on_failure: What a save that fails does: "stop" the run, or "warn" and continue.
        reading_sha256: SHA-256 of the settings by which films become predictions: metrics under others do not compare.
    """

    def __init__(
        self,
        directory: Path,
        monitor: str,
        every_minutes: float | None = None,
        every_steps: int | None = None,
        agreement: Agreement | None = None,
        keep_last: int = 2,
        config_sha256: str | None = None,
        on_failure: Literal["stop", "warn"] = "stop",
        reading_sha256: str | None = None,
    ) -> None:
        super().__init__()
        self.directory = directory
        self.monitor = monitor
        self.every_minutes = every_minutes
        self.every_steps = every_steps
        self.agreement = agreement
        self.keep_last = keep_last
        self.config_sha256 = config_sha256
        self.on_failure = on_failure
        self.reading_sha256 = reading_sha256
        self.seconds = 0.0
        """Time that this process has spent on saving, in seconds."""
        self.best_score: float | None = None
        self.best_step: int | None = None
        self._candidate: tuple[float, int] | None = None
        """Score and step of a validation that was the best so far and is not saved yet."""
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
        return {
            "best_score": self.best_score,
            "best_step": self.best_step,
            "monitor": self.monitor,
            "reading_sha256": self.reading_sha256,
        }

    @override
    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        # under other settings of data or model another text is read, or by another network: the next validation counts
        reads_alike = state_dict.get("reading_sha256") in (None, self.reading_sha256)
        if state_dict["monitor"] == self.monitor and reads_alike:
            self.best_score, self.best_step = state_dict["best_score"], state_dict["best_step"]

    @override
    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.agreement:
            self.agreement.setup(trainer)
        if stage == "fit" and trainer.world_size > 1:
            if trainer.num_nodes > 1:
                check_shared(self.directory)
            check_same_start(trainer.ckpt_path)

    @override
    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._check_room(pl_module)
        self._last_saved = time.monotonic()

    def _check_room(self, module: LightningModule) -> None:
        """Refuse a disk without room for all checkpoints that are kept at the same time; a collective before any step.

        Raises:
            ConfigError: On all ranks, if one finds no room; the message names both sizes.
        """
        # a float32 weight, the two moments of AdamW, and the moving average
        options: Any = getattr(module, "options", None)
        numbers = 3 if getattr(options, "ema_decay", None) is None else 4
        one = 4 * numbers * sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
        places = [self.best, self.last, *previous_names(self.directory, self.keep_last)]
        missing = sum(not place.exists() for place in places)
        lack = ""
        try:
            # one more, for the one that is being written while the others are whole
            self.directory.mkdir(parents=True, exist_ok=True)
            check_space(self.directory, (missing + 1) * one)
        except OSError as error:
            lack = str(error)
        if lack := next(filter(None, from_all_ranks(lack)), ""):
            raise agreed(
                ConfigError(
                    f"no room for the checkpoints in {self.directory} ({lack}): free space, set "
                    "checkpoint.keep_last=1, or name another --run_dir"
                )
            )

    @override
    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        # saved when the module has its training weights again: with a moving average, these are not what was evaluated
        score = trainer.callback_metrics.get(self.monitor)
        if not trainer.sanity_checking and score is not None and self._improves(float(score)):
            self._candidate = float(score), trainer.global_step

    @override
    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        self._save_best(trainer)

    def _save_best(self, trainer: Trainer) -> None:
        """Save best.ckpt if the last validation was the best so far."""
        if self._candidate is None:
            return
        before, candidate = (self.best_score, self.best_step), self._candidate
        self.best_score, self.best_step = candidate  # which best.ckpt itself holds
        self._candidate = None
        if self._save(trainer, self.best):
            self.best_score, self.best_step = before

    @override
    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        at_step_end = (batch_idx + 1) % trainer.accumulate_grad_batches == 0
        # validation belongs to the epoch: its end saves by itself
        if not at_step_end or trainer.is_last_batch:
            return
        # clocks differ between ranks, and a save that only some of them start would wait for ever; they count alike
        due = self._is_due_by_clock()
        if self.agreement is not None:
            stopping, due = self.agreement.reached_or(trainer, due=due)
        else:
            stopping, due = False, bool(trainer.strategy.broadcast(due))
        if stopping or due or (self.every_steps and trainer.global_step % self.every_steps == 0):
            self._save_last(trainer)
        if stopping:
            self._stop(trainer)

    def _is_due_by_clock(self) -> bool:
        return bool(self.every_minutes) and time.monotonic() - self._last_saved >= 60 * (self.every_minutes or 0)

    @override
    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._save_best(trainer)
        self._save_last(trainer)
        if self.agreement is not None and self.agreement.reached(trainer):
            self._stop(trainer)

    def _improves(self, score: float) -> bool:
        if math.isnan(score):
            return False
        sign = 1 if better_is_higher(self.monitor) else -1
        return self.best_score is None or sign * score > sign * self.best_score

    def _save_last(self, trainer: Trainer) -> None:
        self._save(trainer, self.last)
        self._last_saved = time.monotonic()

    def _save(self, trainer: Trainer, path: Path) -> str:
        """Save a checkpoint, and return what went wrong if the run continues nevertheless; a collective."""
        started = time.monotonic()
        for logger in trainer.loggers:
            logger.save()  # what the checkpoint says is done must stand in the curves
        failure = self._write(trainer, path)
        if failure and self.on_failure == "stop":
            raise agreed(SaveError(failure))
        if failure and trainer.is_global_zero:
            warnings.warn(f"{failure} (continuing: checkpoint.on_failure is warn)", stacklevel=2)
        self.seconds += time.monotonic() - started
        for logger in trainer.loggers:
            logger.log_metrics({"checkpoint/seconds": self.seconds}, step=trainer.global_step - 1)
        return failure

    def _write(self, trainer: Trainer, path: Path) -> str:
        """Write a checkpoint, and return what went wrong, the same on all ranks; a collective."""
        module: Any = trainer.lightning_module
        module.check_finite()  # what is spoilt must not take the place of what is good
        content = trainer._checkpoint_connector.dump_checkpoint(weights_only=False)
        content["config_sha256"] = self.config_sha256
        failure = ""
        try:
            trainer.strategy.save_checkpoint(content, path)
        except SaveError as error:
            failure = str(error)
        # the others wait here for the rank that writes
        return str(trainer.strategy.broadcast(failure))

    def _stop(self, trainer: Trainer) -> None:
        assert self.agreement is not None
        raise self.agreement.stopped(f"after optimizer step {trainer.global_step:,}, its state saved")
