"""Whether a checkpoint fits the model that it is loaded into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import nn

from genre_lightning.errors import CheckpointError
from genre_lightning.types import FittedInput


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


def check_same_inputs(theirs: Sequence[FittedInput], ours: Sequence[FittedInput]) -> None:
    """Refuse a checkpoint that was trained with other inputs of the head.

    Raises:
        CheckpointError: Naming the inputs that only one side has, or those that were fitted on other films.
    """
    if tuple(theirs) != tuple(ours):
        differ = {one.name for one in theirs} ^ {one.name for one in ours}
        differ = differ or {one.name for one, other in zip(theirs, ours, strict=True) if one != other}
        raise CheckpointError(
            f"the checkpoint was trained with other inputs than the data have ({', '.join(sorted(differ))}): "
            "use its own data.features and data.join"
        )
