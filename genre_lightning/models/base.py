"""GenreClassifier: what every model computes: the loss of a batch, and the metrics of a split."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from genre_lightning.config.adapters import LoraOptions
from genre_lightning.config.classifier import ClassifierOptions
from genre_lightning.config.trust import function
from genre_lightning.losses import distillation, loss_function
from genre_lightning.models.activations import start_from_activations
from genre_lightning.models.flops import TrainingCost, training_cost
from genre_lightning.models.layers.cpu_memory import keep_freed_memory
from genre_lightning.models.regularisers import passes_of, regularised_step
from genre_lightning.models.start import start_from
from genre_lightning.models.stepwise import StepOutput
from genre_lightning.models.stored import StoredModule
from genre_lightning.types import Batch, LossFunction


class GenreClassifier(StoredModule):
    """A backbone with a head of one logit for each genre.

    A subclass makes `self.backbone` and `self.head` in `build()` and maps a batch to logits in `forward()`. It takes
    what it must know of the data from the trainer's data module, which has a `spec`; from a checkpoint that holds it;
    or from `bind()`.

    Args:
        options: Loss, optimizer and learning rates; None takes the defaults.
    """

    def __init__(self, options: ClassifierOptions | None = None) -> None:
        super().__init__(options)
        self.starts_from: Path | None = None
        """Checkpoint of another run whose weights the training starts from; None for the backbone's own."""
        self.continued = False
        """Whether those weights are here."""
        self.distillation = 0.0
        """Weight of the loss that keeps the probabilities that a batch has from the run that is continued."""

    @property
    def lora(self) -> LoraOptions | None:
        """The low-rank adapters of the backbone; None without them."""
        return None

    @cached_property
    def loss_function(self) -> LossFunction:
        """From logits, targets and pos_weight to one value for each film.

        Raises:
            ConfigError: There is no such loss, or it is a function of a package that is not trusted.
        """
        loss = self.options.loss
        if isinstance(loss, str) and "." in loss:
            loss = function(loss, "model.loss")
        return loss_function(loss, **self.options.loss_options)

    def check_trainer(self, strategy: Any) -> None:
        """See `BuiltModule.check_trainer`; a loss that is not there is refused too."""
        super().check_trainer(strategy)
        if self.trains:
            _ = self.loss_function

    # Steps

    def on_fit_start(self) -> None:
        """Take what the training starts from, and let the buffers of a step serve the next one."""
        super().on_fit_start()
        self._start()
        if self.lora is not None and self.lora.init == "eva" and not self.continued and self.trainer.ckpt_path is None:
            start_from_activations(self, self.trainer)
        self._keep_buffers()

    def on_predict_start(self) -> None:
        """Take the weights of the run that is continued, before any training; keep the buffers of a batch."""
        self._start()
        self._keep_buffers()

    def _keep_buffers(self) -> None:
        if self.device.type == "cpu":
            keep_freed_memory()

    def _start(self) -> None:
        if self.starts_from is not None:
            start_from(self, self.starts_from)
            self.starts_from, self.continued = None, True

    def model_step(self, batch: Batch) -> StepOutput:
        """Return the logits and summed loss of a batch: the one computation of training, validation and test."""
        if self.training and passes_of(self.options) > 1:
            return regularised_step(self, batch)
        logits = self(batch).float()
        return StepOutput(logits, (self.film_losses(logits, batch) * batch["weights"]).sum())

    def film_losses(self, logits: Tensor, batch: Batch) -> Tensor:
        """Return the loss of each film of a batch, (films,)."""
        masks = {"known": batch["known"]} if "known" in batch else {}
        losses: Tensor = self.loss_function(logits, batch["labels"], self.pos_weight, **masks)
        if "teacher" in batch and self.training:
            losses = losses + self.distillation * distillation(logits, batch["teacher"])
        return losses

    def training_cost(self) -> TrainingCost | None:
        """Return what training costs in FLOPs; None if the backbone's shape is not known."""
        config = getattr(self, "backbone_config", None)
        if not config:
            return None
        attacked = bool(getattr(self.options, "fgm", 0))
        return training_cost(
            self.backbone, config, causal=self.causal, passes=passes_of(self.options), input_gradients=int(attacked)
        )

    # Evaluation

    def on_validation_epoch_start(self) -> None:
        """Forget the last evaluation."""
        self.evaluation_metrics.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add a batch to the metrics of the split."""
        output = self.model_step(batch)
        self.evaluation_metrics.update(output.logits, output.loss_sum, batch)

    def on_validation_epoch_end(self) -> None:
        """Log the metrics of the split, each film counted once whatever the number of ranks."""
        self._log_evaluation("val")

    def on_test_epoch_start(self) -> None:
        """See `on_validation_epoch_start`."""
        self.evaluation_metrics.reset()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        """See `validation_step`."""
        self.validation_step(batch, batch_idx)

    def on_test_epoch_end(self) -> None:
        """See `on_validation_epoch_end`."""
        self._log_evaluation("test")

    def _log_evaluation(self, split: str) -> None:
        for name, value in self.evaluation_metrics.compute(self.sum_over_ranks).items():
            self.log(f"{split}/{name}", value.float(), rank_zero_only=False)
        assert self.spec is not None
        for name, values in self.evaluation_metrics.per_genre().items():
            for genre, value in zip(self.spec.genres, values, strict=True):
                if not value.isnan():  # a genre without films
                    self.log(f"{split}_{name}/{genre}", value.float())
        self.evaluation_metrics.reset()

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the logits of a batch's films on the CPU: index int64 (films,) and logits float32 (films, genres)."""
        real = batch["weights"] > 0
        return {"index": batch["index"][real].cpu(), "logits": self(batch).float()[real].cpu()}
