"""The weights that a training starts from when it continues from another run."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor, nn

from genre_lightning.distributed.checkpoint.shards import read_whole
from genre_lightning.distributed.sharded import load_weights, open_checkpoint, whole
from genre_lightning.models.checkpoint import check_same_inputs, check_same_tensors
from genre_lightning.models.layers.fusion import FusionHead
from genre_lightning.models.metadata import CheckpointMetadata

if TYPE_CHECKING:
    from genre_lightning.models.base import GenreClassifier


def start_from(model: GenreClassifier, checkpoint: Path) -> None:
    """Put the trained weights of another run into a model, the head's rows by the names of their genres.

    Rows of genres that the other run does not know keep their new weights. On several ranks all of them must call it.

    Args:
        model: Built, sharded or not.
        checkpoint: Of the other run.

    Raises:
        CheckpointError: It is missing, damaged, or of another shape of model, base or inputs.
    """
    assert model.spec is not None
    content = open_checkpoint(checkpoint)
    metadata = CheckpointMetadata.of(content, checkpoint)
    model.check_metadata(metadata)
    check_same_inputs(metadata.inputs, model.spec.inputs)
    weights = dict((read_whole(checkpoint) if checkpoint.is_dir() else content)["state_dict"])
    own = model.state_dict()
    for name in rows_by_genre(model.head):
        weights[name] = carried_over(weights[name], whole(own[name]), metadata.genres, model.spec.genres)
    check_same_tensors(model, weights, model.trained_names())
    load_weights(model, weights)


def rows_by_genre(head: nn.Module) -> list[str]:
    """Name the tensors of a classifier's head that have a row for each genre, as its state names them."""
    layers = ("text", "inputs") if isinstance(head, FusionHead) else _last_linear(head)
    return [f"head.{layer}.{name}" for layer in layers for name, _ in head.get_submodule(layer).named_parameters()]


def _last_linear(head: nn.Module) -> tuple[str]:
    return ([name for name, layer in head.named_modules() if isinstance(layer, nn.Linear)][-1],)


def carried_over(theirs: Tensor, ours: Tensor, their_genres: Sequence[str], our_genres: Sequence[str]) -> Tensor:
    """Return a head's tensor with the rows of the genres that both know from the other.

    Args:
        theirs: (their genres, ...).
        ours: (our genres, ...), whose rows new genres keep.
        their_genres: Names of the rows.
        our_genres: Likewise.
    """
    rows = ours.detach().clone()
    place = {name: row for row, name in enumerate(their_genres)}
    for row, name in enumerate(our_genres):
        if name in place:
            rows[row] = theirs[place[name]].to(rows.dtype)
    return rows
