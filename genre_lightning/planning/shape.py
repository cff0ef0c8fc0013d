"""The shape of a model that is built without its weights: what each weight takes, and what a block of it computes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from genre_lightning.distributed.sharded import transformer_blocks
from genre_lightning.models.regularisers import passes_of
from genre_lightning.models.unfreeze import norms_of

if TYPE_CHECKING:
    from genre_lightning.models.base import GenreClassifier
    from genre_lightning.types import DataSpec

_NF4_BLOCK, _SCALE_BLOCK = 64, 256
"""Weights that share a scale of 8 bits, and such scales that share one of 32 (Dettmers et al. 2023, double
quantisation)."""


@dataclass(frozen=True)
class Weight:
    """A parameter.

    Attributes:
        numbers: How many it holds.
        stored: Bytes that they are kept in.
        scales: Bytes of the scales of quantised ones, which are not sharded.
        rows: Rows of the stored tensor, along which it is sharded.
        trained: Whether it has a gradient.
        quantised: Whether it is kept in 4 or 8 bits.
        linear: Whether it is the weight or bias of a linear layer, which autocast casts.
        block: Which transformer block it belongs to; None outside of them.
        head: Whether it is the head's, which computes in float32.
    """

    numbers: int
    stored: int
    scales: int
    rows: int
    trained: bool
    quantised: bool
    linear: bool
    block: int | None
    head: bool


@dataclass(frozen=True)
class Adapter:
    """The adapter of a linear layer.

    Attributes:
        inputs: Number of inputs of the layer.
        rank: Rank of the update.
        dropout: Dropout of its input.
        on_nf4: Whether the layer below it is kept in NF4, which peft's dropout sees in the matmuls' dtype.
    """

    inputs: int
    rank: int
    dropout: float
    on_nf4: bool


@dataclass(frozen=True)
class ModelShape:
    """What memory is reckoned from.

    Attributes:
        weights: Weights of backbone and head.
        blocks: Transformer blocks.
        width: Width of a token's state.
        heads: Number of heads of the attention.
        kv_heads: Number of heads of keys and values.
        head_width: Width of one head.
        inner_width: Width of the feed-forward layers.
        vocab_size: Rows of the embedding.
        decoder: A Llama-like block; else one like BERT's.
        attention_dropout: Dropout on the attention's probabilities.
        dropouts: Dropouts on states in a block.
        adapters: Adapters of the first block.
        full_blocks: Blocks nearest to the output whose own layers train, and which have no adapters.
        trains_norms: Whether the norms of all blocks train.
        checkpointed: Whether the states within blocks are computed again in the backward pass.
        passes: How often a step computes its films before it goes back.
    """

    weights: tuple[Weight, ...]
    blocks: int
    width: int
    heads: int
    kv_heads: int
    head_width: int
    inner_width: int
    vocab_size: int
    decoder: bool
    attention_dropout: float
    dropouts: int
    adapters: tuple[Adapter, ...]
    full_blocks: int
    trains_norms: bool
    checkpointed: bool
    passes: int = 1

    @property
    def total(self) -> int:
        """Parameters."""
        return sum(weight.numbers for weight in self.weights)

    @property
    def trained(self) -> int:
        """Parameters that train."""
        return sum(weight.numbers for weight in self.weights if weight.trained)

    @property
    def quantised(self) -> int:
        """Parameters that are kept in 4 or 8 bits."""
        return sum(weight.numbers for weight in self.weights if weight.quantised)


def build_empty(model: GenreClassifier, spec: DataSpec) -> None:
    """Build a model on the meta device, where tensors have shapes and no memory.

    Raises:
        ConfigError: The shape of its backbone is not known, or it cannot be built.
    """
    model.shape_only = True
    model.bind(spec)
    options: Any = model.options
    lora = model.lora
    with torch.device("meta"):
        if lora is None or not lora.dora:
            model.build(spec)
            return
        # the magnitudes of DoRA start from the norms of weights, and there are none
        options.lora = replace(lora, dora=False)
        model.build(spec)
        options.lora = lora
        for layer in _adapted(model.backbone):
            magnitude = nn.Parameter(torch.empty(layer.lora_B["default"].out_features))
            layer.register_parameter("magnitude", magnitude)


def shape_of(model: GenreClassifier) -> ModelShape:
    """Return the shape of a model that `build_empty` or `configure_model` has built."""
    config: Any = getattr(model, "backbone_config", None)
    blocks = transformer_blocks(model.backbone)
    block_of = {id(p): place for place, block in enumerate(blocks) for p in block.parameters()}
    heads = config.num_attention_heads
    decoder = model.decoder
    return ModelShape(
        weights=tuple(_weights(model, block_of)),
        blocks=len(blocks),
        width=config.hidden_size,
        heads=heads,
        kv_heads=getattr(config, "num_key_value_heads", None) or heads,
        head_width=getattr(config, "head_dim", None) or config.hidden_size // heads,
        inner_width=getattr(config, "intermediate_size", None) or getattr(config, "hidden_dim", 4 * config.hidden_size),
        vocab_size=config.vocab_size,
        decoder=decoder,
        attention_dropout=_first(config, "attention_probs_dropout_prob", "attention_dropout"),
        dropouts=0 if decoder or not _first(config, "hidden_dropout_prob", "dropout") else _state_dropouts(blocks[0]),
        adapters=tuple(_adapters(blocks[0])),
        full_blocks=sum(map(_trains, blocks)),
        trains_norms=any(p.requires_grad for norm in norms_of(blocks[0]) for p in norm.parameters()),
        checkpointed=bool(getattr(model.options, "activation_checkpointing", False)),
        passes=passes_of(model.options),
    )


def _first(config: Any, *names: str) -> float:
    return next((float(getattr(config, name)) for name in names if getattr(config, name, None) is not None), 0.0)


def _state_dropouts(block: nn.Module) -> int:
    """Return the dropped states: BERT's after attention and feed-forward layers, DistilBERT's after the latter."""
    names = [name for name, module in block.named_modules() if isinstance(module, nn.Dropout) and "lora" not in name]
    # the attention's own is on its probabilities
    return sum(name.split(".")[-2:-1] not in (["attention"], ["self"]) for name in names)


def _weights(model: GenreClassifier, block_of: dict[int, int]) -> list[Weight]:
    seen: set[int] = set()
    found = []
    head = {id(parameter) for parameter in model.head.parameters()}
    for module in [*model.backbone.modules(), *model.head.modules()]:
        for parameter in module._parameters.values():
            if parameter is None or id(parameter) in seen:
                continue
            seen.add(id(parameter))
            kind = type(parameter).__name__
            # a built model's NF4 weights are packed, a shape's are not
            packed = getattr(parameter, "quant_state", None)
            numbers = packed.shape.numel() if packed is not None else parameter.numel()
            stored, scales, rows = parameter.numel() * parameter.element_size(), 0, parameter.shape[0]
            if kind == "Params4bit":
                stored = rows = -(-numbers // 2)
                shared = -(-numbers // _NF4_BLOCK)
                scales = shared + 4 * -(-shared // _SCALE_BLOCK)
            elif kind == "Int8Params":
                stored, scales = numbers, 4 * rows
            found.append(
                Weight(
                    numbers=numbers,
                    stored=stored,
                    scales=scales,
                    rows=rows,
                    trained=parameter.requires_grad,
                    quantised=kind in ("Params4bit", "Int8Params"),
                    linear=isinstance(module, nn.Linear),
                    block=block_of.get(id(parameter)),
                    head=id(parameter) in head,
                )
            )
    return found


def _adapted(part: nn.Module) -> list[Any]:
    """Return the layers with an adapter of peft's."""
    return [module for module in part.modules() if "default" in (getattr(module, "lora_A", None) or ())]


def _trains(block: nn.Module) -> bool:
    """Whether a block's own linear layers train; of a layer that peft has wrapped, its `base_layer`."""
    adapted = tuple(f"{name}." for name, module in block.named_modules() if hasattr(module, "base_layer"))
    return any(
        isinstance(module, nn.Linear) and module.weight.requires_grad
        for name, module in block.named_modules()
        if not name.startswith(adapted) or name.endswith(".base_layer")
    )


def _adapters(block: nn.Module) -> list[Adapter]:
    found = []
    for layer in _adapted(block):
        first = layer.lora_A["default"]
        dropout = layer.lora_dropout["default"]
        found.append(
            Adapter(
                inputs=first.in_features,
                rank=first.out_features,
                dropout=dropout.p if isinstance(dropout, nn.Dropout) else 0.0,
                on_nf4=type(layer.base_layer).__name__ == "Linear4bit",
            )
        )
    return found
