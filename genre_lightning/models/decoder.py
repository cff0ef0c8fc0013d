"""What models over a frozen decoder share: which one it is, how its weights are kept, and what it needs to run."""

from __future__ import annotations

from dataclasses import asdict, replace
from functools import partial
from typing import TYPE_CHECKING

import torch

from genre_lightning.config.architectures import LlamaArchitecture
from genre_lightning.config.decoder import RANDOM, DecoderOptions
from genre_lightning.distributed.precision import check_trained_precision
from genre_lightning.errors import CheckpointError, ConfigError
from genre_lightning.models.backbones import backbone_config, check_positions, check_vocabulary, empty_shape
from genre_lightning.models.base import GenreClassifier
from genre_lightning.models.base_weights import StoredWeights, check_same_base, weight_files, weights_digest
from genre_lightning.models.lora import is_start
from genre_lightning.models.metadata import BaseMetadata, CheckpointMetadata
from genre_lightning.models.quantization import (
    FrozenWeights,
    ValuesOf,
    WeightFormat,
    dtype_of_precision,
    empty_decoder,
    random_values,
)
from genre_lightning.types import DataSpec
from genre_lightning.vocabulary import vocabulary_size

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["FAMILIES", "RANDOM", "FrozenDecoder", "LlamaArchitecture"]

FAMILIES = ("llama", "mistral", "qwen2", "qwen3")
"""transformers' model types whose attention is known to keep packed texts apart."""


class FrozenDecoder(GenreClassifier):
    """A Llama-like decoder whose own weights never train.

    Args:
        options: Of the decoder.
    """

    options: DecoderOptions

    auto_class = "AutoModel"
    """transformers' class that chooses the decoder's."""

    def __init__(self, options: DecoderOptions) -> None:
        super().__init__(options)
        self.backbone_config: PretrainedConfig | None = None
        self._base_metadata: BaseMetadata | None = None
        self._frozen: FrozenWeights | None = None
        self.weight_of: ValuesOf | None = None
        """Gives the weight of a name and shape as it is before it is quantised; known once the model is built."""

    @property
    def from_scratch(self) -> bool:
        """Whether the backbone starts from random weights."""
        return self.options.from_scratch

    @property
    def _needs_weights(self) -> bool:
        return not (self.from_scratch or self.shape_only)

    @property
    def causal(self) -> bool:
        """True: a token sees only those before it."""
        return True

    @property
    def decoder(self) -> bool:
        """True."""
        return True

    @property
    def tokenizer_source(self) -> str | None:
        """The backbone, unless it is a shape alone."""
        return None if self.options.backbone == RANDOM else self.options.backbone

    @property
    def tokenizer_revision(self) -> str | None:
        """Commit or tag of the backbone."""
        return None if self.options.backbone == RANDOM else self.options.revision

    # Before anything is loaded

    def check(self, max_tokens: int | None = None) -> None:
        """See `GenreClassifier.check`."""
        super().check(max_tokens)
        if self.options.quant_storage not in ("uint8", str(dtype_of_precision(self.precision)).removeprefix("torch.")):
            raise ConfigError(
                f"model.quant_storage is {self.options.quant_storage} under trainer.precision {self.precision}: "
                "sharding would cast the packed weights, which would destroy them: set model.quant_storage=uint8"
            )
        if self.options.compute_dtype == "float16" and self.accelerator == "cpu":
            raise ConfigError(
                "model.compute_dtype is float16 on a CPU, which has no fp16 matrix units: set model.compute_dtype=auto"
            )
        check_trained_precision(self.precision)
        self._check_quantizer()
        self._check_shape(max_tokens)

    def _check_quantizer(self) -> None:
        if self.options.quantization == "none":
            return
        import importlib.util

        if importlib.util.find_spec("bitsandbytes") is None:
            raise ConfigError(
                f"model.quantization is {self.options.quantization}, and bitsandbytes is not installed: "
                "run 'pip install bitsandbytes', or set model.quantization=none"
            )
        if self.accelerator not in ("cpu", "cuda"):
            raise ConfigError(
                f"model.quantization is {self.options.quantization} on {self.accelerator}, where it is untried: "
                "set trainer.accelerator=cpu, or model.quantization=none"
            )

    def _check_shape(self, max_tokens: int | None) -> None:
        if self.options.backbone == RANDOM:
            return
        config = backbone_config(self.options.backbone, self.options.revision, weights=self._needs_weights)
        if config.model_type not in FAMILIES:
            raise ConfigError(
                f"model.backbone {self.options.backbone} is a {config.model_type}, not one of {', '.join(FAMILIES)}: "
                "use one of those, or models.distilbert.DistilBertClassifier for an encoder"
            )
        window = getattr(config, "sliding_window", None)
        if max_tokens and window and max_tokens > window:
            raise ConfigError(
                f"data.max_tokens is {max_tokens}, more than the attention window of {window} of "
                f"{self.options.backbone}: set data.max_tokens={window}"
            )
        model = empty_shape(config, self.auto_class, self.options.backbone)
        check_positions(model, self.options.backbone, max_tokens)
        files = weight_files(self.options.backbone, self.options.revision, fetch=False) if self._needs_weights else []
        if files:
            self.weight_report = StoredWeights(self.options.backbone, files).report(model)
            self.weight_report.require(self.options.backbone)

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """See `GenreClassifier.check_tokenizer`."""
        if self.options.backbone != RANDOM:
            config = backbone_config(self.options.backbone, self.options.revision, weights=self._needs_weights)
            check_vocabulary(vocabulary_size(tokenizer), config, self.options.backbone)

    # Building

    def weight_format(self) -> WeightFormat:
        """Return how the frozen weights are kept."""
        auto = self.options.compute_dtype == "auto"
        dtype = dtype_of_precision(self.precision) if auto else getattr(torch, self.options.compute_dtype)
        return WeightFormat(self.options.quantization, dtype, getattr(torch, self.options.quant_storage))

    def build_device(self) -> torch.device:
        """Return the device that quantises the weights: the one that computes, if it is known."""
        if self.shape_only:
            return torch.device("meta")
        if (trainer := self._trainer) is not None:
            return trainer.strategy.root_device
        # on a CPU a 7B takes minutes to quantise, by other code than it was trained with
        return torch.device("cuda" if self.accelerator == "cuda" else "cpu")

    def new_config(self, spec: DataSpec) -> PretrainedConfig:
        """Return the backbone's configuration.

        Raises:
            ConfigError: The tokenizer knows tokens that the backbone does not.
        """
        if self.options.backbone == RANDOM:
            from transformers import LlamaConfig

            shape = self.options.shape
            config: PretrainedConfig = LlamaConfig(
                vocab_size=shape.vocab_size or spec.vocab_size,
                hidden_size=shape.width,
                intermediate_size=shape.inner_width,
                num_hidden_layers=shape.layers,
                num_attention_heads=shape.heads,
                num_key_value_heads=shape.kv_heads or shape.heads,
                max_position_embeddings=max(4096, spec.max_tokens),
                rms_norm_eps=1e-5,
            )
        else:
            config = backbone_config(self.options.backbone, self.options.revision, weights=self._needs_weights)
        check_vocabulary(spec.vocab_size, config, self.options.backbone)
        config.use_cache = False
        return config

    def build_decoder(self, spec: DataSpec) -> PreTrainedModel:
        """Return the frozen decoder, with placeholders for the weights that `materialise` puts in."""
        import transformers

        config = self.backbone_config or self.new_config(spec)
        self.backbone_config = config
        weights = self.weight_format()
        decoder = empty_decoder(getattr(transformers, self.auto_class), config, weights, self.build_device())
        check_positions(decoder, self.options.backbone, spec.max_tokens)
        if not self._needs_weights:
            values_of = random_values(config, weights.compute_dtype, self.seed)
        else:
            stored = StoredWeights(self.options.backbone, weight_files(self.options.backbone, self.options.revision))
            stored.report(decoder).require(self.options.backbone)
            values_of = partial(stored.read, dtype=weights.compute_dtype)
        self._frozen = FrozenWeights(decoder, values_of)
        self.weight_of = values_of
        return decoder

    def materialise(self, part: nn.Module) -> None:
        """See `GenreClassifier.materialise`; each weight is quantised before the next is read or drawn."""
        assert self._frozen is not None
        self._frozen.materialise(part)

    # Checkpoints

    def on_fit_start(self) -> None:
        """See `GenreClassifier.on_fit_start`; the base is digested now, not while a preempted job saves."""
        super().on_fit_start()
        self.base_metadata()

    def base_metadata(self) -> BaseMetadata:
        """Return what names the frozen weights: the base of which the checkpoint holds nothing."""
        if self._base_metadata is None:
            assert self.backbone_config is not None
            assert self.spec is not None
            random = None
            if self.from_scratch:
                shape = self.backbone_config.to_diff_dict()
                # none of these changes which weights are drawn
                for name in ("transformers_version", "dtype", "quantization_config"):
                    shape.pop(name, None)
                random = {"seed": self.seed, "config": shape}
            digest = None if random else weights_digest(weight_files(self.options.backbone, self.options.revision))
            self._base_metadata = BaseMetadata(
                name=self.options.backbone,
                revision=self.options.revision,
                commit=getattr(self.backbone_config, "_commit_hash", None),
                sha256=digest,
                random=random,
                quantization=self.options.quantization,
                compute_dtype=str(self.weight_format().compute_dtype).removeprefix("torch."),
                quant_storage=self.options.quant_storage,
                architecture=asdict(self.options.shape) if self.options.backbone == RANDOM else None,
            )
        return self._base_metadata

    def checkpoint_metadata(self) -> CheckpointMetadata:
        """See `GenreClassifier.checkpoint_metadata`; with the base."""
        return replace(super().checkpoint_metadata(), base=self.base_metadata())

    def check_metadata(self, metadata: CheckpointMetadata) -> None:
        """See `GenreClassifier.check_metadata`."""
        if metadata.base is None:
            raise CheckpointError("the checkpoint is of another kind of model: use the configuration of its run")
        check_same_base(metadata.base, self.base_metadata())

    def trained_names(self) -> set[str]:
        """Return the names of what a checkpoint holds: all that trains, and nothing of the frozen base."""
        trained = {name for name, parameter in self.named_parameters() if parameter.requires_grad or is_start(name)}
        return trained | self.adapter_state
