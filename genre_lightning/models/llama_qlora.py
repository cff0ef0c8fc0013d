"""LlamaQLoraClassifier: a frozen, quantised decoder with LoRA and a head on each text's last token or their mean."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from genre_lightning.config.adapters import LoraOptions
from genre_lightning.config.constructors import takes
from genre_lightning.config.decoder import LlamaQLoraOptions
from genre_lightning.errors import ConfigError
from genre_lightning.models.adapter import add_adapter, check_adapter
from genre_lightning.models.backbones import checkpoint_activations
from genre_lightning.models.decoder import FrozenDecoder
from genre_lightning.models.layers.elementwise import fuse_elementwise
from genre_lightning.models.layers.packing import full_attention_inputs, last_tokens, text_ends, text_groups
from genre_lightning.models.layers.pooling import pool, pool_packed
from genre_lightning.models.lora import add_lora
from genre_lightning.models.metadata import CheckpointMetadata
from genre_lightning.models.quantization import known_warnings
from genre_lightning.progress import say
from genre_lightning.types import Batch, DataSpec, Layout

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from transformers import PreTrainedModel


class LlamaQLoraClassifier(FrozenDecoder):
    """A Llama-like decoder, fine-tuned by low-rank adapters over frozen 4-bit weights, with a linear head.

    Dettmers et al., "QLoRA: Efficient Finetuning of Quantized LLMs", 2023. With quantization "none" it is plain LoRA.
    The state of each text's last real token, or the mean of all, goes through the head, which is float32 and trains in
    full.

    Args:
        options: Those of `LlamaQLoraOptions`, each as an argument.
    """

    options: LlamaQLoraOptions

    @takes(LlamaQLoraOptions)
    def __init__(self, options: LlamaQLoraOptions) -> None:
        super().__init__(options)

    @property
    def lora(self) -> LoraOptions | None:
        """The low-rank adapters; None if there are those of another method."""
        return None if self.options.adapter else self.options.lora or LoraOptions()

    @property
    def takes_inputs(self) -> bool:
        """True: the head reads the inputs of the data too."""
        return True

    @property
    def adapters(self) -> bool:
        """True: only adapters and the head train."""
        return True

    @property
    def causal(self) -> bool:
        """Whether a token sees only those before it."""
        return self.options.attention == "causal"

    @property
    def layout(self) -> Layout:
        """How batches are laid out for this model."""
        return "packed" if self.options.packing else "padded"

    def check(self, max_tokens: int | None = None) -> None:
        """See `GenreClassifier.check`."""
        if self.options.optimizer == "paged_adamw_8bit" and self.accelerator != "cuda":
            raise ConfigError(
                f"model.optimizer is paged_adamw_8bit on {self.accelerator}, and only CUDA memory is paged: "
                "set model.optimizer=adamw_8bit"
            )
        super().check(max_tokens)
        if self.options.adapter:
            check_adapter(self.options.adapter, self.options.quantization)

    def build(self, spec: DataSpec) -> None:
        """Make the quantised backbone, put adapters on it, and make the head."""
        decoder = self.build_decoder(spec)
        lora = self.lora
        reads_weights = lora is None or lora.reads_weights or self.options.unfreeze is not None
        if reads_weights and not self.shape_only:
            self.materialise(decoder)
        if self.options.activation_checkpointing:
            checkpoint_activations(decoder)
        # loading may have drawn numbers: the new weights depend on the seed alone
        torch.default_generator.manual_seed(self.seed)
        self.backbone = self._adapted(decoder, lora)
        width = decoder.config.hidden_size
        linear = nn.Linear(width, len(spec.genres), dtype=torch.float32)
        # the first logits are of the order of 0.5, whatever the width: the last norm gives states of the order of 1
        nn.init.normal_(linear.weight, std=0.5 * width**-0.5)
        nn.init.zeros_(linear.bias)
        self.head = self.fused(nn.Sequential(nn.Dropout(self.options.dropout or 0.0), linear), spec)

    def _adapted(self, decoder: PreTrainedModel, lora: LoraOptions | None) -> nn.Module:
        family = decoder.config.model_type
        with known_warnings():
            if lora is not None:
                return add_lora(
                    decoder,
                    lora,
                    family,
                    weight_of=self.weight_of,
                    unfreeze=self.options.unfreeze,
                    shape_only=self.shape_only,
                )
            assert self.options.adapter is not None
            wrapped, names = add_adapter(decoder, self.options.adapter, family, self.seed)
        self.adapter_state = frozenset(f"backbone.{name}" for name in names)
        return wrapped

    def on_fit_start(self) -> None:
        """See `GenreClassifier.on_fit_start`."""
        super().on_fit_start()
        if self.options.compile and self.device.type == "cuda":
            fuse_elementwise(self.backbone)
        elif self.options.compile:
            rank_zero_only(say)("model.compile has no effect on a CPU")

    def forward(self, batch: Batch) -> Tensor:
        """Return the logits, float32 (texts, genres), of a padded or packed batch of token ids."""
        names = ("position_ids", "slots", "places")
        apart: dict[str, Any] = {name: batch[name] for name in names if name in batch}
        assert self.backbone_config is not None  # the backbone is made by it
        if (groups := text_groups(batch, self.backbone_config, causal=self.causal)) is not None:
            apart["groups"] = groups
        if (ends := text_ends(batch)) is not None:
            apart["ends"] = ends
        if not self.causal:
            apart |= full_attention_inputs(batch)
        with known_warnings():
            states = self.backbone(input_ids=batch["input_ids"], use_cache=False, **apart).last_hidden_state
        if self.options.pooling == "last":
            pooled = last_tokens(states, batch)
        elif "last_tokens" in batch:
            pooled = pool_packed(states[0], batch["last_tokens"], "mean")
        else:
            pooled = pool(states, batch["attention_mask"], "mean")
        return self.classify(pooled, batch)

    def new_optimizer(self, groups: list[dict[str, Any]]) -> Optimizer:
        """See `GenreClassifier.new_optimizer`."""
        if self.options.optimizer == "adamw":
            return super().new_optimizer(groups)
        from bitsandbytes.optim import AdamW8bit, PagedAdamW8bit

        kind = AdamW8bit if self.options.optimizer == "adamw_8bit" else PagedAdamW8bit
        return kind(groups, betas=(0.9, self.options.beta2))

    def checkpoint_metadata(self) -> CheckpointMetadata:
        """See `GenreClassifier.checkpoint_metadata`; with the adapters' options."""
        options = {"lora": self.lora, "adapter": self.options.adapter}
        kinds: dict[str, Any] = {name: asdict(kind) if kind else None for name, kind in options.items()}
        return replace(super().checkpoint_metadata(), **kinds)
