"""Losses for multi-label targets: a pure function for each, giving one value for each film; and the genres' weights.

A film's loss is the mean over its genres (but for `zlpr`, whose sums are within logarithms), so the mean over films is
what `torch.nn.BCEWithLogitsLoss` calls "mean".
Logits and targets are (films, genres); every function returns (films,) in the logits' dtype.
"""

from __future__ import annotations

import inspect
from functools import partial
from typing import get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from genre_lightning.errors import ConfigError, DataError
from genre_lightning.types import LOSSES, DataSpec, LossFunction, PosWeight


def bce(
    logits: Tensor,
    targets: Tensor,
    pos_weight: Tensor | None = None,
    known: Tensor | None = None,
    *,
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return binary cross-entropy: -(w y log p + (1 - y) log(1 - p)) with p = sigmoid(logits), averaged over genres.

    Args:
        logits: (films, genres).
        targets: (films, genres), 0 or 1.
        pos_weight: W, (genres,); None for ones.
        known: (films, genres), 0 for labels that do not count; None if all do.
        label_smoothing: S: a target of 1 counts as 1 - s / 2, one of 0 as s / 2.
    """
    if label_smoothing:
        targets = targets * (1 - label_smoothing) + label_smoothing / 2
    losses = F.binary_cross_entropy_with_logits(logits, targets, pos_weight=pos_weight, reduction="none")
    return _mean_over_genres(losses, known)


def focal(
    logits: Tensor,
    targets: Tensor,
    pos_weight: Tensor | None = None,
    known: Tensor | None = None,
    *,
    gamma: float = 2.0,
) -> Tensor:
    """Return the focal loss (Lin et al., "Focal Loss for Dense Object Detection", 2017), averaged over genres.

    -(w y (1 - p)^gamma log p + (1 - y) p^gamma log(1 - p)): pairs that are already right count less. With gamma 0 it
    is `bce`.
    """
    log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
    # (1 - p)^gamma as exp(gamma log(1 - p)): finite, with finite gradients, for logits of any size
    positive = targets * torch.exp(gamma * log_not_p) * log_p
    negative = (1 - targets) * torch.exp(gamma * log_p) * log_not_p
    if pos_weight is not None:
        positive = positive * pos_weight
    return -_mean_over_genres(positive + negative, known)


def asymmetric(
    logits: Tensor,
    targets: Tensor,
    pos_weight: Tensor | None = None,
    known: Tensor | None = None,
    *,
    gamma_positive: float = 0.0,
    gamma_negative: float = 4.0,
    margin: float = 0.05,
) -> Tensor:
    """Return the mean over genres of the asymmetric loss (Ridnik et al., "Asymmetric Loss For Multi-Label ...", 2021).

    -(w y (1 - p)^g+ log p + (1 - y) q^g- log(1 - q)) with q = max(p - margin, 0): negatives below the margin count
    nothing. With both gammas and the margin 0 it is `bce`.
    """
    log_p, log_not_p = F.logsigmoid(logits), F.logsigmoid(-logits)
    positive = targets * torch.exp(gamma_positive * log_not_p) * log_p
    if margin > 0:
        shifted = (torch.sigmoid(logits) - margin).clamp(min=0)
        # 0^gamma has no finite slope for gamma < 1, and log1p(-0) is 0 there anyway
        inside = shifted > 0
        base = torch.where(inside, shifted, torch.ones_like(shifted))
        negative = torch.where(inside, base**gamma_negative, torch.zeros_like(base)) * torch.log1p(-shifted)
    else:
        negative = torch.exp(gamma_negative * log_p) * log_not_p
    if pos_weight is not None:
        positive = positive * pos_weight
    return -_mean_over_genres(positive + (1 - targets) * negative, known)


def zlpr(logits: Tensor, targets: Tensor, pos_weight: Tensor | None = None, known: Tensor | None = None) -> Tensor:
    """Return the ZLPR loss (Su et al., "ZLPR: A Novel Loss for Multi-label Classification", 2022).

    log(1 + sum of exp(-x) over the film's genres, each times w) + log(1 + sum of exp(x) over the others): every genre
    of a film is ranked above every other one, and 0 between them. The published loss has no w: model.pos_weight=none.
    """
    positive = targets > 0.5
    # a label that is not known is in neither sum
    counts = torch.ones_like(positive) if known is None else known > 0
    shift = 0.0 if pos_weight is None else pos_weight.log()
    zero = logits.new_zeros(len(logits), 1)
    above = torch.cat([zero, (shift - logits).masked_fill(~(positive & counts), -torch.inf)], dim=-1)
    below = torch.cat([zero, logits.masked_fill(positive | ~counts, -torch.inf)], dim=-1)
    return above.logsumexp(dim=-1) + below.logsumexp(dim=-1)


def distillation(logits: Tensor, teacher: Tensor) -> Tensor:
    """Return the binary cross-entropy against another model's probabilities, averaged over the genres it knows.

    Args:
        logits: (films, genres).
        teacher: (films, genres), log-odds; NaN for genres that the other model does not know.
    """
    known = ~teacher.isnan()
    likely = torch.where(known, teacher, 0.0).sigmoid()
    losses = F.binary_cross_entropy_with_logits(logits, likely, reduction="none")
    return _mean_over_genres(losses, known.to(losses.dtype))


def _mean_over_genres(values: Tensor, known: Tensor | None) -> Tensor:
    """Return the mean over the genres of each film that are known; 0 for a film of which none is."""
    if known is None:
        return values.mean(dim=-1)
    return (values * known).sum(dim=-1) / known.sum(dim=-1).clamp(min=1)


def positive_weights(spec: DataSpec, mode: PosWeight = "full", cap: float | None = None) -> NDArray[np.float32]:
    """Return the weight of each genre's positives in the loss: negatives / positives, as in the paper.

    Args:
        spec: The counts of the training split, and of no other.
        mode: "full" for the ratio, "sqrt" for its square root, "none" for ones.
        cap: Largest weight allowed, after the mode; None for no limit.

    Returns:
        float32 array (genres,).

    Raises:
        ConfigError: A mode that is none of these.
        DataError: A genre without a positive, whose ratio has no value.
    """
    films = np.full(len(spec.genres), spec.films) if spec.known is None else spec.known
    # of a genre that is known of no film nothing is learnt
    positives = np.where(films == 0, 1, spec.positives)
    if missing := [name for name, count in zip(spec.genres, positives, strict=True) if count == 0]:
        raise DataError(
            f"no film of the training split has the genre{'s' if len(missing) > 1 else ''} {', '.join(missing)}: "
            "use more films (data.max_films), or another data.seed"
        )
    if mode not in get_args(PosWeight):
        raise ConfigError(f"model.pos_weight is {mode!r}: choose one of {', '.join(get_args(PosWeight))}")
    if mode == "none":
        return np.ones(len(spec.genres), dtype=np.float32)
    weight = np.where(films == 0, 1, (films - positives) / positives)
    if mode == "sqrt":
        weight = np.sqrt(weight)
    return np.minimum(weight, np.inf if cap is None else cap).astype(np.float32)


def loss_function(
    loss: str | LossFunction,
    *,
    label_smoothing: float = 0.0,
    focal_gamma: float = 2.0,
    asymmetric_gamma_positive: float = 0.0,
    asymmetric_gamma_negative: float = 4.0,
    asymmetric_margin: float = 0.05,
) -> LossFunction:
    """Give the loss of a name with its parameters bound, or a user's own, whose result is checked.

    Raises:
        ConfigError: There is no loss of that name; the loss that is given raises it if it does not give one value for
            each film.
    """
    if callable(loss):
        return partial(_checked, loss)
    if loss == "bce":
        return partial(bce, label_smoothing=label_smoothing) if label_smoothing else bce
    if loss == "zlpr":
        return zlpr
    if loss == "focal":
        return partial(focal, gamma=focal_gamma)
    if loss == "asymmetric":
        return partial(
            asymmetric,
            gamma_positive=asymmetric_gamma_positive,
            gamma_negative=asymmetric_gamma_negative,
            margin=asymmetric_margin,
        )
    raise ConfigError(
        f"model.loss is {loss!r}: choose one of {', '.join(LOSSES)}, or give a function of logits, targets and "
        "pos_weight"
    )


def takes_known(loss: LossFunction) -> bool:
    """Return whether a loss can leave out labels that are not known."""
    return "known" in inspect.signature(loss).parameters


def _checked(
    loss: LossFunction,
    logits: Tensor,
    targets: Tensor,
    pos_weight: Tensor | None = None,
    known: Tensor | None = None,
) -> Tensor:
    if known is None:
        losses = loss(logits, targets, pos_weight)
    elif takes_known(loss):
        losses = loss(logits, targets, pos_weight, known=known)
    else:
        raise ConfigError(
            "model.loss has no parameter `known`, and some labels of the films are not known: add it, float (films, "
            "genres) with 0 for labels that must not count, or use one of " + ", ".join(LOSSES)
        )
    if losses.shape != logits.shape[:1]:
        raise ConfigError(
            f"the loss function gives the shape {tuple(losses.shape)} for {len(logits)} films: return one value for "
            "each film, such as the mean over its genres"
        )
    return losses
