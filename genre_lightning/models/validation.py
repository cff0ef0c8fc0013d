"""Loss and metrics of an evaluation during training, gathered over ranks by torchmetrics."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor, nn
from torchmetrics import MetricCollection
from torchmetrics.classification import (
    MultilabelAUROC,
    MultilabelAveragePrecision,
    MultilabelExactMatch,
    MultilabelF1Score,
    MultilabelPrecision,
    MultilabelPrecisionRecallCurve,
    MultilabelRecall,
    MultilabelStatScores,
)
from torchmetrics.utilities.data import dim_zero_cat

from genre_lightning.config.classifier import VALIDATION_METRICS
from genre_lightning.models.step_sums import Reduce
from genre_lightning.types import Batch

__all__ = ["VALIDATION_METRICS", "EvaluationMetrics", "GenreMetrics", "tuned_micro_f1"]

UNKNOWN = -1
"""Label of a genre that is not known of a film."""

_EXPECTED = (
    # a genre without positives or negatives: such genres are left out of the means
    "No positive samples in targets",
    "No negative samples in targets",
    "No positive samples found in target",
    # a rank without films
    "The ``compute`` method of metric",
)
"""Warnings of torchmetrics about cases that are handled here."""


@contextmanager
def _without_expected_warnings() -> Iterator[None]:
    with warnings.catch_warnings():
        for message in _EXPECTED:
            warnings.filterwarnings("ignore", message=message, category=UserWarning)
        yield


def tuned_micro_f1(probabilities: Tensor, labels: Tensor) -> Tensor:
    """Give micro-F1 at the best single threshold for these very films: optimistic, and free of the threshold's choice.

    Args:
        probabilities: floating, any shape.
        labels: 0/1, the same shape.

    Returns:
        A float32 scalar; NaN without positives, and if a probability is NaN.
    """
    scores, order = probabilities.flatten().sort(descending=True)
    hits = labels.flatten()[order].long().cumsum(0)
    if hits.numel() == 0:
        return torch.full((), torch.nan, device=scores.device)
    # a threshold decides equal scores together: only the end of each group of them is possible
    ends = torch.cat([scores[1:] != scores[:-1], scores.new_ones(1, dtype=torch.bool)])
    decided = torch.arange(1, len(scores) + 1, device=scores.device)
    f1 = 2 * hits / (decided + hits[-1])
    best = torch.where(ends, f1, 0.0).max().float()
    return torch.where((hits[-1] > 0) & ~scores.isnan().any(), best, torch.nan)


class TunedMicroF1(MultilabelPrecisionRecallCurve):
    """Module form of `tuned_micro_f1`, with the state of the curve metrics so that they share it."""

    def compute(self) -> Tensor:  # type: ignore[override]  # a scalar in place of the curve
        """Give the score over all films of all ranks."""
        scores, labels = dim_zero_cat(self.preds), dim_zero_cat(self.target)
        known = labels >= 0
        return tuned_micro_f1(scores[known], labels[known])


class GenreMetrics(nn.Module):
    """Metrics of a validation epoch over all ranks, each film counted once.

    Decisions are at probability 0.5. A genre that lacks positives (or, for AUROC, negatives) is left out of the macro
    means; a metric without any data is NaN.

    Args:
        num_genres: Width of the logits.
        masked: Whether some labels are not known; they are -1 and are not counted.
    """

    def __init__(self, num_genres: int, *, masked: bool = False) -> None:
        super().__init__()
        self.num_genres = num_genres
        ignored: dict[str, Any] = {"ignore_index": UNKNOWN} if masked else {}
        # validate_args checks values, which waits for the device at every step
        each: dict[str, Any] = {"num_labels": num_genres, "average": "none", "validate_args": False, **ignored}
        micro = {**each, "average": "micro"}
        self.metrics = MetricCollection(
            {
                "counts": MultilabelStatScores(**each),
                "f1_micro": MultilabelF1Score(**micro),
                "f1": MultilabelF1Score(**each),
                "precision_micro": MultilabelPrecision(**micro),
                "recall_micro": MultilabelRecall(**micro),
                "subset_accuracy": MultilabelExactMatch(num_labels=num_genres, validate_args=False, **ignored),
                "average_precision": MultilabelAveragePrecision(**each),
                "auroc": MultilabelAUROC(**each),
                "f1_micro_tuned": TunedMicroF1(num_labels=num_genres, validate_args=False, **ignored),
            },
            # metrics of one group share one state: it is updated and kept once
            compute_groups=[
                ["counts", "f1_micro", "f1", "precision_micro", "recall_micro"],
                ["subset_accuracy"],
                ["average_precision", "auroc", "f1_micro_tuned"],
            ],
        )

    @torch.no_grad()
    def update(self, logits: Tensor, labels: Tensor, weights: Tensor) -> None:
        """Count a batch.

        Args:
            logits: floating (films, genres), raw.
            labels: 0/1 of any dtype, (films, genres), or `UNKNOWN`.
            weights: (films,); rows of weight 0 are padding and are not counted.
        """
        real = weights > 0
        probabilities, truth = logits[real].float().sigmoid(), labels[real].long()
        if len(probabilities):  # torchmetrics cannot count a batch without rows
            self.metrics.update(probabilities, truth)

    @torch.no_grad()
    def compute(self) -> dict[str, Tensor]:
        """Give the names of `VALIDATION_METRICS` as float32 scalars; on several ranks all of them must call it."""
        curves = cast(MultilabelAveragePrecision, self.metrics.average_precision)
        if not curves.preds:
            # a rank without films must still join the gathers of the others, with no rows
            curves.preds.append(torch.zeros(0, self.num_genres, device=curves.device))
            curves.target.append(torch.zeros(0, self.num_genres, dtype=torch.long, device=curves.device))
        with _without_expected_warnings():
            return self._compute()

    def _compute(self) -> dict[str, Tensor]:
        # the attribute, not metrics["counts"], which would copy every state
        counts = cast(MultilabelStatScores, self.metrics.counts)
        tp, fp, tn, fn, _ = counts.compute().unbind(dim=1)
        nan = torch.full((), torch.nan, device=tp.device)
        if int((tp + fp + tn + fn).sum()) == 0:
            return dict.fromkeys(VALIDATION_METRICS, nan)
        values = self.metrics.compute()
        positives, negatives = tp + fn > 0, tn + fp > 0
        # torchmetrics would rank a NaN as the least probable film
        diverged = values["f1_micro_tuned"].isnan() & positives.any()
        found = {
            "f1_micro": torch.where(positives.any(), values["f1_micro"], nan),
            "f1_macro": _mean_where(values["f1"], positives),
            "precision_micro": torch.where((tp + fp).sum() > 0, values["precision_micro"], nan),
            "recall_micro": torch.where(positives.any(), values["recall_micro"], nan),
            "subset_accuracy": values["subset_accuracy"],
            "map_macro": _mean_where(values["average_precision"], positives),
            "auroc_macro": _mean_where(values["auroc"], positives & negatives),
            "f1_micro_tuned": values["f1_micro_tuned"],
        }
        return {name: torch.where(diverged, nan, value) for name, value in found.items()}

    @torch.no_grad()
    def per_genre(self) -> dict[str, Tensor]:
        """Give "f1" at 0.5 and "ap" (average precision), each float32 (genres,) and NaN without positives.

        It comes after `compute`, whose gathered metrics it reads.
        """
        with _without_expected_warnings():
            counts = cast(MultilabelStatScores, self.metrics.counts).compute()
            tp, fp, tn, fn, _ = counts.unbind(dim=1)
            if int((tp + fp + tn + fn).sum()) == 0:
                return {name: torch.full((self.num_genres,), torch.nan, device=tp.device) for name in ("f1", "ap")}
            values = self.metrics.compute()
        positives = tp + fn > 0
        return {
            name: torch.where(positives, values[source].float(), torch.nan)
            for name, source in (("f1", "f1"), ("ap", "average_precision"))
        }

    def reset(self) -> None:
        """Forget all films."""
        self.metrics.reset()


class EvaluationMetrics(nn.Module):
    """Mean loss and `GenreMetrics` of a split, each film counted once over all ranks.

    Args:
        num_genres: Width of the logits.
        masked: Whether some labels are not known.
    """

    loss: Tensor

    def __init__(self, num_genres: int, *, masked: bool = False) -> None:
        super().__init__()
        self.metrics = GenreMetrics(num_genres, masked=masked)
        # sum of the losses, and films
        self.register_buffer("loss", torch.zeros(2, dtype=torch.float64), persistent=False)

    def update(self, logits: Tensor, loss_sum: Tensor, batch: Batch) -> None:
        """Count a batch.

        Args:
            logits: float32 (rows, genres).
            loss_sum: float32 (): sum of the films' losses.
            batch: Whose `labels` and `weights` are of these rows.
        """
        labels, weights = batch["labels"], batch["weights"]
        if "known" in batch:
            is_known = batch["known"] > 0
            labels = torch.where(is_known, labels, UNKNOWN)
            # a film without a known label has no loss, and would be an exact match
            weights = weights * is_known.any(dim=-1)
        self.loss += torch.stack([loss_sum, weights.sum()])
        self.metrics.update(logits, labels, weights)

    def compute(self, reduce: Reduce) -> dict[str, Tensor]:
        """Give "loss" and the names of `VALIDATION_METRICS`, scalars; on several ranks all of them must call it.

        Args:
            reduce: Sums a tensor over the ranks.
        """
        sums = reduce(self.loss)
        return {"loss": sums[0] / sums[1], **self.metrics.compute()}

    def per_genre(self) -> dict[str, Tensor]:
        """See `GenreMetrics.per_genre`."""
        return self.metrics.per_genre()

    def reset(self) -> None:
        """Forget all films."""
        self.loss.zero_()
        self.metrics.reset()


def _mean_where(values: Tensor, defined: Tensor) -> Tensor:
    """Return the mean over the entries marked as defined; NaN if none is."""
    return torch.where(defined, values, 0.0).sum() / defined.sum()
