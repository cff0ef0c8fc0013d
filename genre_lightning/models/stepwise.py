"""The training of a classifier: optimizer steps as sets of films, whatever the ranks and micro-batches."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.trainer.states import TrainerFn
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim.lr_scheduler import LambdaLR

from genre_lightning.config.adapters import LoraOptions
from genre_lightning.config.classifier import ClassifierOptions
from genre_lightning.errors import DivergedError
from genre_lightning.models.average import exchange, follow, forget
from genre_lightning.models.finiteness import FiniteSteps
from genre_lightning.models.optimizer import (
    HEAD_LEARNING_RATE_FACTOR,
    default_learning_rate,
    parameter_groups,
    parts_of_backbone,
    put_back,
    refuse_other_groups,
    schedule_factor,
    settings_of,
)
from genre_lightning.models.step_sums import StepSums
from genre_lightning.progress import say
from genre_lightning.types import Batch

if TYPE_CHECKING:
    from torch.optim import Optimizer


@dataclass(frozen=True)
class StepOutput:
    """What `model_step` makes of a batch.

    Attributes:
        logits: float32 (rows, genres).
        loss_sum: float32 (): sum of the films' losses; rows of weight 0 add nothing.
    """

    logits: Tensor
    loss_sum: Tensor


class StepwiseModule(LightningModule):
    """A module with a backbone and a head that trains by steps of a fixed number of films.

    The loss of a step is the sum over its films divided by their number, over all ranks and micro-batches. A subclass
    says what a batch's logits and loss are.
    """

    options: ClassifierOptions
    backbone: nn.Module
    head: nn.Module
    finite_steps: FiniteSteps
    sums: StepSums

    def __init__(self) -> None:
        super().__init__()
        self.row: dict[str, Any] = {}
        """Metrics of the step for the loggers; callbacks may add theirs before its gradients are clipped."""
        self.averaged = False
        """Whether the weights are the moving average; the optimizer's state then holds those of the last step."""
        self._settings: list[list[dict[str, Any]]] = []

    def model_step(self, batch: Batch) -> StepOutput:
        """Return the logits and summed loss of a batch."""
        raise NotImplementedError

    @property
    def seed(self) -> int:
        """Random seed for new weights, dropout and the order of the films: its own, or that of `seed_everything`."""
        if self.options.seed is not None:
            return self.options.seed
        return int(os.environ.get("PL_GLOBAL_SEED", 0))

    @property
    def lr(self) -> float | None:
        """The option of that name; Lightning's learning-rate finder reads and sets it here."""
        return self.options.lr

    @lr.setter
    def lr(self, value: float) -> None:
        self.options.lr = value

    @property
    def adapters(self) -> bool:
        """Whether only adapters of the backbone train."""
        return False

    @property
    def lora(self) -> LoraOptions | None:
        """The adapters; None if there are none."""
        return None

    @property
    def from_scratch(self) -> bool:
        """Whether the backbone starts from random weights."""
        return False

    # Steps

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Return the micro-batch's part of the step's loss: sum over its films / films of the whole step.

        Lightning divides by the micro-batches and the ranks' gradients are averaged, so both are multiplied in first.
        """
        self._seed_dropout(batch_idx)
        output = self.model_step(batch)
        micro_batches = self.trainer.accumulate_grad_batches
        self.sums.add(output.loss_sum, batch)
        if (batch_idx + 1) % micro_batches == 0:
            self._finish_step(batch["step_films"])
        return output.loss_sum * (micro_batches * self.trainer.world_size / batch["step_films"])

    def _seed_dropout(self, batch_idx: int) -> None:
        """Seed dropout by (seed, step, micro-batch, rank): a resumed run draws what the unbroken one would have."""
        place = (self.seed, self.trainer.global_step, batch_idx, self.trainer.global_rank)
        torch.manual_seed(int.from_bytes(hashlib.blake2b(repr(place).encode(), digest_size=7).digest()))

    def _finish_step(self, step_films: Tensor) -> None:
        """Sum the step over ranks and log it; every rank then holds the same numbers."""
        loss, padding_efficiency = self.sums.finish_step(step_films, self.sum_over_ranks)
        self.log("train/loss", loss, logger=False)
        if self.is_logged_step():
            groups = self.trainer.optimizers[0].param_groups
            # an optimizer of one's own may have groups without names
            names = (group.get("name", f"group{number}") for number, group in enumerate(groups))
            rates = {name.split("_")[0]: group["lr"] for name, group in zip(names, groups, strict=True)}
            self.row = {
                "train/loss": loss,
                "train/padding_efficiency": padding_efficiency,
                **{f"lr/{part}": rate for part, rate in rates.items()},
            }

    def sum_over_ranks(self, values: Tensor) -> Tensor:
        """Sum a tensor over the ranks; all of them get the sum."""
        if self.trainer.world_size == 1:
            return values
        # the strategy's own reduce() meets at a barrier first, for which the host waits for the device
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    def is_logged_step(self) -> bool:
        """Return whether the step at hand gets a row in the curves."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by a connector, where mypy cannot see
        return every > 0 and (self.trainer.global_step + 1) % every == 0

    def _log_row(self) -> None:
        """Send the step's row to the loggers, before a checkpoint of the step: Lightning would do it after."""
        self._send({name: float(value) for name, value in self.row.items()}, self.trainer.global_step)

    def _send(self, row: dict[str, float], step: int) -> None:
        for logger in self.trainer.loggers:
            logger.log_metrics({**row, "epoch": self.trainer.current_epoch}, step=step)

    def on_train_epoch_end(self) -> None:
        """Log the mean loss of the epoch's films, before the checkpoint of the epoch."""
        self.check_finite()
        loss = self.sums.finish_epoch()
        self.log("train/loss_epoch", loss, logger=False)
        self._send({"train/loss_epoch": float(loss)}, self.trainer.global_step - 1)

    def on_fit_start(self) -> None:
        """Note the optimizers' settings, before a checkpoint brings those that it was saved with."""
        self._settings = [settings_of(optimizer) for optimizer in self.trainer.optimizers]

    def on_train_start(self) -> None:
        """Put back what a checkpoint has changed: the optimizers' settings, and the weights that it has averaged."""
        schedulers = {id(each.scheduler.optimizer): each.scheduler for each in self.trainer.lr_scheduler_configs}
        # Lightning's learning-rate finder starts no fit, and restores nothing that counts
        for optimizer, settings in zip(self.trainer.optimizers, self._settings, strict=False):
            if isinstance(scheduler := schedulers.get(id(optimizer)), LambdaLR):
                put_back(settings, scheduler)
        self._leave_average()

    # The moving average of the weights

    def _leave_average(self) -> None:
        """Go back from a checkpoint's averaged weights to those of its last step."""
        for optimizer in self.trainer.optimizers:
            exchange(optimizer)
        self.averaged = False
        if (decay := self.options.ema_decay) is not None:
            rank_zero_only(say)(f"evaluated, kept and exported: the moving average of the weights (ema_decay {decay})")
            return
        for optimizer in self.trainer.optimizers:
            forget(optimizer)  # of a run that continues without one

    def on_validation_start(self) -> None:
        """Evaluate the averaged weights."""
        self._take_average(True)

    def on_validation_end(self) -> None:
        """Train on with those of the last step."""
        self._take_average(False)

    def on_fit_end(self) -> None:
        """Leave the averaged weights to whatever evaluates the model next."""
        self._take_average(True)

    def _take_average(self, averaged: bool) -> None:
        # an evaluation that is not a training's has weights that are averaged already
        in_training = self.trainer.state.fn == TrainerFn.FITTING
        if self.options.ema_decay is None or not in_training or averaged == self.averaged:
            return
        for optimizer in self.trainer.optimizers:
            exchange(optimizer, self.backbone, self.head)
        self.averaged = averaged

    # Optimisation

    def learning_rates(self) -> tuple[float, float]:
        """Return the peak learning rates of backbone and head."""
        size = sum(p.numel() for p in self.backbone.parameters())
        lr = self.options.lr or default_learning_rate(size, adapters=self.adapters, from_scratch=self.from_scratch)
        if self.options.head_lr is not None:
            return lr, self.options.head_lr
        return lr, min((1.0 if self.from_scratch else HEAD_LEARNING_RATE_FACTOR) * lr, 5e-3)

    def unfrozen_learning_rate(self) -> float | None:
        """Return the peak learning rate of what trains in full beside adapters; None if nothing does."""
        options: Any = self.options
        if getattr(options, "unfreeze", None) is None:
            return None
        size = sum(p.numel() for p in self.backbone.parameters())
        return options.unfreeze_lr or default_learning_rate(size, adapters=False, from_scratch=False)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return AdamW with linear warm-up and decay over the steps of the whole run."""
        lr, head_lr = self.learning_rates()
        groups = parameter_groups(
            self.backbone.named_parameters(),
            self.head.named_parameters(),
            lr=lr,
            head_lr=head_lr,
            weight_decay=self.options.weight_decay,
            part_of=parts_of_backbone(
                self.backbone,
                lr,
                ratio_b=self.lora.lr_ratio_b if self.lora else 1.0,
                layer_decay=self.options.layer_lr_decay,
                unfrozen_lr=self.unfrozen_learning_rate(),
            ),
        )
        optimizer = self.new_optimizer(groups)
        refuse_other_groups(optimizer)
        if self.options.ema_decay is not None:
            follow(optimizer, self.options.ema_decay, lambda: self.trainer.global_step)
        total = self._planned_steps()
        warmup = round(self.options.warmup_fraction * total)
        factor = schedule_factor(self.options.schedule, warmup_steps=warmup, total_steps=total)
        scheduler = LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _planned_steps(self) -> int:
        # asking Lightning would load the training batches now, before a restored run knows where it stands
        planned = getattr(self.trainer.datamodule, "total_steps", 0)  # type: ignore[attr-defined]  # set by a connector
        return planned or int(self.trainer.estimated_stepping_batches)

    def new_optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        """Return the optimizer of the parameter groups."""
        return torch.optim.AdamW(groups, betas=(0.9, self.options.beta2), fused=True)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the global norm, log the norm before it, and stop when it stays not finite."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        limit = gradient_clip_val if gradient_clip_val else float("inf")
        of_shards = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        norm = of_shards.full_tensor() if isinstance(of_shards, DTensor) else of_shards
        # below the limit gradients would be multiplied by one; a host that computes has the norm at hand to see it
        if norm.device.type != "cpu" or not norm < 0.999 * limit:
            nn.utils.clip_grads_with_norm_(parameters, limit, of_shards)
        self.finite_steps.update(self.sums.loss, norm, self.trainer.global_step)
        # a host that computes has the numbers at hand; for a device it would have to wait
        if self.is_logged_step() or self.finite_steps.counts.device.type == "cpu":
            self.check_finite()
        if self.is_logged_step():
            self.row["train/gradient_norm"] = norm
            if self._scaler is not None:
                self.row["train/loss_scale"] = self._scaler.get_scale()
                self.row["train/skipped_steps"] = self.finite_steps.skipped
            self._log_row()

    @property
    def _scaler(self) -> torch.amp.GradScaler | None:
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def check_finite(self) -> None:
        """Stop a training whose loss or gradient stays not finite, the same on all ranks.

        Raises:
            DivergedError: With the films of its first bad step, and the checkpoint to resume from.
        """
        first = self.finite_steps.first_that_stays(scaled=self._scaler is not None)
        if first is None:
            return
        films = ""
        if name_films := getattr(self.trainer.datamodule, "film_ids_of_step", None):  # type: ignore[attr-defined]
            ids = name_films(first)
            shown = ", ".join(map(str, ids[:8])) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
            films = f" (films with ids {shown})"
        last = _last_checkpoint(self.trainer.checkpoint_callback)
        place = f"{last} holds the weights of an earlier step" if last else "there is no checkpoint before it"
        raise DivergedError(
            f"the loss or its gradient is not finite from optimizer step {first + 1:,} on{films}: "
            f"{place}; lower model.lr, or use a precision with a wider range, such as trainer.precision=bf16-mixed"
        )


def _last_checkpoint(callback: Any) -> Path | None:
    """Return the newest checkpoint that a callback knows of: a run's own, or Lightning's."""
    paths = (getattr(callback, name, None) for name in ("last", "last_model_path", "best_model_path"))
    return next((Path(path) for path in paths if path and Path(path).exists()), None)
