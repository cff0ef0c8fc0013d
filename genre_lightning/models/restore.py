"""From a checkpoint to a model with its weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from genre_lightning.distributed import sharded
from genre_lightning.errors import CheckpointError, ConfigError
from genre_lightning.models.backbones import empty_shape
from genre_lightning.models.base import GenreClassifier
from genre_lightning.models.metadata import CheckpointMetadata
from genre_lightning.vocabulary import vocabulary_size

if TYPE_CHECKING:
    from transformers import PretrainedConfig, PreTrainedTokenizerBase


def restore_weights(model: GenreClassifier, checkpoint: Path) -> CheckpointMetadata:
    """Build the model and put a checkpoint's trained weights into it.

    Returns:
        The checkpoint's metadata.

    Raises:
        CheckpointError: Missing, damaged, or of another model.
    """
    return _restore(model, checkpoint, sharded.open_checkpoint(checkpoint))


def restore_alone(
    model: GenreClassifier, checkpoint: Path, *, tokenizer: PreTrainedTokenizerBase
) -> CheckpointMetadata:
    """Build the model of a checkpoint from that alone, without the films that it was trained on.

    Args:
        model: As configured.
        checkpoint: Of it.
        tokenizer: Of the run.

    Returns:
        The checkpoint's metadata.

    Raises:
        CheckpointError: Missing, damaged, or of another model.
    """
    content = sharded.open_checkpoint(checkpoint)
    metadata = CheckpointMetadata.of(content, checkpoint)
    if (tokens := vocabulary_size(tokenizer)) > metadata.vocab_size:
        raise CheckpointError(
            f"the run's tokenizer has {tokens:,} tokens and its model was trained with {metadata.vocab_size:,}: "
            "copy the run directory whole"
        )
    model.bind(metadata.spec(tokenizer), np.array(metadata.pos_weight, dtype=np.float32))
    return _restore(model, checkpoint, content)


def _restore(model: GenreClassifier, checkpoint: Path, content: dict[str, Any]) -> CheckpointMetadata:
    metadata = CheckpointMetadata.of(content, checkpoint)
    model.read_metadata(metadata)
    config = getattr(model, "backbone_config", None)
    if config is not None and not model.adapters:
        _check_shapes(checkpoint, content["state_dict"], config)
    model.configure_model()
    model.on_load_checkpoint(content)
    sharded.restore_weights(model, checkpoint, content)
    return metadata


def _check_shapes(checkpoint: Path, weights: dict[str, Any], config: PretrainedConfig) -> None:
    """Refuse a checkpoint whose backbone is not what it says, before memory is taken for that.

    Raises:
        CheckpointError: Naming the first weight that differs.
    """
    try:
        backbone = empty_shape(config, "AutoModel", "the checkpoint")
    except ConfigError as error:
        raise CheckpointError(f"{checkpoint} cannot be used: {error}") from None
    for name, parameter in backbone.named_parameters():
        stored = weights.get(f"backbone.{name}")
        if stored is None or stored.shape != parameter.shape:
            raise CheckpointError(
                f"{checkpoint} is of another shape of model than it says, from backbone.{name} on: copy the run "
                "directory again"
            )
