"""The losses of a run by epoch, from its curves.csv in the form of Lightning's CSVLogger."""

from __future__ import annotations

import csv
import math
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from genre_lightning.errors import CheckpointError

_TRAINING = ("train_loss_epoch", "train/loss_epoch", "train_loss", "train/loss", "loss/train", "train_loss_step")
_VALIDATION = ("val_loss", "val/loss", "validation/loss", "validation_loss", "loss/validation", "valid_loss")


def loss_by_epoch(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Average the logged training losses of each epoch, and take its last validation loss.

    Args:
        path: curves.csv: an `epoch` column, and columns of losses that are empty where nothing was logged.

    Returns:
        Rows of epoch (counted from 1), train and validation (None where not logged), by epoch.

    Raises:
        CheckpointError: the file is missing.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"{path} is missing: the run has not finished; run its command again to finish it")
    train: dict[int, list[float]] = defaultdict(list)
    validation: dict[int, float] = {}
    with Path(path).open(newline="", encoding="utf-8") as handle:
        reader = csv.DictReader(handle)
        names = list(reader.fieldnames or ())
        train_column, validation_column = _column(names, _TRAINING, "train"), _column(names, _VALIDATION, "val")
        for row in reader:
            epoch = _number(row.get("epoch"))
            if epoch is None:
                continue
            loss = _number(row.get(train_column)) if train_column else None
            if loss is not None:
                train[int(epoch)].append(loss)
            loss = _number(row.get(validation_column)) if validation_column else None
            if loss is not None:
                validation[int(epoch)] = loss
    return [
        {
            "epoch": epoch + 1,
            "train": sum(train[epoch]) / len(train[epoch]) if train.get(epoch) else None,
            "validation": validation.get(epoch),
        }
        for epoch in sorted({*train, *validation})
    ]


def _column(names: list[str], known: tuple[str, ...], start: str) -> str | None:
    """Choose the column by its known names, else the first one that starts right and speaks of a loss."""
    likely = [name for name in known if name in names]
    likely += [name for name in names if name.startswith(start) and "loss" in name]
    return likely[0] if likely else None


def _number(cell: str | None) -> float | None:
    try:
        value = float(cell or "")
    except ValueError:
        return None
    return value if math.isfinite(value) else None
