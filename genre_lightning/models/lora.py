"""LoRA on a backbone's attention through peft, which is imported only where adapters are asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import nn

from genre_lightning.config.model import LoraOptions
from genre_lightning.errors import ConfigError, one_line

__all__ = ["LoraOptions", "add_lora", "merge_adapters", "trained_size"]

# attention projections, by the names that the families of encoders and decoders give them
_ATTENTION = {
    "distilbert": ["q_lin", "v_lin"],
    "bert": ["query", "value"],
    "roberta": ["query", "value"],
    "xlm-roberta": ["query", "value"],
    "electra": ["query", "value"],
    "deberta-v2": ["query_proj", "value_proj"],
    "deberta": ["in_proj"],
    "modernbert": ["Wqkv"],
    "llama": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "mistral": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "qwen2": ["q_proj", "k_proj", "v_proj", "o_proj"],
    "qwen3": ["q_proj", "k_proj", "v_proj", "o_proj"],
}


def add_lora(backbone: nn.Module, options: LoraOptions, model_type: str) -> nn.Module:
    """Freezes the backbone and puts trainable float32 adapters on it.

    Raises:
        ConfigError: no layer has one of the target names.
    """
    from peft import LoraConfig, get_peft_model

    targets = options.targets or _ATTENTION.get(model_type)
    if not targets:
        raise ConfigError(f"no attention layers are known for {model_type!r}: name them with model.lora.targets")
    # no task_type: with one, peft wraps the head too and decides for itself what trains
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=targets,
        use_rslora=options.rslora,
        use_dora=options.dora,
    )
    try:
        wrapped = get_peft_model(backbone, config)
    except ValueError as error:
        raise ConfigError(
            f"model.lora.targets {targets} fits no layer of {model_type} ({one_line(error)[:120]})"
        ) from error
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # a loss scaler refuses half-precision trainables
    return wrapped


def merge_adapters(backbone: Any, dtype: torch.dtype) -> nn.Module:
    """Merges the adapters of a backbone into its weights, brought back from their quantised form, in place.

    The update is added in float32 and the sum rounded once, so that the merged model computes what the adapters
    did, to the precision of `dtype`.

    Args:
        backbone: what `add_lora` gave; it is used up.
        dtype: of the merged weights.

    Returns:
        the backbone without adapters.
    """
    from peft.tuners.lora import LoraLayer

    model = backbone.base_model.model
    for path, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            model.set_submodule(path, _merged(module, dtype))
    for path, module in list(model.named_modules()):
        if type(module).__name__ in ("Linear4bit", "Linear8bitLt"):
            model.set_submodule(path, _linear(_plain_weight(module), module.bias, dtype))
    for name in ("is_loaded_in_4bit", "is_loaded_in_8bit", "hf_quantizer", "is_quantized", "quantization_method"):
        if name in vars(model):
            delattr(model, name)
    if hasattr(model.config, "quantization_config"):
        del model.config.quantization_config
    return model.to(dtype)


def _merged(layer: Any, dtype: torch.dtype) -> nn.Linear:
    base = layer.base_layer
    weight = _plain_weight(base)
    update = _update(layer).to(weight.device)
    if layer.use_dora.get("default", False):
        magnitude = layer.lora_magnitude_vector["default"].weight.float().to(weight.device)
        weight = weight + update
        weight = weight * (magnitude / weight.norm(dim=1))[:, None]
    else:
        weight = weight + update
    return _linear(weight, base.bias, dtype)


def _update(layer: Any) -> torch.Tensor:
    low, high = layer.lora_A["default"].weight.float(), layer.lora_B["default"].weight.float()
    return (high @ low) * layer.scaling["default"]


def _plain_weight(linear: Any) -> torch.Tensor:
    """A linear layer's weight in float32, with the values that it computes with."""
    kind = type(linear).__name__
    if kind == "Linear4bit":
        from bitsandbytes.functional import dequantize_4bit

        return dequantize_4bit(linear.weight.data, linear.weight.quant_state).float()
    if kind == "Linear8bitLt":
        scale = linear.weight.SCB if linear.weight.SCB is not None else linear.state.SCB
        values = linear.weight.data if linear.state.CB is None else linear.state.CB
        return values.float() * (scale.float()[:, None] / 127)
    return linear.weight.data.float()


def _linear(weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    linear.weight = nn.Parameter(weight.to(dtype), requires_grad=False)
    if bias is not None:
        linear.bias = nn.Parameter(bias.data.to(dtype), requires_grad=False)
    return linear


def trained_size(shapes: Iterable[tuple[int, int]], rank: int) -> int:
    """Numbers that LoRA trains in linear layers of these (outputs, inputs)."""
    return sum(rank * (outputs + inputs) for outputs, inputs in shapes)
