"""Adapters of any of peft's methods beside LoRA, by the method's name and plain arguments."""

from __future__ import annotations

import dataclasses
import importlib.util
import re
from typing import Any

import torch
from torch import nn

from genre_lightning.config.adapters import AdapterOptions, Quantization
from genre_lightning.errors import ConfigError, one_line
from genre_lightning.models.lora import attention_layers

_ALONE = "cannot be built without weights, so that no memory is planned for it"
_NOT_HERE = {
    "LORA": "is model.lora, which has all that it needs here",
    "ADALORA": "changes its ranks while it trains, which a resumed run would not repeat",
    "OSF": "decomposes the base itself, of which a checkpoint holds nothing",
    "ADAPTION_PROMPT": "is for language models with a head of their own",
    "LN_TUNING": "trains the norms, which model.unfreeze=0 does beside model.lora",
    "SHIRA": "trains weights that it draws, of which a checkpoint does not hold the places",
    "POLY": "needs a task for each text",
    "SHADOW": "puts a second model beside the backbone",
    "TRAINABLE_TOKENS": "trains embeddings of named tokens, and no layer",
    "XLORA": "loads adapters from files",
    "ADAMSS": _ALONE, "BOFT": _ALONE, "FROD": _ALONE, "UNILORA": _ALONE,
}  # fmt: skip
"""Methods of peft's that are refused, and why."""

_OF_PEFT = ("task_type", "peft_type", "auto_mapping", "base_model_name_or_path", "revision", "peft_version",
            "inference_mode", "modules_to_save", "init_weights")  # fmt: skip
"""Arguments that peft or this package sets, or that would have whole layers trained."""

_PLAIN = re.compile(r"[\w.-]+")
"""Names: peft takes other texts for regular expressions."""

_LARGEST = 10**5
"""The largest number of an argument: some are numbers of layers or terms, which would never end."""


def methods() -> list[str]:
    """List the methods that may be named: peft's own table, without prompts, which are not layers, and some others."""
    from peft import PromptLearningConfig
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    table = {kind.value: config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items()}
    return sorted(
        n for n, config in table.items() if n not in _NOT_HERE and not issubclass(config, PromptLearningConfig)
    )


def check_adapter(options: AdapterOptions, quantization: Quantization = "none") -> None:
    """Refuse a method that may not be named or cannot work, and arguments that are not plain values of its own.

    Args:
        options: Of the adapter.
        quantization: Of the weights below it.

    Raises:
        ConfigError: With the option and the fix.
    """
    method, known = options.method.upper(), methods()
    if reason := _NOT_HERE.get(method):
        raise ConfigError(f"model.adapter.method {method} {reason}: choose one of {', '.join(known)}")
    if method not in known:
        raise ConfigError(f"model.adapter.method is {options.method}: choose one of {', '.join(known)}")
    config = _config_class(method)
    own = {field.name: field for field in dataclasses.fields(config) if field.init and _may_be_set(field)}
    for name, value in options.arguments.items():
        if name not in own:
            raise ConfigError(
                f"model.adapter.arguments.{name} is not an argument of {method} that may be set: use one of "
                f"{', '.join(sorted(own))}"
            )
        if not all(_is_plain(item) for item in (value if isinstance(value, list) else [value])):
            raise ConfigError(
                f"model.adapter.arguments.{name} is {value!r}: give numbers up to {_LARGEST:,}, plain names, or a list "
                "of them"
            )
        default = own[name].default
        if isinstance(default, bool | int | float | str) and isinstance(default, str) != isinstance(value, str):
            kind = "a name" if isinstance(default, str) else "a number"
            raise ConfigError(
                f"model.adapter.arguments.{name} is {value!r}: give {kind}, such as {method}'s own {default!r}"
            )
    package = config.__module__.rpartition(".")[0]
    if quantization != "none" and importlib.util.find_spec(f"{package}.bnb") is None:
        raise ConfigError(
            f"model.adapter.method {method} has no layers over weights in {quantization}: set model.quantization=none, "
            "or use model.lora"
        )


def _may_be_set(field: dataclasses.Field[Any]) -> bool:
    return field.name not in _OF_PEFT and field.default_factory is not dict  # mappings from regular expressions


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):
        return bool(_PLAIN.fullmatch(value))
    return isinstance(value, bool | int | float) and abs(value) <= _LARGEST


def _config_class(method: str) -> Any:
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    return next(config for kind, config in PEFT_TYPE_TO_CONFIG_MAPPING.items() if kind.value == method)


def add_adapter(backbone: nn.Module, options: AdapterOptions, model_type: str, seed: int) -> tuple[Any, frozenset[str]]:
    """Freeze the backbone and put the adapters of a method on it, those that train in float32.

    Args:
        backbone: With its weights.
        options: As `check_adapter` has passed them.
        model_type: transformers' name of its family.
        seed: Of the adapters' first values.

    Returns:
        The backbone with adapters, and the names of their parameters and persistent buffers, trained or not.

    Raises:
        ConfigError: The arguments do not fit the backbone.
    """
    from peft import get_peft_model

    method = options.method.upper()
    config_class = _config_class(method)
    fields = {field.name for field in dataclasses.fields(config_class)}
    arguments = dict(options.arguments)
    if "target_modules" in fields:
        arguments.setdefault("target_modules", attention_layers(model_type, "model.adapter.arguments.target_modules"))
    if "feedforward_modules" in fields:
        arguments.setdefault("feedforward_modules", [])
    before = {id(tensor) for tensor in (*backbone.parameters(), *backbone.buffers())}
    # values of their own generator: the head's do not depend on the method
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            wrapped = get_peft_model(backbone, config_class(**arguments))
        except Exception as error:  # whatever the method makes of its arguments
            raise ConfigError(
                f"model.adapter.method {method} does not fit {model_type} so ({one_line(error)[:150]}): "
                "change model.adapter.arguments"
            ) from error
    for parameter in wrapped.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()  # a loss scaler refuses half-precision trainables
    added = {name for name, p in wrapped.named_parameters() if id(p) not in before}
    buffers = {name for name, b in wrapped.named_buffers(remove_duplicate=False) if id(b) not in before}
    return wrapped, frozenset(added | (buffers & set(wrapped.state_dict())))


def merge_adapter(backbone: Any, dtype: torch.dtype) -> nn.Module:
    """Merge the adapters into weights that are not quantised, in place.

    Raises:
        ConfigError: The method has no such form.
    """
    try:
        return backbone.merge_and_unload().to(dtype)
    except (NotImplementedError, AttributeError, ValueError) as error:
        method = backbone.peft_config["default"].peft_type.value
        raise ConfigError(f"adapters of {method} do not merge ({one_line(error)[:120]}): leave out --merge") from error
