"""The options of an encoder that is fine-tuned."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from genre_lightning.bounds import FRACTION_BELOW_ONE, Bounds, above
from genre_lightning.config.adapters import AdapterOptions, LoraOptions, check_lora, check_one_kind
from genre_lightning.config.architectures import Architecture
from genre_lightning.config.classifier import ClassifierOptions
from genre_lightning.config.effects import UNCHANGED
from genre_lightning.config.regularisers import REGULARISER, check_regularisers
from genre_lightning.errors import ConfigError
from genre_lightning.foreign import check_folder

Pooling = Literal["mean", "cls"]

SMALL = "small"
"""The value of `model.backbone` that asks for a small encoder with random weights."""


@dataclass
class EncoderOptions(ClassifierOptions):
    """An encoder of the hub or of a local directory, fine-tuned in full or by LoRA, with a linear head.

    These are the options of `DistilBertClassifier`.

    Attributes:
        backbone: Model of the hub (DistilBERT, BERT, RoBERTa, DeBERTa, MiniLM, ModernBERT, …) or local directory;
            "small" makes `architecture` with random weights.
        revision: Commit or tag of the backbone on the hub.
        pooling: "mean" over a text's tokens, or its first token's state ("cls").
        dropout: Rate in the backbone and before the head; null keeps the backbone's own, and 0.1 before the head.
        lora: Train low-rank adapters in the attention and the head in full; null trains everything.
        adapter: Adapters of another method in place of LoRA; null for none.
        unfreeze: This many blocks nearest to the output train in full, without adapters, and the norms of all; null
            trains adapters alone.
        unfreeze_lr: Peak learning rate of what is unfrozen; null chooses by the backbone's size.
        activation_checkpointing: Keep only the states between layers and compute the rest again in the backward
            pass: a third more work for a fraction of the memory.
        compile: Compile the blocks by torch for a CUDA GPU, into one graph for any number of tokens. The first steps of
            every start take minutes; no effect on a CPU.
        packing: Lay texts one behind another in a row without padding, for backbones whose attention can keep them
            apart (BERT, DistilBERT, ELECTRA, RoBERTa and its kin). Otherwise texts of like length are padded to the
            longest of them. The logits are the same.
        architecture: Used with backbone "small".
        r_drop: Weight of the divergence between two passes with different dropout (R-Drop); 0 for one pass. It doubles
            the compute of a step.
        fgm: Length of an adversarial offset of a text's embeddings, with which the text is learnt once more (FGM); 0
            for none. It more than doubles the compute of a step.
    """

    backbone: str = "distilbert-base-uncased"
    revision: str | None = None
    pooling: Pooling = "mean"
    dropout: Annotated[float | None, FRACTION_BELOW_ONE] = None
    lora: LoraOptions | None = None
    adapter: AdapterOptions | None = None
    unfreeze: Annotated[int | None, Bounds(0, 10**4)] = None
    unfreeze_lr: Annotated[float | None, above(0, 1e3)] = None
    activation_checkpointing: Annotated[bool, UNCHANGED] = False
    compile: bool = False
    packing: bool = True
    architecture: Architecture | None = None
    r_drop: Annotated[float, REGULARISER] = 0.0
    fgm: Annotated[float, REGULARISER] = 0.0

    @property
    def from_scratch(self) -> bool:
        """Whether the backbone starts from random weights."""
        return self.backbone == SMALL

    @property
    def shape(self) -> Architecture:
        """Of a small encoder."""
        return self.architecture or Architecture()

    def check_files(self) -> None:
        """See `ClassifierOptions.check_files`."""
        if not self.from_scratch:
            check_folder(self.backbone)

    def check_options(self) -> None:
        """See `ClassifierOptions.check_options`."""
        super().check_options()
        if self.shape.width % self.shape.heads:
            raise ConfigError(
                f"model.architecture.width is {self.shape.width}, no multiple of its {self.shape.heads} "
                "heads: change one of them"
            )
        if self.from_scratch and (self.lora or self.adapter):
            name = "lora" if self.lora else "adapter"
            raise ConfigError(
                f"model.{name} adapts pretrained weights, and backbone 'small' has none: drop one of them"
            )
        check_one_kind(self.lora, self.adapter, self.unfreeze)
        check_regularisers(self, drops=self.dropout != 0 or bool(self.adapter) or bool(self.lora and self.lora.dropout))
        if self.lora is not None:
            check_lora(self.lora)
        elif self.unfreeze is not None:
            raise ConfigError(
                f"model.unfreeze is {self.unfreeze} without adapters, and all of the backbone trains then: leave it "
                "out, or add model.lora"
            )
