"""DistilBertClassifier: an encoder (DistilBERT or any other), pooled, with a linear head."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from genre_lightning.config.adapters import LoraOptions
from genre_lightning.config.architectures import Architecture
from genre_lightning.config.constructors import takes
from genre_lightning.config.encoder import SMALL, EncoderOptions
from genre_lightning.errors import CheckpointError, ConfigError
from genre_lightning.models.adapter import add_adapter, check_adapter
from genre_lightning.models.backbone_config import check_encoder, config_of
from genre_lightning.models.backbones import (
    backbone_config,
    check_backbone,
    check_positions,
    check_vocabulary,
    checkpoint_activations,
    compile_blocks,
    empty_backbone,
    load_backbone,
    set_dropout,
    unreached_weights,
)
from genre_lightning.models.base import GenreClassifier
from genre_lightning.models.base_weights import check_same_base, weight_files, weights_digest
from genre_lightning.models.layers.packing import FULL_ATTENTION, encoder_inputs, packs, register_attention
from genre_lightning.models.layers.pooling import pool, pool_packed
from genre_lightning.models.lora import add_lora
from genre_lightning.models.metadata import BaseMetadata, CheckpointMetadata
from genre_lightning.models.quantization import known_warnings
from genre_lightning.progress import say
from genre_lightning.types import Batch, DataSpec, Layout
from genre_lightning.vocabulary import vocabulary_size

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["SMALL", "Architecture", "DistilBertClassifier"]


class DistilBertClassifier(GenreClassifier):
    """An encoder of the hub or of a local directory, fine-tuned in full or by LoRA, with a linear head.

    Args:
        options: Those of `EncoderOptions`, each as an argument.
    """

    options: EncoderOptions

    @takes(EncoderOptions)
    def __init__(self, options: EncoderOptions) -> None:
        super().__init__(options)
        self.backbone_config: PretrainedConfig | None = None
        """Set to rebuild the model for weights that are loaded next: the hub is not asked then."""
        self._base_metadata: BaseMetadata | None = None
        self._packs: bool | None = None

    @property
    def tokenizer_source(self) -> str | None:
        """The backbone, unless it is a small one for which a vocabulary is trained."""
        return None if self.from_scratch else self.options.backbone

    @property
    def tokenizer_revision(self) -> str | None:
        """Commit or tag of the backbone."""
        return None if self.from_scratch else self.options.revision

    @property
    def from_scratch(self) -> bool:
        """Whether the backbone is a small one with random weights."""
        return self.options.from_scratch

    @property
    def lora(self) -> LoraOptions | None:
        """The adapters of the attention; None if all of the backbone trains."""
        return self.options.lora

    @property
    def takes_inputs(self) -> bool:
        """True: the head reads the inputs of the data too."""
        return True

    @property
    def adapters(self) -> bool:
        """Whether only adapters of the backbone train."""
        return self.lora is not None or self.options.adapter is not None

    @property
    def layout(self) -> Layout:
        """How batches are laid out for this model; "padded" if the backbone is not found, as `check` reports."""
        if not self.options.packing:
            return "padded"
        if self.backbone_config is None and self.from_scratch:
            return "packed"
        if self._packs is None:
            try:
                config = self.backbone_config or backbone_config(
                    self.options.backbone, self.options.revision, weights=False
                )
            except ConfigError:
                return "padded"
            self._packs = packs(config)
        return "packed" if self._packs else "padded"

    def check(self, max_tokens: int | None = None) -> None:
        """See `GenreClassifier.check`."""
        super().check(max_tokens)
        if self.options.adapter:
            check_adapter(self.options.adapter)
        if not self.from_scratch:
            weights = not self.shape_only
            config = backbone_config(self.options.backbone, self.options.revision, weights=weights)
            self.weight_report = check_backbone(
                self.options.backbone, self.options.revision, config, max_tokens, weights=weights
            )

    def check_tokenizer(self, tokenizer: PreTrainedTokenizerBase) -> None:
        """See `GenreClassifier.check_tokenizer`."""
        if not self.from_scratch:
            config = self._published_config(weights=not self.shape_only)
            check_vocabulary(vocabulary_size(tokenizer), config, self.options.backbone)

    def build(self, spec: DataSpec) -> None:
        """Load the backbone, put adapters on it if asked, and make the head."""
        restored = self.backbone_config is not None
        config = self.backbone_config or self._new_config(spec)
        check_encoder(config, self.options.backbone)
        check_vocabulary(spec.vocab_size, config, self.options.backbone)
        set_dropout(config, self.options.dropout)
        if self.from_scratch or self.shape_only or (restored and not self.adapters):
            backbone = empty_backbone(config)
        else:
            backbone = load_backbone(self.options.backbone, self.options.revision, config)
        self._make_ready(backbone, config, spec)
        self.backbone_config, lora = config, self.options.lora
        self.backbone: nn.Module = backbone
        with known_warnings():
            if lora:
                self.backbone = add_lora(
                    backbone, lora, config.model_type, unfreeze=self.options.unfreeze, shape_only=self.shape_only
                )
            elif self.options.adapter:
                self.backbone, names = add_adapter(backbone, self.options.adapter, config.model_type, self.seed)
                self.adapter_state = frozenset(f"backbone.{name}" for name in names)
        width = config.hidden_size
        linear = nn.Linear(width, len(spec.genres))
        # small weights: the first logits are near 0, whatever the scale of the backbone's states
        nn.init.normal_(linear.weight, std=0.02)
        nn.init.zeros_(linear.bias)
        dropout = nn.Dropout(0.1 if self.options.dropout is None else self.options.dropout)
        self.head = self.fused(nn.Sequential(dropout, linear), spec)
        if not (restored or self.from_scratch or self.shape_only):
            self._freeze_unused()

    def _make_ready(self, backbone: PreTrainedModel, config: PretrainedConfig, spec: DataSpec) -> None:
        """Check that texts fit, and set attention and checkpointing of a backbone."""
        check_positions(backbone, self.options.backbone, spec.max_tokens)
        if packs(config):
            register_attention()
            backbone.set_attn_implementation(FULL_ATTENTION)
        if self.options.activation_checkpointing:
            checkpoint_activations(backbone)

    def _freeze_unused(self) -> None:
        """Freeze the weights that no text reaches, such as those of Longformer's global attention.

        They would never change, and DDP waits for the gradient of every weight that trains.
        """
        unused = unreached_weights(self.backbone, self.options.backbone)
        for weight in unused.values():
            weight.requires_grad = False
        if unused:
            first = next(iter(unused))
            rank_zero_only(say)(
                f"{len(unused):,} weights of the backbone are not used, and stay frozen (such as {first})"
            )

    def _published_config(self, *, weights: bool) -> PretrainedConfig:
        return backbone_config(self.options.backbone, self.options.revision, weights=weights)

    def _new_config(self, spec: DataSpec) -> PretrainedConfig:
        if not self.from_scratch:
            return self._published_config(weights=not self.shape_only)
        from transformers import DistilBertConfig

        shape = self.options.shape
        return DistilBertConfig(
            vocab_size=spec.vocab_size,
            pad_token_id=spec.pad_token_id,
            max_position_embeddings=spec.max_tokens,
            n_layers=shape.layers,
            dim=shape.width,
            n_heads=shape.heads,
            hidden_dim=shape.inner_width,
        )

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits, float32 (texts, genres), of a padded or packed batch of token ids."""
        if "attention_mask" in batch:
            mask = batch["attention_mask"]
            states = self.backbone(input_ids=batch["input_ids"], attention_mask=mask).last_hidden_state
            pooled = pool(states, mask, self.options.pooling)
        else:
            assert self.backbone_config is not None
            states = self.backbone(**encoder_inputs(batch, self.backbone_config)).last_hidden_state
            pooled = pool_packed(states[0], batch["last_tokens"], self.options.pooling)
        return self.classify(pooled, batch)

    def on_fit_start(self) -> None:
        """See `GenreClassifier.on_fit_start`; a frozen base is digested now, not while a preempted job saves."""
        super().on_fit_start()
        self.base_metadata()
        if self.options.compile and self.device.type == "cuda":
            compile_blocks(self.backbone)
        elif self.options.compile:
            rank_zero_only(say)("model.compile has no effect on a CPU, where packed texts have kernels of their own")

    def base_metadata(self) -> BaseMetadata:
        """Return what names the weights that the training starts from; frozen ones by their content too."""
        if self._base_metadata is None:
            name, revision = self.options.backbone, self.options.revision
            digest = weights_digest(weight_files(name, revision)) if self.adapters else None
            self._base_metadata = BaseMetadata(name, revision, sha256=digest)
        return self._base_metadata

    def read_metadata(self, metadata: CheckpointMetadata) -> None:
        """See `GenreClassifier.read_metadata`; with the backbone's shape, so that the hub is not asked."""
        super().read_metadata(metadata)
        if self.backbone_config is None and metadata.backbone_config is not None:
            try:
                self.backbone_config = config_of(metadata.backbone_config, "the checkpoint's backbone")
            except ConfigError as error:
                raise CheckpointError(f"the checkpoint cannot be used: {error}") from None

    def check_metadata(self, metadata: CheckpointMetadata) -> None:
        """See `GenreClassifier.check_metadata`."""
        if self.adapters and metadata.backbone is not None and metadata.backbone.sha256 is not None:
            check_same_base(metadata.backbone, self.base_metadata())

    def checkpoint_metadata(self) -> CheckpointMetadata:
        """See `GenreClassifier.checkpoint_metadata`; with the backbone's name and configuration."""
        assert self.backbone_config is not None
        return replace(
            super().checkpoint_metadata(),
            backbone=self.base_metadata(),
            backbone_config=self.backbone_config.to_diff_dict(),
            lora=asdict(self.options.lora) if self.options.lora else None,
            adapter=asdict(self.options.adapter) if self.options.adapter else None,
        )
