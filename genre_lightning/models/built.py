"""BuiltModule: what a model provides, what it must know of the data and the trainer, and how it is built once."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from genre_lightning.compat import keep_buffers_per_rank, set_hyperparameters
from genre_lightning.config.classifier import ClassifierOptions
from genre_lightning.config.constructors import plain
from genre_lightning.config.regularisers import check_passes
from genre_lightning.distributed.precision import check_trained_precision
from genre_lightning.distributed.strategies import check_strategy, is_sharded
from genre_lightning.errors import ConfigError
from genre_lightning.losses import positive_weights
from genre_lightning.models.checkpoint import check_same_genres
from genre_lightning.models.finiteness import FiniteSteps
from genre_lightning.models.layers.cpu_dropout import replace_dropout
from genre_lightning.models.layers.cpu_embedding import keep_embedding_gradients
from genre_lightning.models.layers.fusion import FusionHead, inputs_of, no_inputs
from genre_lightning.models.layers.packing import avoid_plans_per_shape
from genre_lightning.models.step_sums import StepSums
from genre_lightning.models.stepwise import StepwiseModule
from genre_lightning.models.validation import EvaluationMetrics
from genre_lightning.types import Batch, DataSpec, Layout

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers import PreTrainedTokenizerBase

    from genre_lightning.models.base_weights import WeightReport

_FOR_STRATEGY = ("optimizer", "quantization", "compute_dtype", "quant_storage")
"""Options of a model that not every strategy can serve."""


class BuiltModule(StepwiseModule):
    """A backbone with a head of one logit for each genre, built once the genres are known.

    It takes what it must know of the data from the trainer's data module, which has a `spec`; from a checkpoint that
    says it; or from `bind()`.

    Args:
        options: Loss, optimizer and learning rates; None takes the defaults.
    """

    pos_weight: Tensor
    evaluation_metrics: EvaluationMetrics

    def __init__(self, options: ClassifierOptions | None = None) -> None:
        super().__init__()
        self.options = options or ClassifierOptions()
        set_hyperparameters(self, plain(self.options), log=True)
        self.spec: DataSpec | None = None
        """What the model knows of the data."""
        self.accelerator, self.precision = "cpu", "32-true"
        self.shape_only = False
        """Whether the model is looked at and never run: it is built without its weights, which need not be there."""
        self.weight_report: WeightReport | None = None
        """How the backbone's stored weights fit it; known after `check` if they are on this machine."""
        self._built = False

    # What a subclass provides

    def build(self, spec: DataSpec) -> None:
        """Make `self.backbone` and `self.head`, with weights or with placeholders that `materialise` fills."""
        raise TypeError(f"{type(self).__name__} does not say how it is built: define build(self, spec)")

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits, float32 (rows, genres), of a batch."""
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
        """Report what the model will run on.

        Args:
            accelerator: Type of the device, such as "cuda".
            precision: Such as "16-mixed", below which its matmuls will be computed in.
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
        if self.spec is None:
            self.setup("fit")  # a callback, such as Lightning's WeightAveraging, has the model built before its setup
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
        with torch.device("cpu"), torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
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
