"""Finding and loading a backbone of the hub or of a local directory, with errors that say the cure."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from genre_lightning.errors import ConfigError, one_line
from genre_lightning.models.published import published_config

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedModel

HOW_TO_GET = (
    "name a local directory that holds config.json, model.safetensors and the tokenizer's files, or, on a machine "
    "with network, run 'hf download {name}' once (log in first with 'hf auth login' where the model asks for its "
    "licence to be accepted)"
)


def check_folder(name: str, *, weights: bool = True) -> None:
    """What can be told of a backbone in a local directory without reading it; of one of the hub nothing.

    Args:
        name: model of the hub or local directory.
        weights: whether the weights are needed too.

    Raises:
        ConfigError: a path without a directory, or a directory without a model.
    """
    path = Path(name)
    if path.is_dir():
        if not (path / "config.json").is_file():
            raise ConfigError(f"model.backbone {name} has no config.json: {HOW_TO_GET.format(name='NAME')}")
        if weights and not any(path.glob("*.safetensors")):
            raise ConfigError(
                f"model.backbone {name} has no .safetensors weights (other formats can run code and are not read): "
                "save the model again with save_pretrained"
            )
    elif name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise ConfigError(f"model.backbone {name} is no directory: {HOW_TO_GET.format(name='NAME')}")


def check_backbone(
    name: str, revision: str | None, max_tokens: int | None, *, weights: bool = True
) -> PretrainedConfig:
    """The configuration of a backbone, after a look whether its weights are there too; nothing large is read.

    Args:
        name: model of the hub or local directory.
        revision: commit or tag on the hub.
        max_tokens: of a text.
        weights: whether the weights are needed too; for a shape alone, published ones are known.

    Raises:
        ConfigError: neither a directory with a model nor reachable, or with fewer positions than `max_tokens`.
    """
    from transformers import AutoConfig

    check_folder(name, weights=weights)
    try:
        published = None if weights or Path(name).is_dir() or revision else published_config(name)
        config = published or AutoConfig.from_pretrained(name, revision=revision, trust_remote_code=False)
    except Exception as error:  # a dozen kinds, by what is missing
        raise ConfigError(
            f"model.backbone {name!r} cannot be loaded ({one_line(error)[:160]}): {HOW_TO_GET.format(name=name)}"
        ) from error
    positions = getattr(config, "max_position_embeddings", None)
    if getattr(config, "model_type", "") in ("roberta", "xlm-roberta", "camembert") and positions:
        positions -= config.pad_token_id + 1  # their positions start after the pad token's id
    if max_tokens and positions and max_tokens > positions:
        raise ConfigError(
            f"data.max_tokens is {max_tokens}, but {name} has {positions} positions: set data.max_tokens={positions}"
        )
    return config


def hub_is_offline() -> bool:
    """Whether the user has told the hub's client to stay off the network."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in ("1", "ON", "YES", "TRUE")


def set_dropout(config: PretrainedConfig, dropout: float | None) -> None:
    """Sets every dropout that a backbone's configuration has; None leaves them."""
    if dropout is None:
        return
    for name, value in config.to_dict().items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, int | float):
            setattr(config, name, float(dropout))


def load_backbone(name: str, revision: str | None, config: PretrainedConfig) -> PreTrainedModel:
    """The pretrained encoder in float32, without a pooler that nothing would use.

    Raises:
        ConfigError: the weights cannot be loaded.
    """
    import torch
    from transformers import AutoModel

    try:
        with QuietLoading():
            # float32 named: the default takes the file's dtype, and half weights cannot be trained under a loss scaler
            return AutoModel.from_pretrained(
                name,
                revision=revision,
                config=config,
                dtype=torch.float32,
                use_safetensors=True,
                trust_remote_code=False,
                **_no_pooler(config),
            )
    except OSError as error:
        raise ConfigError(
            f"the weights of {name!r} cannot be loaded ({one_line(error)[:160]}): {HOW_TO_GET.format(name=name)}"
        ) from error


def empty_backbone(config: PretrainedConfig) -> PreTrainedModel:
    """The encoder of a configuration with random weights, in float32."""
    import torch
    from transformers import AutoModel

    return AutoModel.from_config(config, dtype=torch.float32, trust_remote_code=False, **_no_pooler(config))


def _no_pooler(config: PretrainedConfig) -> dict[str, Any]:
    """The keyword that leaves the pooler out, for the model classes that have one."""
    import inspect

    from transformers import AutoModel

    model_class: Any = AutoModel._model_mapping[type(config)]
    takes_it = "add_pooling_layer" in inspect.signature(model_class).parameters
    return {"add_pooling_layer": False} if takes_it else {}


def checkpoint_activations(backbone: PreTrainedModel) -> None:
    """Has a backbone keep only the states between its layers, and compute the rest again in the backward pass.

    Raises:
        ConfigError: its architecture cannot.
    """
    if not getattr(backbone, "supports_gradient_checkpointing", False):
        raise ConfigError(
            f"model.activation_checkpointing is true, which a {type(backbone).__name__} cannot: leave it out"
        )
    # the reentrant kind sees no gradient at a frozen input, and would train nothing; by position, as the method and
    # its argument have been renamed
    enable: Any = getattr(backbone, "activation_checkpointing_enable", backbone.gradient_checkpointing_enable)
    enable({"use_reentrant": False})


class QuietLoading:
    """Hides transformers' list of the parts of a checkpoint that the encoder leaves out: expected, and long."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self.before = logging.get_verbosity()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *unused: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self.before)
        logging.enable_progress_bar()
