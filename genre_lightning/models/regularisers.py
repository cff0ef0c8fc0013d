"""R-Drop and adversarial embeddings: losses of further passes over a batch, while training."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from genre_lightning.models.layers.packing import token_places
from genre_lightning.models.stepwise import StepOutput
from genre_lightning.types import Batch

if TYPE_CHECKING:
    from genre_lightning.models.base import GenreClassifier


def passes_of(options: Any) -> int:
    """Return how often a training step computes its films: once, and once more for each regulariser."""
    return 1 + sum(bool(getattr(options, name, 0)) for name in ("r_drop", "fgm"))


def regularised_step(model: GenreClassifier, batch: Batch) -> StepOutput:
    """Return the logits of a batch, and the sum of its films' losses with what the regularisers add.

    Each film's part depends on that film alone, so that a step is the same on any number of ranks.
    """
    options: Any = model.options
    weights = batch["weights"]
    offsets: list[Tensor] = []

    def noted(states: Tensor) -> Tensor:
        offsets.append(torch.zeros_like(states, requires_grad=True))
        return states + offsets[-1]

    embeddings = model.backbone.get_input_embeddings() if options.fgm else None  # type: ignore[operator]
    with changed_output(embeddings, noted):
        logits = model(batch).float()
    first = losses = model.film_losses(logits, batch)
    if options.r_drop:
        others = model(batch).float()
        apart = divergence(logits, others, batch.get("known"))
        losses = (losses + model.film_losses(others, batch)) / 2 + options.r_drop * apart
    if options.fgm:
        (gradient,) = torch.autograd.grad((first * weights).sum(), offsets, retain_graph=True)
        offset = adversarial_offset(gradient, batch, options.fgm)
        with changed_output(embeddings, lambda states: states + offset):
            adversarial = model.film_losses(model(batch).float(), batch)
        losses = (losses + adversarial) / 2
    return StepOutput(logits, (losses * weights).sum())


@contextmanager
def changed_output(module: nn.Module | None, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """Have a module return something else within; None changes nothing."""
    if module is None:
        yield
        return
    handle = module.register_forward_hook(lambda module, inputs, output: change(output))
    try:
        yield
    finally:
        handle.remove()


def divergence(logits: Tensor, others: Tensor, known: Tensor | None = None) -> Tensor:
    """Return half the sum of both Kullback-Leibler divergences between two predictions (Wu et al., "R-Drop", 2021).

    Args:
        logits: float32 (films, genres).
        others: Likewise, of another pass.
        known: float32 (films, genres): 0 for genres that do not count; None if all do.

    Returns:
        float32 (films,): the mean over each film's known genres.
    """
    # of two Bernoulli distributions p and q, KL(p, q) + KL(q, p) = (p - q) (logit p - logit q)
    values = (logits.sigmoid() - others.sigmoid()) * (logits - others) / 2
    if known is None:
        return values.mean(dim=1)
    return (values * known).sum(dim=1) / known.sum(dim=1).clamp(min=1)


def adversarial_offset(gradient: Tensor, batch: Batch, epsilon: float) -> Tensor:
    """Return what raises each text's loss fastest, of length epsilon (Miyato et al., "Adversarial Training", 2017).

    Args:
        gradient: Of the loss, by the embeddings of the tokens: (rows, tokens, width), a packed row with a tail perhaps.
        batch: Padded or packed.
        epsilon: Length of the offset of a whole text.
    """
    rows, _ = token_places(batch)
    flat = gradient.detach().flatten(0, 1).float()
    of_texts = flat[: len(rows)]
    squares = torch.zeros(len(batch["weights"]), device=flat.device).index_add_(0, rows, of_texts.square().sum(dim=1))
    lengths = squares.sqrt()
    scale = torch.where(lengths > 0, epsilon / lengths.clamp(min=torch.finfo(torch.float32).tiny), 0.0)
    offset = torch.zeros_like(flat)
    offset[: len(rows)] = of_texts * scale[rows][:, None]
    return offset.view_as(gradient).to(gradient.dtype)
