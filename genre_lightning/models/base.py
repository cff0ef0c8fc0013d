"""GenreClassifier: what every model shares: how it is built, its loss, its evaluation, and what a checkpoint holds."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from genre_lightning.compat import keep_buffers_per_rank, set_hyperparameters
from genre_lightning.config.constructors import plain
from genre_lightning.config.model import ClassifierOptions
from genre_lightning.config.regularisers import check_passes
from genre_lightning.config.trust import function
from genre_lightning.distributed.precision import check_trained_precision
from genre_lightning.distributed.strategies import check_strategy, is_sharded
from genre_lightning.errors import ConfigError
from genre_lightning.losses import distillation, loss_function, positive_weights
from genre_lightning.models.average import exchange_in_checkpoint
from genre_lightning.models.checkpoint import check_same_genres, check_same_inputs, check_same_tensors
from genre_lightning.models.finiteness import FiniteSteps
from genre_lightning.models.flops import TrainingCost, training_cost
from genre_lightning.models.layers.cpu_dropout import replace_dropout
from genre_lightning.models.layers.cpu_embedding import keep_embedding_gradients
from genre_lightning.models.layers.cpu_memory import keep_freed_memory
from genre_lightning.models.layers.fusion import FusionHead, inputs_of, no_inputs
from genre_lightning.models.layers.packing import avoid_plans_per_shape
from genre_lightning.models.lora import is_start
from genre_lightning.models.metadata import CHECKPOINT_KEY, CheckpointMetadata
from genre_lightning.models.regularisers import passes_of, regularised_step
from genre_lightning.models.start import start_from
from genre_lightning.models.step_sums import StepSums
from genre_lightning.models.stepwise import StepOutput, StepwiseModule
from genre_lightning.models.validation import EvaluationMetrics
from genre_lightning.types import Batch, DataSpec, Layout, LossFunction

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from genre_lightning.models.base_weights import WeightReport

_FOR_STRATEGY = ("optimizer", "quantization", "compute_dtype", "quant_storage")
"""Options of a model that not every strategy can serve."""


class GenreClassifier(StepwiseModule):
    """A backbone with a head of one logit for each genre.

    A subclass makes `self.backbone` and `self.head` in `build()` and maps a batch to logits in `forward()`. It takes
    what it must know of the data from the trainer's data module, which has a `spec`; from a checkpoint that says it;
    or from `bind()`.

    Args:
        options: Loss, optimizer and learning rates; None takes the defaults.
    """

    options: ClassifierOptions
    pos_weight: Tensor
    evaluation_metrics: EvaluationMetrics

    def __init__(self, options: ClassifierOptions | None = None) -> None:
        super().__init__()
        self.options = options or ClassifierOptions()
        set_hyperparameters(self, plain(self.options), log=True)
        self.spec: DataSpec | None = None
        """What the model knows of the data."""
        self.decision: dict[str, Any] | None = None
        self.accelerator, self.precision = "cpu", "32-true"
        self.shape_only = False
        """Whether the model is looked at and never run: it is built without its weights, which need not be there."""
        self.weight_report: WeightReport | None = None
        """How the backbone's stored weights fit it; known after `check` if they are on this machine."""
        self.adapter_state: frozenset[str] = frozenset()
        """Names of the parameters and buffers of adapters that a checkpoint holds, whether they train or not."""
        self.parent: dict[str, Any] | None = None
        """The run that the training continues from, as its lineage names it."""
        self.starts_from: Path | None = None
        """Checkpoint of another run whose weights the training starts from; None for the backbone's own."""
        self.distillation = 0.0
        """Weight of the loss that keeps the probabilities that a batch has from the run that is continued."""
        self._built = False

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

    # What a subclass provides

    def build(self, spec: DataSpec) -> None:
        """Make `self.backbone` and `self.head`, with weights or with placeholders that `materialise` fills."""
        raise TypeError(f"{type(self).__name__} does not say how it is built: define build(self, spec)")

    def forward(self, batch: Batch) -> Tensor:
        """Logits, float32 (rows, genres), of a batch."""
        raise TypeError(f"{type(self).__name__} does not map a batch to logits: define forward(self, batch)")

    def fused(self, head: nn.Sequential, spec: DataSpec) -> nn.Module:
        """Return a head of dropout and linear layer, or one that reads the inputs of the data beside the text."""
        if not spec.inputs:
            return head
        options = self.options
        return FusionHead(
            head, spec.inputs, fusion=options.fusion, width=options.input_width, drop_input=options.drop_input
        )

    def classify(self, pooled: Tensor, batch: Batch) -> Tensor:
        """Return logits, float32 (texts, genres), of pooled texts and the inputs of a batch."""
        assert self.spec is not None
        # the head is a sliver of the work: in float32 its logits keep their digits under any precision
        with torch.autocast(pooled.device.type, enabled=False):
            return self.head(pooled, inputs_of(batch)) if self.spec.inputs else self.head(pooled)

    def materialise(self, part: nn.Module) -> None:
        """Put in those weights of a part of the backbone that `build()` has left out.

        A model too large to stand whole in the memory of one rank is filled and sharded part by part.
        """

    def check(self, max_tokens: int | None = None) -> None:
        """Check everything about the options and the backbone that can be known before weights are loaded.

        Args:
            max_tokens: Of a text; the backbone must have as many positions.

        Raises:
            ConfigError: With the option and the fix.
        """
        self.options.check_options()

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """Check that the backbone can read what a tokenizer makes of texts, before any data is read.

        Raises:
            ConfigError: With the option and the fix.
        """

    @property
    def trains(self) -> bool:
        """Whether there is anything to train; a model without is evaluated as it is."""
        return True

    @property
    def layout(self) -> Layout:
        """How batches are laid out for the model."""
        return "padded"

    @property
    def causal(self) -> bool:
        """Whether a token sees only those before it."""
        return False

    @property
    def decoder(self) -> bool:
        """Whether the backbone is a Llama-like decoder, whatever its tokens see."""
        return False

    @property
    def tokenizer_source(self) -> str | None:
        """Model of the hub or directory with the backbone's tokenizer; None if one is trained on the texts."""
        return None

    @property
    def tokenizer_revision(self) -> str | None:
        """Commit or tag of the tokenizer on the hub."""
        return None

    @property
    def takes_inputs(self) -> bool:
        """Whether the head reads further inputs beside the text."""
        return False

    def take_seed(self, seed: int) -> None:
        """Take the seed of a run, unless the model has one of its own."""
        if self.options.seed is None:
            self.options.seed = seed

    # Building

    def setup(self, stage: str) -> None:
        """Learn the genres from the trainer's data module, and what the trainer computes on and in.

        Raises:
            ConfigError: The trainer, or its data module, cannot serve the model.
        """
        # they are summed over the ranks already
        warnings.filterwarnings("ignore", message=r".*self\.log\('(train|val|test)[_/].*sync_dist=True.*")
        trainer = self.trainer
        self.runs_on(trainer.strategy.root_device.type, str(trainer.precision))
        self.check_trainer(trainer.strategy)
        spec = getattr(getattr(trainer, "datamodule", None), "spec", None)
        if spec is None and self.spec is None:
            raise ConfigError(
                f"{type(self).__name__} knows no genres: give the trainer a data module with a `spec`, such as "
                "MovieDataModule, by trainer.fit(model, datamodule=data)"
            )
        if spec is not None:
            self.bind(spec)
        if not self._built:
            assert self.spec is not None
            self.check(self.spec.max_tokens)

    def runs_on(self, accelerator: str, precision: str) -> None:
        """Say what the model will run on.

        Args:
            accelerator: Type of the device, such as "cuda".
            precision: Such as "16-mixed", below which its products will be computed in.
        """
        self.accelerator, self.precision = accelerator, precision

    def check_trainer(self, strategy: Any) -> None:
        """Refuse a strategy or precision that the model cannot train under.

        Args:
            strategy: Of the trainer, or its name.

        Raises:
            ConfigError: With the fix.
        """
        check_trained_precision(self.precision)
        named = {name: getattr(self.options, name) for name in _FOR_STRATEGY if hasattr(self.options, name)}
        if self.trains:
            _ = self.loss_function
        check_passes(self.options, self.precision, sharded=is_sharded(strategy))
        if getattr(self.options, "adapter", None) is not None and is_sharded(strategy):
            raise ConfigError(
                "model.adapter cannot be sharded by trainer.strategy fsdp, as blocks may share its weights: set "
                "trainer.strategy=ddp, or use model.lora"
            )
        check_strategy(strategy, self.precision, self.accelerator, trains=self.trains, **named)

    def bind(self, spec: DataSpec, pos_weight: NDArray[np.float32] | None = None) -> None:
        """Learn what the model must know of the data; `configure_model` can build it then.

        Args:
            spec: Of the data.
            pos_weight: float32 (genres,): weight of each genre's positives in the loss; None computes it.

        Raises:
            CheckpointError: The model is built for other genres.
            ConfigError: The data have inputs that the model does not read.
        """
        if spec.inputs and not self.takes_inputs:
            raise ConfigError(no_inputs(type(self).__name__))
        if self._built and self.spec is not None:
            check_same_genres(self.spec.genres, spec.genres)
        self.spec = spec
        options = self.options
        if pos_weight is None:
            pos_weight = positive_weights(spec, options.pos_weight, options.pos_weight_cap)
        weight = torch.as_tensor(pos_weight, dtype=torch.float32, device=self.device)
        self.register_buffer("pos_weight", weight, persistent=False)

    def configure_model(self) -> None:
        """Build the model once; Lightning calls it inside the strategy's context."""
        if self._built or (self.spec is None and self._trainer is None):
            return  # load_from_checkpoint calls it before the checkpoint says what the model knows of its data
        self.assemble(sharded=self._trainer is not None and is_sharded(self._trainer.strategy))

    def assemble(self, *, sharded: bool = False) -> None:
        """Build the model.

        Args:
            sharded: Leave out the weights that a sharding strategy has `materialise` put in.
        """
        if self.spec is None:
            raise RuntimeError("bind() comes before the model is built")
        # new weights come from the CPU's generator: some strategies make the GPU the default device here, others do
        # not, and one seed gives one model everywhere
        with torch.device("cpu"):
            torch.manual_seed(self.seed)
            avoid_plans_per_shape()
            self.build(self.spec)
            if not sharded:
                self.materialise(self.backbone)
                keep_embedding_gradients(self.backbone)
            replace_dropout(self)
            self.backbone.train()  # pretrained models come in evaluation mode, and Lightning keeps the mode it finds
            self.evaluation_metrics = EvaluationMetrics(len(self.spec.genres), masked=self.spec.known is not None)
            self.finite_steps = FiniteSteps()
            self.sums = StepSums()
        keep_buffers_per_rank(self)
        self._built = True

    # Steps

    def on_fit_start(self) -> None:
        """Take the weights of the run that is continued, and let the buffers of a step serve the next one."""
        self._start()
        if self.device.type == "cpu":
            keep_freed_memory()

    def on_predict_start(self) -> None:
        """Take the weights of the run that is continued, before any training."""
        self._start()

    def _start(self) -> None:
        if self.starts_from is not None:
            start_from(self, self.starts_from)
            self.starts_from = None

    def model_step(self, batch: Batch) -> StepOutput:
        """Logits and summed loss of a batch: the one computation of training, validation and test."""
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
        """Logits of the batch's films: index int64 (films,) and logits float32 (films, genres), on the CPU."""
        real = batch["weights"] > 0
        return {"index": batch["index"][real].cpu(), "logits": self(batch).float()[real].cpu()}

    # Checkpoints

    @property
    def strict_loading(self) -> bool:
        """False: a checkpoint holds what was trained, and `on_load_checkpoint` checks that nothing of it is missing."""
        return False

    @strict_loading.setter
    def strict_loading(self, value: bool) -> None:
        """Lightning's own switch; it has no effect here."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """See `torch.nn.Module.load_state_dict`; frozen weights of an adapted base are not missed."""
        result = super().load_state_dict(state_dict, strict=strict, assign=assign)
        if self._built and not strict:
            trained = self.trained_names()
            result.missing_keys[:] = [name for name in result.missing_keys if name in trained]
        return result

    def trained_names(self) -> set[str]:
        """Names of the parameters and persistent buffers that a checkpoint must hold."""
        frozen = {name for name, p in self.named_parameters() if not p.requires_grad and not is_start(name)}
        kept = set(self.state_dict()) - (frozen - self.adapter_state if self.adapters else set())
        return {name for name in kept if not name.startswith("evaluation_metrics.")}

    def checkpoint_metadata(self) -> CheckpointMetadata:
        """Return what besides weights is needed to use them: genres, size of the input, and what a subclass adds."""
        assert self.spec is not None
        return CheckpointMetadata(
            genres=self.spec.genres,
            positives=[int(count) for count in self.spec.positives],
            films=self.spec.films,
            known=None if self.spec.known is None else [int(count) for count in self.spec.known],
            pos_weight=[float(w) for w in self.pos_weight],
            vocab_size=self.spec.vocab_size,
            pad_token_id=self.spec.pad_token_id,
            max_tokens=self.spec.max_tokens,
            inputs=self.spec.inputs,
            decision=self.decision,
            epoch_sums=self.sums.epoch.tolist(),
            skipped_steps=self.finite_steps.skipped,
            parent=self.parent,
        )

    def read_metadata(self, metadata: CheckpointMetadata) -> None:
        """Take from a checkpoint what the model is built by, before it is built.

        Args:
            metadata: What `checkpoint_metadata` gave.
        """
        if self.spec is None:
            self.bind(metadata.spec(), np.array(metadata.pos_weight, dtype=np.float32))

    def check_metadata(self, metadata: CheckpointMetadata) -> None:
        """Refuse a checkpoint that was trained over another base; comes once the model is built.

        Args:
            metadata: What `checkpoint_metadata` gave.

        Raises:
            CheckpointError: With what differs.
        """

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the trained part of the weights, and the metadata.

        Raises:
            DivergedError: The weights are spoilt, and must not take the place of good ones.
        """
        if self._trainer is not None:
            self.check_finite()
        kept = self.trained_names()
        checkpoint["state_dict"] = {n: v for n, v in checkpoint["state_dict"].items() if n in kept}
        if self.options.ema_decay is not None and checkpoint.get("optimizer_states"):
            exchange_in_checkpoint(checkpoint, self.trainer.optimizers[0], self)
        checkpoint[CHECKPOINT_KEY] = self.checkpoint_metadata().to_json()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Build the model if it is not, and refuse a checkpoint of other genres or another shape of model.

        Raises:
            CheckpointError: With what differs.
        """
        metadata = CheckpointMetadata.of(checkpoint)
        if not self._built:
            self.read_metadata(metadata)
            self.configure_model()
        assert self.spec is not None
        self.check_metadata(metadata)
        check_same_genres(metadata.genres, self.spec.genres)
        check_same_inputs(metadata.inputs, self.spec.inputs)
        check_same_tensors(self, checkpoint["state_dict"], self.trained_names())
        self.decision = metadata.decision
        self.parent = metadata.parent
        self.sums.epoch.copy_(torch.tensor(metadata.epoch_sums, dtype=torch.float64))
        self.finite_steps.skipped = metadata.skipped_steps
