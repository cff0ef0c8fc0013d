"""EVA: adapters that start from the directions in which the inputs of their layers vary most on training films."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genre_lightning.distributed.sharded import load_weights
from genre_lightning.errors import ConfigError
from genre_lightning.models.lora import ITERATIONS, adapted_layers

if TYPE_CHECKING:
    from lightning.pytorch import Trainer

    from genre_lightning.models.base import GenreClassifier
    from genre_lightning.types import Batch

FILMS = 256
"""Films that are read: some 20,000 tokens, of which a layer's input has at most as many directions as its width."""

_BYTES = 2**30
"""Of the covariances that are held at once; more layers are measured in further passes over the films."""


class Covariance:
    """The covariance of vectors that come in parts, in float32.

    Args:
        width: Length of a vector.
        device: Where it is summed up.
    """

    def __init__(self, width: int, device: torch.device) -> None:
        self.count = 0
        self.sum = torch.zeros(width, device=device)
        self.products = torch.zeros(width, width, device=device)

    def add(self, vectors: Tensor) -> None:
        """Add vectors, floating (n, width)."""
        vectors = vectors.float()
        self.count += len(vectors)
        self.sum += vectors.sum(dim=0)
        self.products.addmm_(vectors.T, vectors)

    def components(self, rank: int) -> Tensor:
        """Return the principal components, the largest first: float32 (rank, width), orthonormal rows.

        Rows that there are no directions for are 0.
        """
        mean = self.sum / self.count
        covariance = self.products / self.count - torch.outer(mean, mean)
        found = min(rank, len(mean))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            right = torch.svd_lowrank(covariance, q=min(rank + 8, len(mean)), niter=ITERATIONS)[2]
        rows = torch.zeros(rank, len(mean), device=mean.device)
        rows[:found] = right[:, :found].T
        return rows


def start_from_activations(model: GenreClassifier, trainer: Trainer) -> None:
    """Give the matrices A of a model's adapters the principal components of their layers' inputs; B stays 0.

    Paischer et al., "Parameter Efficient Fine-tuning via Explained Variance Adaptation", 2024, with one rank for all
    layers. The films are the first that the training sees, whatever the number of ranks; a collective.

    Args:
        model: With adapters of LoRA, on its device, sharded or not.
        trainer: With a data module that yields `first_batches`.

    Raises:
        ConfigError: The trainer has another data module.
    """
    batches = getattr(getattr(trainer, "datamodule", None), "first_batches", None)
    if batches is None:
        raise ConfigError(
            "model.lora.init is eva, which reads films of a MovieDataModule: train with one, or use pissa"
        )

    def forward(batch: Batch) -> None:
        batch = trainer.strategy.batch_to_device(batch, model.device)
        with trainer.precision_plugin.forward_context():
            model(batch)

    layers = dict(adapted_layers(model))
    found: dict[str, Tensor] = {}
    with torch.no_grad(), _evaluating(model):
        for group in _groups(layers):
            found |= _components(group, batches(FILMS), forward)
    # rank 0's: devices of another kind round in another way
    load_weights(model, trainer.strategy.broadcast({name: rows.cpu() for name, rows in found.items()}))


def _groups(layers: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Split layers into groups whose covariances fit into memory together."""
    group: dict[str, Any] = {}
    held = 0
    for name, layer in layers.items():
        size = 4 * layer.in_features**2
        if group and held + size > _BYTES:
            yield group
            group, held = {}, 0
        group[name] = layer
        held += size
    if group:
        yield group


def _components(
    layers: dict[str, Any], batches: Iterable[Batch], forward: Callable[[Batch], None]
) -> dict[str, Tensor]:
    """Return the first values of each layer's matrix A, by the name of the weight."""
    sums: dict[str, Covariance] = {}
    real: Tensor | slice = slice(None)

    def watch(name: str) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def add(_: nn.Module, given: tuple[Any, ...]) -> None:
            states = given[0]
            if name not in sums:
                sums[name] = Covariance(states.shape[-1], states.device)
            sums[name].add(states.flatten(0, -2)[real])

        return add

    handles = [layer.register_forward_pre_hook(watch(name)) for name, layer in layers.items()]
    try:
        for batch in batches:
            mask = batch.get("attention_mask")
            # a packed row may be computed with a tail of tokens that belong to no text
            real = slice(batch["input_ids"].shape[-1]) if mask is None else mask.flatten().bool()
            forward(batch)
    finally:
        for handle in handles:
            handle.remove()
    ranks = {name: layers[name].r["default"] for name in sums}
    return {f"{name}.lora_A.default.weight": part.components(ranks[name]) for name, part in sums.items()}


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Switch dropout off, and back on where it was."""
    training = [module for module in model.modules() if module.training]
    model.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
