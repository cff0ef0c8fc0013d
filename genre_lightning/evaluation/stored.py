"""The files of an evaluation read back: each is checked to hold what the evaluation wrote before it is used."""

from __future__ import annotations

import csv
import io
import math
import os
from collections.abc import Sequence
from typing import Any

from genre_lightning.config.decision import POLICIES
from genre_lightning.escapes import original_cell
from genre_lightning.evaluation import films, languages
from genre_lightning.files import REMAKE, damaged, read_json, read_text
from genre_lightning.metrics import POLICY_METRICS, THRESHOLD_FREE_METRICS
from genre_lightning.provenance import MADE_BY, TRAINING
from genre_lightning.shapes import Shape, count, interval, maybe_number, number, text

_POLICY: dict[str, Shape] = dict.fromkeys(POLICY_METRICS, maybe_number)
_METRICS: Shape = {
    "n": count,
    "split": text,
    "threshold_free": dict.fromkeys(THRESHOLD_FREE_METRICS, maybe_number),
    "policies": {
        "fixed_0.5": _POLICY,
        "global": {**_POLICY, "threshold": number},
        "per_genre": _POLICY,
    },
    "raw": {"ece": maybe_number, "loss": maybe_number},
    "intervals?": {
        "threshold_free?": {"*": interval},
        "policies?": {policy + "?": {"*": interval} for policy in POLICIES},
    },
    "trivial_baseline?": {"genres": [text], "chosen_on": text, **_POLICY},
    "undefined": [text],
    "decision": {"calibration": text, "fitted_on": text, "n_films": count, "without_positives": [text]},
    "bootstrap?": {"level": number, "too_few_films_for?": [text]},
    "languages?": [languages.SHAPE],
    "seconds?": number,
    "trainable_parameters?": number,
    "films?": films.SHAPE,
    "made_by?": MADE_BY,
    "training?": TRAINING,
    "split_sha256?": text,
    "checkpoint_sha256?": text,
}
_GENRE_NUMBERS = ("support", "precision", "recall", "f1", "average_precision", "threshold", "calibration_error")
_GENRE_INTERVAL = ("f1_low", "f1_high")
_THRESHOLD_NUMBERS = ("threshold", "accuracy", "precision", "recall", "f1")


def read_metrics(path: str | os.PathLike[str], fix: str = REMAKE) -> dict[str, Any]:
    """Read metrics.json.

    Args:
        path: Path of the file.
        fix: Fix to report for one that is missing or damaged.

    Raises:
        CheckpointError: It is.
    """
    return read_json(path, _METRICS, fix)


def read_genre_rows(path: str | os.PathLike[str], fix: str = REMAKE) -> list[dict[str, str]]:
    """Read per_genre.csv, which has intervals if the evaluation computed them; see `read_rows`."""
    return read_rows(path, _GENRE_NUMBERS, ("genre", "policy"), fix, optional=_GENRE_INTERVAL)


def read_threshold_rows(path: str | os.PathLike[str], fix: str = REMAKE) -> list[dict[str, str]]:
    """Read thresholds.csv; see `read_rows`."""
    return read_rows(path, _THRESHOLD_NUMBERS, (), fix)


def read_rows(
    path: str | os.PathLike[str],
    numbers: Sequence[str],
    texts: Sequence[str] = (),
    fix: str = REMAKE,
    *,
    optional: Sequence[str] = (),
) -> list[dict[str, str]]:
    """Read a CSV of an evaluation.

    Args:
        path: Path of the file.
        numbers: Columns of finite numbers, in which an undefined one is an empty cell.
        texts: Columns of texts.
        fix: Fix to report for a file that is missing or damaged.
        optional: Further columns of numbers, which may be missing.

    Raises:
        CheckpointError: It is.
    """
    columns, rows = read_csv(path, fix)
    if missing := [name for name in (*texts, *numbers) if name not in columns]:
        raise damaged(path, f"it has no column {missing[0]}", fix)
    for number_of_row, row in enumerate(rows, start=2):
        for name in (*numbers, *(name for name in optional if name in columns)):
            if row[name] and not _is_finite(row[name]):
                raise damaged(path, f"{name} is {row[name]!r:.40} in row {number_of_row}", fix)
    return rows


def read_csv(path: str | os.PathLike[str], fix: str = REMAKE) -> tuple[list[str], list[dict[str, str]]]:
    """Read a CSV file that the project has written: the names of its columns, and its rows.

    Raises:
        CheckpointError: The file is missing, may not be read, or has rows of another length than its header.
    """
    content = io.StringIO(read_text(path, fix), newline="")
    try:
        cells = csv.reader(content, strict=True)
        header, *lines = [list(map(original_cell, row)) for row in cells] or [[]]
    except (ValueError, csv.Error) as error:
        raise damaged(path, error, fix) from None
    for number_of_row, line in enumerate(lines, start=2):
        if len(line) != len(header):
            raise damaged(path, f"row {number_of_row} has {len(line)} cells, the header {len(header)}", fix)
    return header, [dict(zip(header, line, strict=True)) for line in lines]


def _is_finite(cell: str) -> bool:
    try:
        return math.isfinite(float(cell))
    except ValueError:
        return False
