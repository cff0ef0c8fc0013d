"""The config.json of a backbone: its shape and nothing else, checked before anything is built from it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genre_lightning.errors import ConfigError, one_line
from genre_lightning.foreign import HOW_TO_GET, model_file, read_object

if TYPE_CHECKING:
    from transformers import PretrainedConfig

_CHOOSES_CODE = frozenset(
    {
        "auto_map", "custom_pipelines", "attn_implementation", "_attn_implementation", "_attn_implementation_internal",
        "experts_implementation", "_experts_implementation", "_experts_implementation_internal", "fusion_config",
        "distributed_config", "kernel_config", "use_kernels", "transformers_weights", "gguf_file", "dtype",
        "torch_dtype",
    }
)  # fmt: skip
"""Settings by which a config.json chooses kernels of the hub, other files or dtypes; all of that is chosen here."""

_SIZES = {
    "num_hidden_layers": 1000, "num_attention_heads": 1 << 16, "num_key_value_heads": 1 << 16, "head_dim": 1 << 16,
    "hidden_size": 1 << 20, "intermediate_size": 1 << 22, "vocab_size": 1 << 24, "type_vocab_size": 1 << 16,
}  # fmt: skip
"""The largest value of each that is believed: beyond it, building the model would take all memory or never end."""

_MAY_BE_ZERO = ("type_vocab_size",)


def read_config(name: str, revision: str | None) -> PretrainedConfig:
    """Return the configuration of a local directory or of a model of the hub.

    Raises:
        ConfigError: It cannot be found, read or used.
    """
    from transformers.utils.hub import extract_commit_hash

    file = model_file(name, "config.json", revision)
    if file is None:
        lack = "has no" if Path(name).is_dir() else "is not in the hub's cache, and the hub gave no"
        raise ConfigError(f"{name!r} {lack} config.json: {HOW_TO_GET.format(name=name)}")
    config = config_of(read_object(file), str(file if Path(name).is_dir() else f"config.json of {name}"))
    config._name_or_path = name
    config._commit_hash = extract_commit_hash(str(file), None)
    return config


def config_of(values: dict[str, Any], place: str) -> PretrainedConfig:
    """Return the configuration that plain values describe, without those that choose what code is run.

    Args:
        values: The content of a config.json.
        place: Where they stand, for messages.

    Raises:
        ConfigError: Its architecture is unknown, quantised already, or its numbers are impossible.
    """
    from transformers import CONFIG_MAPPING

    kind = values.get("model_type")
    if not isinstance(kind, str) or kind not in CONFIG_MAPPING:
        raise ConfigError(
            f"{place} has model_type {kind!r}, which this version of transformers does not know, and a model's own "
            "code is never run: use a backbone that needs none, or update transformers"
        )
    if values.get("quantization_config") or values.get("compression_config"):
        raise ConfigError(f"{place} is of a model that is quantised already: name the plain model it was made from")
    if kind == "mistral" and "layer_types" in values:  # as transformers takes it: its layers attend differently
        kind = "ministral"
    try:
        config = CONFIG_MAPPING[kind].from_dict({**_plain(values), "model_type": kind})
    except Exception as error:  # a validator of each architecture's own
        raise ConfigError(f"{place} cannot be used ({one_line(error)[:160]}): download the model again") from None
    check_sizes(config, place)
    return config


def _plain(values: Any) -> Any:
    if isinstance(values, dict):
        return {name: _plain(value) for name, value in values.items() if name not in _CHOOSES_CODE}
    return [_plain(value) for value in values] if isinstance(values, list) else values


def check_sizes(config: PretrainedConfig, place: str) -> None:
    """Refuse a configuration with impossible numbers.

    Raises:
        ConfigError: With the number.
    """
    for name, most in _SIZES.items():
        value = getattr(config, name, None)
        if value is None or isinstance(value, list):  # one for each layer: checked when the model is built
            continue
        if type(value) is not int or not (0 if name in _MAY_BE_ZERO else 1) <= value <= most:
            raise ConfigError(f"{place} has {name} {value!r}, which cannot be: download the model again")
    for name, value in config.to_dict().items():
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"{place} has {name} {value}, which is not finite: download the model again")
    width, heads = getattr(config, "hidden_size", None), getattr(config, "num_attention_heads", None)
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    if not (isinstance(width, int) and isinstance(heads, int) and isinstance(kv_heads, int)):
        return
    if (width % heads and getattr(config, "head_dim", None) is None) or heads % kv_heads:
        raise ConfigError(
            f"{place} has hidden_size {width}, {heads} attention heads and {kv_heads} key-value heads, which do not "
            "divide: download the model again"
        )


def check_encoder(config: PretrainedConfig, name: str) -> None:
    """Refuse an architecture that is not a text encoder.

    Raises:
        ConfigError: It needs a decoder's input, or does not read text.
    """
    from transformers.models.auto import modeling_auto as auto

    if getattr(config, "is_encoder_decoder", False):
        raise ConfigError(
            f"model.backbone {name} is a {config.model_type}, an encoder-decoder, whose decoder needs a text of its "
            "own: use an encoder, such as distilbert-base-uncased"
        )
    known = (
        auto.MODEL_FOR_TEXT_ENCODING_MAPPING_NAMES, auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES,
        auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES, auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    )  # fmt: skip
    if not any(config.model_type in names for names in known) or not isinstance(
        getattr(config, "hidden_size", None), int
    ):
        raise ConfigError(
            f"model.backbone {name} is a {config.model_type}, which is not a text encoder: use one, such as "
            "distilbert-base-uncased"
        )
