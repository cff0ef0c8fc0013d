"""LoRA on a backbone's attention through peft, which is imported only if adapters are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from genre_lightning.config.adapters import LoraInit, LoraOptions
from genre_lightning.errors import ConfigError, one_line
from genre_lightning.models.unfreeze import pattern_of, top_blocks
from genre_lightning.models.unfreeze import unfreeze as unfreeze_layers

__all__ = ["START", "LoraOptions", "adapted_layers", "add_lora", "fold_start", "merge_adapters", "trained_size"]

START = "start"
"""Name of the frozen adapter that takes away what adapters of PiSSA and OLoRA add at their start."""

ITERATIONS = 16
"""Of the randomised SVD; its singular values are then right to the digits of float32."""

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


def attention_layers(model_type: str, option: str) -> list[str]:
    """Return the names of a family's attention projections.

    Raises:
        ConfigError: They are not known; with the option that may name them.
    """
    if model_type not in _ATTENTION:
        raise ConfigError(f"no attention layers are known for {model_type!r}: name them with {option}")
    return _ATTENTION[model_type]


def add_lora(
    backbone: nn.Module,
    options: LoraOptions,
    model_type: str,
    *,
    weight_of: Callable[[str, torch.Size], torch.Tensor] | None = None,
    unfreeze: int | None = None,
    shape_only: bool = False,
) -> nn.Module:
    """Freeze the backbone and put trainable float32 adapters on it.

    Args:
        backbone: With its weights, if the adapters start from them.
        options: Of the adapters.
        model_type: transformers' name of its family.
        weight_of: The weight of a name and shape before it was quantised.
        unfreeze: Top blocks that get no adapters and train in full, as all norms then do; None freezes everything.
        shape_only: Leave the adapters' values as they come.

    Raises:
        ConfigError: No layer has one of the target names, or none is left for an adapter.
    """
    from peft import LoraConfig, get_peft_model

    targets = options.targets or attention_layers(model_type, "model.lora.targets")
    # no task_type: with one, peft wraps the head too and decides for itself what trains
    config = LoraConfig(
        r=options.rank,
        lora_alpha=options.alpha,
        lora_dropout=options.dropout,
        target_modules=targets,
        use_rslora=options.rslora,
        use_dora=options.dora,
        exclude_modules=pattern_of(backbone, top_blocks(backbone, unfreeze)) if unfreeze else None,
    )
    try:
        wrapped = get_peft_model(backbone, config)
    except ValueError as error:
        raise ConfigError(
            f"model.lora.targets {targets} fits no layer of {model_type} ({one_line(error)[:120]})"
        ) from error
    if unfreeze is not None:
        unfreeze_layers(backbone, unfreeze)
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # a loss scaler refuses half-precision trainables
    with torch.random.fork_rng(devices=[]):  # the head's values do not depend on the start of the adapters
        if options.init in ("pissa", "olora"):
            _add_start(wrapped, replace(config, lora_dropout=0.0))
        if options.starts_from_weights and not shape_only:
            for name, layer in adapted_layers(wrapped):
                _start(layer, options.init, name.removeprefix("base_model.model."), weight_of)
    return wrapped


def adapted_layers(wrapped: nn.Module) -> list[tuple[str, Any]]:
    """Return the layers that have an adapter of LoRA, with their names."""
    from peft.tuners.lora import LoraLayer

    return [(name, module) for name, module in wrapped.named_modules() if isinstance(module, LoraLayer)]


def _add_start(wrapped: Any, config: Any) -> None:
    """Add frozen adapters, which will subtract what the trained ones start from.

    PiSSA and OLoRA subtract it from the weights. As an adapter it leaves the base as it is, also a quantised or sharded
    one, and a checkpoint holds it: a resumed run need not decompose the weights to the same bits again.
    """
    wrapped.add_adapter(START, config)
    wrapped.base_model.set_adapter(["default", START])
    for name, parameter in wrapped.named_parameters():
        if is_start(name):
            parameter.data, parameter.requires_grad = parameter.data.float(), False


def is_start(name: str) -> bool:
    """Return whether a parameter is of an adapter that `add_lora` has frozen, but belongs in a checkpoint."""
    return f".{START}." in name


@torch.no_grad()
def _start(layer: Any, init: LoraInit, name: str, weight_of: Callable[[str, torch.Size], torch.Tensor] | None) -> None:
    """Give an adapter its first values, of weights that are there.

    Meng et al., "PiSSA", 2024; Büyükakyüz, "OLoRA", 2024; Li et al., "LoftQ", 2023, with one iteration, which leaves
    the quantised weights as they are.
    """
    weight = _plain_weight(layer.base_layer)
    low, high = layer.lora_A["default"].weight, layer.lora_B["default"].weight
    rank, scaling = min(layer.r["default"], *weight.shape), layer.scaling["default"]
    if init == "olora":
        q, r = torch.linalg.qr(weight)
        first, second = r[:rank], q[:, :rank]
    else:
        if init == "loftq":
            assert weight_of is not None
            weight = weight_of(f"{name}.weight", weight.shape).to(weight) - weight
        left, values, right = torch.svd_lowrank(weight, q=min(rank + 8, *weight.shape), niter=ITERATIONS)
        root = (values[:rank] / scaling).sqrt()
        first, second = (right[:, :rank] * root).T, left[:, :rank] * root
    low.zero_()[:rank] = first
    high.zero_()[:, :rank] = second
    if init != "loftq":
        layer.lora_A[START].weight.copy_(low)
        layer.lora_B[START].weight.copy_(-high)


def fold_start(backbone: Any) -> None:
    """Make of each adapter and the start that is subtracted from it one adapter of twice the rank, in place.

    Args:
        backbone: What `add_lora` gave; without such starts it stays as it is.
    """
    if START not in backbone.peft_config:
        return
    for _, layer in adapted_layers(backbone):
        low, high = ([part[name].weight.data for name in ("default", START)] for part in (layer.lora_A, layer.lora_B))
        layer.lora_A["default"].weight = nn.Parameter(torch.cat(low), requires_grad=False)
        layer.lora_B["default"].weight = nn.Parameter(torch.cat(high, dim=1), requires_grad=False)
        layer.r["default"] *= 2
        scaling = layer.scaling["default"]
    backbone.delete_adapter(START)
    config = backbone.peft_config["default"]
    config.r *= 2
    config.lora_alpha, config.use_rslora = scaling * config.r, False


def merge_adapters(backbone: Any, dtype: torch.dtype) -> nn.Module:
    """Merge the adapters of a backbone into its weights, brought back from their quantised form, in place.

    The update is added in float32 and the sum rounded once, so that the merged model computes what the adapters
    did, to the precision of `dtype`.

    Args:
        backbone: What `add_lora` gave; it is used up.
        dtype: Data type of the merged weights.

    Returns:
        The backbone without adapters.
    """
    from peft.tuners.lora import LoraLayer

    fold_start(backbone)
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
    """Return a linear layer's weight in float32, with the values that it computes with."""
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
    """Return the numbers that LoRA trains in linear layers of these (outputs, inputs)."""
    return sum(rank * (outputs + inputs) for outputs, inputs in shapes)
