"""The losses of a run by epoch, from its curves.csv in the form of Lightning's CSVLogger."""

from __future__ import annotations

import csv
import io
import math
import os
from collections import defaultdict
from pathlib import Path
from typing import Any

from genre_lightning.errors import CheckpointError
from genre_lightning.files import REMAKE, damaged, read_text

_TRAINING = ("train_loss_epoch", "train/loss_epoch", "train_loss", "train/loss", "loss/train", "train_loss_step")
_VALIDATION = ("val_loss", "val/loss", "validation/loss", "validation_loss", "loss/validation", "valid_loss")


def loss_by_epoch(path: str | os.PathLike[str]) -> list[dict[str, Any]]:
    """Average the logged training losses of each epoch, and take its last validation loss.

    Args:
        path: curves.csv: an `epoch` column, and columns of losses that are empty if nothing was logged.

    Returns:
        Rows of epoch (counted from 1), train and validation (None if not logged), by epoch.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    columns, rows = read_curves(path)
    train: dict[int, list[float]] = defaultdict(list)
    validation: dict[int, float] = {}
    train_column, validation_column = _column(columns, _TRAINING, "train"), _column(columns, _VALIDATION, "val")
    for row in rows:
        epoch = _finite(row.get("epoch"))
        if epoch is None:
            continue
        loss = _finite(row.get(train_column)) if train_column else None
        if loss is not None:
            train[int(epoch)].append(loss)
        loss = _finite(row.get(validation_column)) if validation_column else None
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


def read_curves(path: str | os.PathLike[str]) -> tuple[list[str], list[dict[str, float]]]:
    """Read curves.csv, also while it is being written: the names of its columns, and the numbers of each row.

    A last line without its end is left out, and so are empty cells.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    if not Path(path).is_file():
        raise CheckpointError(f"{path} is missing: {REMAKE}")
    fix = "delete it to do without its curves"
    lines = io.StringIO(read_text(path, fix), newline="")
    try:
        columns, *rows = list(csv.reader(line for line in lines if line.endswith("\n"))) or [["epoch", "step"]]
        found = []
        for row in rows:
            if len(row) > len(columns):
                raise ValueError(f"a row has {len(row)} cells, the header {len(columns)}")
            found.append({name: float(cell) for name, cell in zip(columns, row, strict=False) if cell})
            if not (math.isfinite(step := found[-1].get("step", 0)) and step >= 0):
                raise ValueError(f"step is {step}")
    except (ValueError, csv.Error) as error:
        raise damaged(path, error, fix) from None
    return columns, found


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
