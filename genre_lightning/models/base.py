"""GenreClassifier: what every trained model shares: the loss of a step, optimizer, logging and checkpoint content."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from genre_lightning.errors import CheckpointError, DivergedError
from genre_lightning.losses import loss_function
from genre_lightning.models.dropout import replace_dropout
from genre_lightning.models.embedding import keep_embedding_gradients
from genre_lightning.models.finiteness import FiniteSteps
from genre_lightning.models.flops import TrainingCost, training_cost
from genre_lightning.models.host_memory import keep_freed_memory
from genre_lightning.models.optimizer import (
    HEAD_LEARNING_RATE_FACTOR,
    default_learning_rate,
    parameter_groups,
    schedule_factor,
)
from genre_lightning.models.options import ClassifierOptions
from genre_lightning.models.packing import avoid_plans_per_shape
from genre_lightning.models.step_sums import StepSums
from genre_lightning.models.validation import GenreMetrics

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch.optim import Optimizer
    from transformers import PreTrainedTokenizerBase

    from genre_lightning.models.base_weights import WeightReport

CHECKPOINT_KEY = "genre_lightning"

Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Labelling:
    """What a model must know of the data before it can be built.

    Attributes:
        genres: names, in the order of the columns of the labels.
        pos_weight: float32 (genres,): weight of each genre's positives in the loss.
        vocab_size: tokens that the tokenizer knows.
        pad_token_id: of the tokenizer.
        max_tokens: of a text.
        seed: of new weights and of dropout.
        tokenizer: for models that add words of their own to the texts.
    """

    genres: tuple[str, ...]
    pos_weight: NDArray[np.float32]
    vocab_size: int
    pad_token_id: int
    max_tokens: int
    seed: int = 0
    tokenizer: PreTrainedTokenizerBase | None = None


@dataclass(frozen=True)
class StepOutput:
    """What `model_step` makes of a batch.

    Attributes:
        logits: float32 (rows, genres).
        loss_sum: float32 (): sum of the films' losses; rows of weight 0 add nothing.
    """

    logits: Tensor
    loss_sum: Tensor


class GenreClassifier(ClassifierOptions, LightningModule):
    """A backbone with a head of one logit for each genre.

    A subclass builds `self.backbone` and `self.head` in `build()` and maps a batch to logits in `forward()`.

    Args:
        kwargs: see `ClassifierOptions`.
    """

    backbone: nn.Module
    head: nn.Module
    pos_weight: Tensor
    validation_metrics: GenreMetrics
    finite_steps: FiniteSteps
    sums: StepSums
    _validation_sums: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.loss_function = loss_function(self.loss_name, **self.loss_options)
        self.labelling: Labelling | None = None
        self.decision: dict[str, Any] | None = None
        self.accelerator = "cpu"
        """What the model will run on, and below what its products will be computed in; the commands set both."""
        self.precision = "32-true"
        self.row: dict[str, Any] = {}
        """Figures of the step for the loggers; callbacks may add theirs before its gradients are clipped."""
        self.sharded = False
        """Whether a strategy shards the model, and calls `materialise` for each part before it does; set likewise."""
        self.shape_only = False
        """Whether the model is looked at and never run: it is built without its weights, which need not be there."""
        self.weight_report: WeightReport | None = None
        """How the backbone's stored weights fit it; known after `check` if they are on this machine."""
        self._built = False

    # What a subclass provides

    def build(self, labelling: Labelling) -> None:
        """Makes `self.backbone` and `self.head`, with weights or with placeholders that `materialise` fills."""
        raise TypeError(f"{type(self).__name__} does not say how it is built")

    def materialise(self, part: nn.Module) -> None:
        """Puts in those weights of a part of the backbone that `build()` has left out.

        A model too large to stand whole in the memory of one rank is filled and sharded part by part.
        """

    def check(self, max_tokens: int | None = None) -> None:
        """Everything about the options and the backbone that can be told before weights are loaded.

        Args:
            max_tokens: of a text; the backbone must have as many positions.

        Raises:
            ConfigError: with the option and the cure.
        """
        self.check_options()

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Check that the backbone can read what a tokenizer makes of texts, before any data is read.

        Raises:
            ConfigError: With the option and the fix.
        """

    @property
    def from_scratch(self) -> bool:
        """Whether the backbone starts from random weights."""
        return False

    @property
    def trains(self) -> bool:
        """Whether there is anything to train; a model without is evaluated as it is."""
        return True

    @property
    def layout(self) -> Literal["padded", "packed"]:
        """How batches are laid out for the model."""
        return "padded"

    @property
    def causal(self) -> bool:
        """Whether a token sees only those before it."""
        return False

    @property
    def tokenizer_source(self) -> str | None:
        """Model of the hub or directory with the backbone's tokenizer; None where one is trained on the texts."""
        return None

    @property
    def adapters(self) -> bool:
        """Whether only adapters of the backbone train."""
        return False

    # Building

    def bind(self, labelling: Labelling) -> None:
        """Tells the model the data's facts; `configure_model` can build it then."""
        self.labelling = labelling
        weight = torch.as_tensor(labelling.pos_weight, dtype=torch.float32)
        self.register_buffer("pos_weight", weight, persistent=False)

    def configure_model(self) -> None:
        """Builds the model once; Lightning calls it inside the strategy's context."""
        if self._built:
            return
        if self.labelling is None:
            raise RuntimeError("bind() comes before the model is built")
        # new weights come from the CPU's generator: some strategies make the GPU the default device here, others do
        # not, and one seed gives one model everywhere
        with torch.device("cpu"):
            torch.manual_seed(self.labelling.seed)
            avoid_plans_per_shape()
            self.build(self.labelling)
            if not self.sharded:
                self.materialise(self.backbone)
                keep_embedding_gradients(self.backbone)
            replace_dropout(self)
            self.backbone.train()  # pretrained models come in evaluation mode, and Lightning keeps the mode it finds
            self.validation_metrics = GenreMetrics(len(self.labelling.genres))
            self.finite_steps = FiniteSteps()
            self.sums = StepSums()
            self.register_buffer("_validation_sums", torch.zeros(2, dtype=torch.float64), persistent=False)
        self._built = True

    # Steps

    def on_fit_start(self) -> None:
        """Lets the buffers of a step serve the next one."""
        if self.device.type == "cpu":
            keep_freed_memory()

    def forward(self, batch: Batch) -> Tensor:
        """Logits, float32 (rows, genres), of a batch."""
        raise TypeError(f"{type(self).__name__} does not map a batch to logits")

    def model_step(self, batch: Batch) -> StepOutput:
        """Logits and summed loss of a batch: the one computation of training, validation and test."""
        logits = self(batch).float()
        losses = self.loss_function(logits, batch["labels"], self.pos_weight)
        return StepOutput(logits, (losses * batch["weights"]).sum())

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """The micro-batch's share of the step's loss: sum over its films / films of the whole step.

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
        """Seeds dropout by (seed, step, micro-batch, rank): a resumed run draws what the unbroken one would have."""
        assert self.labelling is not None
        place = (self.labelling.seed, self.trainer.global_step, batch_idx, self.trainer.global_rank)
        torch.manual_seed(int.from_bytes(hashlib.blake2b(repr(place).encode(), digest_size=7).digest()))

    def _finish_step(self, step_films: Tensor) -> None:
        """Sums the step over ranks and logs it; every rank then holds the same numbers."""
        loss, padding_efficiency = self.sums.finish_step(step_films, self._sum_over_ranks)
        if self.is_logged_step():
            self.log("train/loss", loss, logger=False)
            rates = {group["name"].split("_")[0]: group["lr"] for group in self.trainer.optimizers[0].param_groups}
            self.row = {
                "train/loss": loss,
                "train/padding_efficiency": padding_efficiency,
                **{f"lr/{part}": rate for part, rate in rates.items()},
            }

    def _sum_over_ranks(self, values: Tensor) -> Tensor:
        if self.trainer.world_size == 1:
            return values
        # the strategy's own reduce() meets at a barrier first, for which the host waits for the device
        total = values.clone()
        torch.distributed.all_reduce(total)
        return total

    def is_logged_step(self) -> bool:
        """Whether the step at hand gets a row in the curves."""
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]  # set by a connector, where mypy cannot see
        return (self.trainer.global_step + 1) % every == 0

    def _log_row(self) -> None:
        """Sends the step's row to the loggers, before a checkpoint of the step: Lightning would do it after."""
        self._send({name: float(value) for name, value in self.row.items()}, self.trainer.global_step)

    def _send(self, row: dict[str, float], step: int) -> None:
        for logger in self.trainer.loggers:
            logger.log_metrics({**row, "epoch": self.trainer.current_epoch}, step=step)

    def on_train_epoch_end(self) -> None:
        """Logs the mean loss of the epoch's films, before the checkpoint of the epoch."""
        self.check_finite()
        loss = self.sums.finish_epoch()
        self.log("train/loss_epoch", loss, logger=False)
        self._send({"train/loss_epoch": float(loss)}, self.trainer.global_step - 1)

    def training_cost(self) -> TrainingCost | None:
        """What training costs in FLOPs; None where the backbone's shape is not known."""
        config = getattr(self, "backbone_config", None)
        return training_cost(self.backbone, config, causal=self.causal) if config else None

    def on_validation_epoch_start(self) -> None:
        """Forgets the last validation."""
        self._validation_sums.zero_()
        self.validation_metrics.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds a batch to the figures of the split."""
        output = self.model_step(batch)
        self._validation_sums += torch.stack([output.loss_sum, batch["weights"].sum()])
        self.validation_metrics.update(output.logits, batch["labels"], batch["weights"])

    def on_validation_epoch_end(self) -> None:
        """Logs the figures of the split, each film counted once whatever the number of ranks."""
        sums = self._sum_over_ranks(self._validation_sums)
        figures = {"loss": sums[0] / sums[1], **self.validation_metrics.compute()}
        for name, value in figures.items():
            self.log(f"val/{name}", value.float(), rank_zero_only=False)
        assert self.labelling is not None
        for name, values in self.validation_metrics.per_genre().items():
            for genre, value in zip(self.labelling.genres, values, strict=True):
                if not value.isnan():  # a genre without films
                    self.log(f"val_{name}/{genre}", value.float())
        self.validation_metrics.reset()

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Logits of the batch's films: index int64 (films,) and logits float32 (films, genres), on the CPU."""
        real = batch["weights"] > 0
        return {"index": batch["index"][real].cpu(), "logits": self(batch).float()[real].cpu()}

    # Optimisation

    def learning_rates(self) -> tuple[float, float]:
        """Peak learning rates of backbone and head."""
        size = sum(p.numel() for p in self.backbone.parameters())
        lr = self.lr or default_learning_rate(size, adapters=self.adapters, from_scratch=self.from_scratch)
        factor = 1.0 if self.from_scratch else HEAD_LEARNING_RATE_FACTOR
        return lr, self.head_lr or (min(factor * lr, 5e-3) if self.head_lr is None else self.head_lr)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW with linear warm-up and decay over the steps of the whole run."""
        lr, head_lr = self.learning_rates()
        groups = parameter_groups(
            self.backbone.named_parameters(),
            self.head.named_parameters(),
            lr=lr,
            head_lr=head_lr,
            weight_decay=self.weight_decay,
        )
        optimizer = self.new_optimizer(groups)
        # asking Lightning would load the training batches now, before a restored run knows where it stands
        total = self.trainer.datamodule.total_steps  # type: ignore[attr-defined]
        factor = schedule_factor(self.schedule, warmup_steps=round(self.warmup_fraction * total), total_steps=total)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def new_optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        """The optimizer of the parameter groups."""
        return torch.optim.AdamW(groups, betas=(0.9, self.beta2), fused=True)

    def configure_gradient_clipping(
        self,
        optimizer: Optimizer,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips by the global norm, logs the norm before it, and stops where it stays no number."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        limit = gradient_clip_val if gradient_clip_val else float("inf")
        norm = nn.utils.clip_grad_norm_(parameters, limit)
        norm = norm.full_tensor() if isinstance(norm, DTensor) else norm
        self.finite_steps.update(self.sums.loss, norm, self.trainer.global_step)
        # a host that computes has the numbers at hand; for a device it would have to wait
        if self.is_logged_step() or norm.device.type == "cpu":
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
        """Stops a training whose loss or gradient stays no number, the same on all ranks.

        Raises:
            DivergedError: with the films of its first bad step, and where to go on from.
        """
        first = self.finite_steps.first_that_stays(scaled=self._scaler is not None)
        if first is None:
            return
        trainer: Any = self.trainer
        ids = trainer.datamodule.film_ids_of_step(first)
        shown = ", ".join(map(str, ids[:8])) + (f" and {len(ids) - 8} more" if len(ids) > 8 else "")
        last = trainer.checkpoint_callback.last
        place = f"{last} holds the weights of an earlier step" if last.exists() else "there is no checkpoint before it"
        raise DivergedError(
            f"the loss or its gradient is not finite from optimizer step {first + 1:,} on (films with ids {shown}): "
            f"{place}; lower model.lr, or use a precision with a wider range, such as trainer.precision=bf16-mixed"
        )

    # Checkpoints

    @property
    def strict_loading(self) -> bool:
        """False: a checkpoint holds what was trained, and `on_load_checkpoint` checks that nothing of it is missing."""
        return False

    @strict_loading.setter
    def strict_loading(self, value: bool) -> None:
        """Lightning's own switch; it has no effect here."""

    def trained_names(self) -> set[str]:
        """Names of the parameters and persistent buffers that a checkpoint must hold."""
        frozen = {name for name, p in self.named_parameters() if not p.requires_grad}
        kept = set(self.state_dict()) - (frozen if self.adapters else set())
        return {name for name in kept if not name.startswith("validation_metrics.")}

    def checkpoint_facts(self) -> dict[str, Any]:
        """What besides weights is needed to use them: genres, size of the input, and what a subclass adds."""
        assert self.labelling is not None
        return {
            "genres": list(self.labelling.genres),
            "pos_weight": [float(w) for w in self.labelling.pos_weight],
            "vocab_size": self.labelling.vocab_size,
            "pad_token_id": self.labelling.pad_token_id,
            "max_tokens": self.labelling.max_tokens,
            "decision": self.decision,
            "epoch_sums": self.sums.epoch.tolist(),
            "skipped_steps": self.finite_steps.skipped,
        }

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keeps the trained part of the weights, and the facts."""
        kept = self.trained_names()
        checkpoint["state_dict"] = {n: v for n, v in checkpoint["state_dict"].items() if n in kept}
        checkpoint[CHECKPOINT_KEY] = self.checkpoint_facts()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Refuses a checkpoint of other genres or another shape of model.

        Raises:
            CheckpointError: with what differs.
        """
        assert self.labelling is not None
        facts = checkpoint.get(CHECKPOINT_KEY)
        if facts is None:
            raise CheckpointError("the checkpoint was not written by genre-lightning: give a run directory of its own")
        check_same_genres(facts["genres"], self.labelling.genres)
        names, wanted = set(checkpoint["state_dict"]), self.trained_names()
        shapes = {name: tensor.shape for name, tensor in (*self.named_parameters(), *self.named_buffers())}
        other_shape = {n for n, t in checkpoint["state_dict"].items() if shapes.get(n, t.shape) != t.shape}
        if differ := sorted(names ^ wanted | other_shape):
            raise CheckpointError(
                f"the checkpoint is of another model: {len(differ)} tensors differ, the first is {differ[0]}: "
                "use the configuration that it was trained with"
            )
        self.decision = facts["decision"]
        if self._built:
            self.sums.epoch.copy_(torch.tensor(facts["epoch_sums"], dtype=torch.float64))
            self.finite_steps.skipped = facts.get("skipped_steps", 0)  # older checkpoints do not count them


def check_same_genres(theirs: Sequence[str], ours: Iterable[str]) -> None:
    """Refuses a checkpoint of another vocabulary.

    Raises:
        CheckpointError: naming the genres that only one side has.
    """
    ours = list(ours)
    if list(theirs) != ours:
        differ = ", ".join(sorted(set(theirs) ^ set(ours))) or "their order"
        raise CheckpointError(
            f"the checkpoint knows other genres than the data (differing: {differ}): use its own data"
        )
