"""The options of low-rank and other adapters, and which of them go together."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from genre_lightning.bounds import FRACTION_BELOW_ONE, above, at_least
from genre_lightning.errors import ConfigError

LoraInit = Literal["default", "pissa", "olora", "loftq", "eva"]
Quantization = Literal["none", "nf4", "int8"]


@dataclass
class LoraOptions:
    """Low-rank adapters (Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2021).

    Attributes:
        rank: Rank of the update's matrices.
        alpha: The update is scaled by alpha / rank (alpha / sqrt(rank) with rslora).
        dropout: Dropout on the input of the adapters.
        targets: Names of the linear layers that get one, or "all-linear"; null takes the attention projections.
        rslora: Rank-stabilised scaling.
        dora: Weight-decomposed adapters. They start from the norms of the weights, so that under strategy fsdp too
            the base stands whole on every rank while the model is built.
        init: What the matrices start from: "default" (A random, B zero), "pissa" (the largest singular vectors of the
            weights), "olora" (their QR decomposition), "loftq" (the error of quantising them) or "eva" (A the
            directions in which the layer's inputs vary most on 256 training films, B zero). "pissa", "olora" and
            "loftq" read the weights, as dora does.
        lr_ratio_b: The learning rate of B is that of A times this (LoRA+); 1 for equal rates.
    """

    rank: Annotated[int, at_least(1, 10**5)] = 16
    alpha: Annotated[float, above(0, 1e6)] = 32.0
    dropout: Annotated[float, FRACTION_BELOW_ONE] = 0.05
    targets: list[str] | Literal["all-linear"] | None = None
    rslora: bool = False
    dora: bool = False
    init: LoraInit = "default"
    lr_ratio_b: Annotated[float, above(0, 1e3)] = 1.0

    @property
    def starts_from_weights(self) -> bool:
        """Whether the matrices start from the weights below them."""
        return self.init in ("pissa", "olora", "loftq")

    @property
    def reads_weights(self) -> bool:
        """Whether the weights must be there when the adapters are made."""
        return self.dora or self.starts_from_weights


@dataclass
class AdapterOptions:
    """Adapters of another of peft's methods, in place of LoRA.

    Attributes:
        method: Its name in peft's table, such as IA3, OFT, MISS, VERA, HRA or LOHA.
        arguments: Fields of its configuration: numbers, names, and lists of them; the layers are the attention
            projections if `target_modules` is not given.
    """

    method: str = "IA3"
    arguments: dict[str, Any] = field(default_factory=dict)


def check_lora(options: LoraOptions, quantization: Quantization = "none") -> None:
    """Refuse adapters that have no place or no start; their numbers are checked with the model's own.

    Args:
        options: The adapters.
        quantization: Of the weights below them.

    Raises:
        ConfigError: An option is out of place; the message names it and the fix.
    """
    if options.dora and options.starts_from_weights:
        raise ConfigError(
            f"model.lora.init is {options.init} with model.lora.dora, whose magnitudes start from adapters of zero: "
            "leave one of them out"
        )
    if options.init == "loftq" and quantization == "none":
        raise ConfigError(
            "model.lora.init is loftq, which makes up for the error of quantised weights, and these are not quantised: "
            "set model.lora.init=pissa, or model.quantization=nf4 for a decoder"
        )
    if options.targets is not None and not options.targets:
        raise ConfigError("model.lora.targets is empty: name linear layers, or leave it null for the attention")


def check_one_kind(lora: LoraOptions | None, adapter: AdapterOptions | None, unfreeze: int | None) -> None:
    """Refuse adapters of two kinds, and whole layers beside others than LoRA's.

    Raises:
        ConfigError: Options conflict; the message names them.
    """
    if adapter is not None and lora is not None:
        raise ConfigError("model.lora and model.adapter are both set: a backbone has adapters of one kind, drop one")
    if adapter is not None and unfreeze is not None:
        raise ConfigError("model.unfreeze is for adapters of model.lora, and model.adapter is set: drop one of them")
