"""What a model's checkpoint says beside its tensors, and whether it fits the model that it is loaded into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from torch import nn

from genre_lightning.errors import CheckpointError
from genre_lightning.types import DataSpec, FittedInput

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

CHECKPOINT_KEY = "genre_lightning"


def metadata_of(checkpoint: Mapping[str, Any], what: object = "the checkpoint") -> dict[str, Any]:
    """Return what a checkpoint says beside its tensors.

    Args:
        checkpoint: Its content.
        what: Its name, for the message of an error.

    Raises:
        CheckpointError: It was not written by this project.
    """
    metadata = checkpoint.get(CHECKPOINT_KEY)
    if not isinstance(metadata, dict):
        raise CheckpointError(
            f"{what} was not written by genre-lightning: give a checkpoint or run directory of its own"
        )
    return metadata


def spec_of(metadata: Mapping[str, Any], tokenizer: PreTrainedTokenizerBase | None = None) -> DataSpec:
    """Return the `DataSpec` of the data that a checkpoint was trained on; older ones do not have its counts.

    Args:
        metadata: See `metadata_of`.
        tokenizer: Of the data, for models that add words of their own.
    """
    genres = tuple(metadata["genres"])
    return DataSpec(
        genres=genres,
        positives=np.array(metadata.get("positives") or np.zeros(len(genres)), dtype=np.int64),
        films=int(metadata.get("films") or 0),
        vocab_size=metadata["vocab_size"],
        pad_token_id=metadata["pad_token_id"],
        max_tokens=metadata["max_tokens"],
        tokenizer=tokenizer,
        inputs=tuple(map(FittedInput.from_dict, metadata.get("inputs") or ())),
    )


def check_same_tensors(module: nn.Module, weights: Mapping[str, Any], trained: set[str]) -> None:
    """Refuse weights that are not exactly those that a model trains.

    Args:
        module: The model, built.
        weights: Of a checkpoint.
        trained: Names of the tensors that it must hold.

    Raises:
        CheckpointError: With the number of those that differ, and the first.
    """
    shapes = {name: tensor.shape for name, tensor in (*module.named_parameters(), *module.named_buffers())}
    other_shape = {n for n, t in weights.items() if shapes.get(n, t.shape) != t.shape}
    if differ := sorted(set(weights) ^ trained | other_shape):
        raise CheckpointError(
            f"the checkpoint is of another model: {len(differ)} tensors differ, the first is {differ[0]}: "
            "use the configuration that it was trained with"
        )


def check_same_genres(theirs: Sequence[str], ours: Iterable[str]) -> None:
    """Refuse a checkpoint of another vocabulary.

    Raises:
        CheckpointError: Naming the genres that only one side has.
    """
    ours = list(ours)
    if list(theirs) != ours:
        differ = ", ".join(sorted(set(theirs) ^ set(ours))) or "their order"
        raise CheckpointError(
            f"the checkpoint knows other genres than the data (differing: {differ}): use its own data"
        )


def check_same_inputs(metadata: Mapping[str, Any], ours: Sequence[FittedInput]) -> None:
    """Refuse a checkpoint that was trained with other inputs of the head.

    Raises:
        CheckpointError: Naming the inputs that only one side has, or those that were fitted on other films.
    """
    theirs = tuple(map(FittedInput.from_dict, metadata.get("inputs") or ()))
    if theirs != tuple(ours):
        differ = {one.name for one in theirs} ^ {one.name for one in ours}
        differ = differ or {one.name for one, other in zip(theirs, ours, strict=True) if one != other}
        raise CheckpointError(
            f"the checkpoint was trained with other inputs than the data have ({', '.join(sorted(differ))}): "
            "use its own data.features and data.join"
        )
