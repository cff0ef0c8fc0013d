"""A backbone of the hub or of a local directory: found, checked, and loaded from its weights alone."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lightning.pytorch.utilities.rank_zero import rank_zero_only

from genre_lightning.distributed.sharded import transformer_blocks
from genre_lightning.errors import ConfigError, one_line
from genre_lightning.foreign import check_folder
from genre_lightning.models.backbone_config import check_encoder, read_config
from genre_lightning.models.base_weights import StoredWeights, WeightReport, sorted_out, weight_files
from genre_lightning.models.published import published_config
from genre_lightning.progress import say

if TYPE_CHECKING:
    from torch import nn
    from transformers import PretrainedConfig, PreTrainedModel


def backbone_config(name: str, revision: str | None, *, weights: bool = True) -> PretrainedConfig:
    """Return the configuration of a backbone.

    Args:
        name: Local directory or model of the hub.
        revision: Commit or tag on the hub.
        weights: Whether the weights are needed too; for a shape alone, published ones are known.

    Raises:
        ConfigError: It cannot be found or used.
    """
    check_folder(name, weights=weights)
    published = None if weights or Path(name).is_dir() or revision else published_config(name)
    try:
        return published or read_config(name, revision)
    except ConfigError as error:
        raise ConfigError(f"model.backbone {name!r} cannot be loaded: {error}") from None


def check_backbone(
    name: str, revision: str | None, config: PretrainedConfig, max_tokens: int | None, *, weights: bool = True
) -> WeightReport | None:
    """Check that an encoder can be built, that texts fit it, and that its weights do; none are read.

    Args:
        name: Local directory or model of the hub.
        revision: Commit or tag on the hub.
        config: As `backbone_config` returns it.
        max_tokens: Of a text.
        weights: Whether its weights are needed too.

    Returns:
        How the weights fit; None if they are not needed, or not here yet.

    Raises:
        ConfigError: With the first problem.
    """
    check_encoder(config, name)
    files = weight_files(name, revision, fetch=False) if weights else []
    report = None
    if files:
        model, report = _filled(name, config, StoredWeights(name, files), read=False)
        report.require(name)
    else:
        model = empty_shape(config, "AutoModel", name)
    check_positions(model, name, max_tokens)
    return report


def check_positions(model: PreTrainedModel, name: str, max_tokens: int | None) -> None:
    """Refuse texts that are longer than a backbone has positions for.

    Raises:
        ConfigError: With the number that it has.
    """
    positions = positions_of(model)
    if max_tokens and positions and max_tokens > positions:
        raise ConfigError(
            f"data.max_tokens is {max_tokens}, but {name} has {positions} positions: set data.max_tokens={positions}"
        )


def positions_of(model: PreTrainedModel) -> int | None:
    """Return the most tokens that a text may have, special ones included; None if there is no limit."""
    import torch

    positions = getattr(model.config, "max_position_embeddings", None)
    if not isinstance(positions, int) or positions < 1:
        return None
    for name, module in model.named_modules():
        # a table with a padding index numbers the positions from behind it, as RoBERTa's and its kin's do
        if isinstance(module, torch.nn.Embedding) and "position" in name and module.num_embeddings == positions:
            return positions if module.padding_idx is None else positions - module.padding_idx - 1
    return positions


def check_vocabulary(tokens: int, config: PretrainedConfig, name: str) -> None:
    """Refuse a tokenizer with more tokens than the backbone has embeddings for.

    Raises:
        ConfigError: With both numbers.
    """
    if tokens > config.vocab_size:
        raise ConfigError(
            f"the tokenizer has {tokens:,} tokens and {name} knows {config.vocab_size:,}: leave data.tokenizer out to "
            "use the backbone's own; if tokens were added to that, resize the model with resize_token_embeddings and "
            "save it again"
        )


def set_dropout(config: PretrainedConfig, dropout: float | None) -> None:
    """Set every dropout that a backbone's configuration has; None leaves them."""
    if dropout is None:
        return
    for name, value in config.to_dict().items():
        if ("dropout" in name or name.endswith("pdrop")) and isinstance(value, int | float):
            setattr(config, name, float(dropout))


def load_backbone(name: str, revision: str | None, config: PretrainedConfig) -> PreTrainedModel:
    """Return the pretrained encoder in float32, without a pooler that nothing would use.

    Nothing but the weights' own files is looked at: transformers' loader would take adapters, kernels and pickles too.

    Raises:
        ConfigError: The weights cannot be loaded, or are of another model.
    """
    model, report = _filled(name, config, StoredWeights(name, weight_files(name, revision)), read=True)
    report.require(name)
    return model


def load_masked_model(name: str, revision: str | None, config: PretrainedConfig) -> PreTrainedModel:
    """Return the pretrained encoder with its head over words, in float32; see `load_backbone`.

    Weights of the head that are not stored are drawn at random.

    Raises:
        ConfigError: The weights cannot be loaded, or are of another model.
    """
    stored = StoredWeights(name, weight_files(name, revision))
    model, report = _filled(name, config, stored, read=True, auto_class="AutoModelForMaskedLM")
    of_encoder = tuple(key for key in report.missing if key.startswith(f"{model.base_model_prefix}."))
    replace(report, missing=of_encoder, unexpected=()).require(name)
    if new := len(report.missing) - len(of_encoder):
        rank_zero_only(say)(f"{new:,} weights of the head over words are not stored with {name}, and start at random")
    return model


def _filled(
    name: str, config: PretrainedConfig, stored: StoredWeights, *, read: bool, auto_class: str = "AutoModel"
) -> tuple[PreTrainedModel, WeightReport]:
    """Return an encoder with its stored weights, and how they fit; without `read` all of it takes no memory."""
    import torch

    # float32 named: the default takes the file's dtype, and half weights cannot be trained under a loss scaler
    weights = {
        key: stored.tensor(key, torch.float32) if read else torch.empty(shape, dtype=torch.float32, device="meta")
        for key, shape in stored.shapes.items()
    }
    try:
        with QuietLoading():
            model, found = _model_class(config, auto_class).from_pretrained(
                None,
                config=config,
                state_dict=weights,
                dtype=torch.float32,
                device_map=None if read else "meta",
                ignore_mismatched_sizes=True,  # reported with the rest
                output_loading_info=True,
                **(_no_pooler(config) if auto_class == "AutoModel" else {}),
            )
    except Exception as error:  # whatever the architecture makes of its numbers
        raise _unbuildable(name, error) from None
    if found["error_msgs"]:
        raise _unbuildable(name, found["error_msgs"][0])
    unexpected, left_out = sorted_out(found["unexpected_keys"], model)
    report = WeightReport(
        wanted=len(list(model.parameters())),
        # a pooler that the architecture cannot do without is not used
        missing=tuple(sorted(key for key in found["missing_keys"] if not key.startswith("pooler."))),
        misfits=tuple(f"{key}: {tuple(has)}, not {tuple(wants)}" for key, has, wants in found["mismatched_keys"]),
        unexpected=unexpected,
        left_out=left_out,
    )
    return model, report


def empty_shape(config: PretrainedConfig, auto_class: str, name: str) -> PreTrainedModel:
    """Return a model of a configuration whose weights take no memory.

    Args:
        config: Of the model.
        auto_class: transformers' class that chooses the model's, such as "AutoModel".
        name: Of the model, for messages.

    Raises:
        ConfigError: It cannot be built.
    """
    import torch

    options = _no_pooler(config) if auto_class == "AutoModel" else {}
    try:
        with torch.device("meta"), QuietLoading():
            return _model_class(config, auto_class)._from_config(copy.deepcopy(config), dtype=torch.float32, **options)
    except Exception as error:
        raise _unbuildable(name, error) from None


def _unbuildable(name: str, error: object) -> ConfigError:
    return ConfigError(
        f"no model can be built from the config.json of {name!r} ({one_line(error)[:160]}): download the model again"
    )


def empty_backbone(config: PretrainedConfig, auto_class: str = "AutoModel") -> PreTrainedModel:
    """Return the encoder of a configuration with random weights, in float32; see `empty_shape`."""
    import torch

    options = _no_pooler(config) if auto_class == "AutoModel" else {}
    return _model_class(config, auto_class)._from_config(config, dtype=torch.float32, **options)


def _model_class(config: PretrainedConfig, auto_class: str) -> Any:
    import transformers

    found: Any = getattr(transformers, auto_class)._model_mapping[type(config)]
    return found[0] if isinstance(found, list | tuple) else found


def _no_pooler(config: PretrainedConfig) -> dict[str, Any]:
    """Return the keyword that leaves the pooler out, for the model classes that have one."""
    import inspect

    takes_it = "add_pooling_layer" in inspect.signature(_model_class(config, "AutoModel")).parameters
    return {"add_pooling_layer": False} if takes_it else {}


def checkpoint_activations(backbone: PreTrainedModel) -> None:
    """Have a backbone keep only the states between its layers, and compute the rest again in the backward pass.

    Raises:
        ConfigError: Its architecture cannot.
    """
    if not getattr(backbone, "supports_gradient_checkpointing", False):
        raise ConfigError(
            f"model.activation_checkpointing is true, which a {type(backbone).__name__} cannot: leave it out"
        )
    # the reentrant kind sees no gradient at a frozen input, and would train nothing; by position, as the method and
    # its argument have been renamed
    enable: Any = getattr(backbone, "activation_checkpointing_enable", backbone.gradient_checkpointing_enable)
    enable({"use_reentrant": False})


def compile_blocks(backbone: nn.Module) -> None:
    """Compile each transformer block, in place, into a graph that serves any number of tokens.

    What is around a block, such as the gathering of its shards or the recomputation of its states, stays outside, and
    its weights keep their names.
    """
    import torch

    for block in transformer_blocks(backbone):
        block.forward = torch.compile(block.forward, dynamic=True)


def unreached_weights(backbone: nn.Module, name: str) -> dict[str, nn.Parameter]:
    """Return the weights that train, but that a text's states do not depend on, by their names.

    Args:
        backbone: On the host; a short text goes through it and back.
        name: Of the model, for messages.

    Raises:
        ConfigError: It cannot read a text.
    """
    import torch

    training = backbone.training
    text = torch.arange(_PROBE_TOKENS)[None] % backbone.get_input_embeddings().num_embeddings  # type: ignore[operator]
    try:
        with torch.enable_grad(), torch.random.fork_rng(devices=[]):
            states = backbone.eval()(input_ids=text, attention_mask=torch.ones_like(text)).last_hidden_state
            states.sum().backward()
    except Exception as error:  # whatever the architecture asks for besides a text
        raise ConfigError(
            f"model.backbone {name} cannot read a text ({one_line(error)[:160]}): use a text encoder, such as "
            "distilbert-base-uncased"
        ) from error
    unreached = {n: p for n, p in backbone.named_parameters() if p.requires_grad and p.grad is None}
    backbone.zero_grad(set_to_none=True)
    backbone.train(training)
    return unreached


_PROBE_TOKENS = 8


class QuietLoading:
    """Hides transformers' list of the parts of a checkpoint that the encoder leaves out, and its progress bars.

    The list is expected and long. It may be entered within itself.
    """

    def __enter__(self) -> None:
        from transformers.utils import logging

        self.before, self.bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *unused: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self.before)
        if self.bars:
            logging.enable_progress_bar()
