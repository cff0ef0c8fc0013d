"""What the evaluation reads from a run directory, with a clear refusal where it is none or has not finished."""

from __future__ import annotations

import csv
import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from genre_lightning.errors import CheckpointError
from genre_lightning.evaluation.decisions import Decision, read_decision
from genre_lightning.evaluation.files import read_json
from genre_lightning.evaluation.predictions import StoredPredictions, read_stored_predictions

_MARKS = ("config.yaml", "decision.json", "evaluation", "checkpoints")


@dataclass(frozen=True)
class Run:
    """A run directory; files are read when asked for."""

    directory: Path

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.directory.resolve().name

    def evaluation(self, split: str) -> Path:
        """Give the evaluation directory of a split."""
        return self.directory / "evaluation" / split

    def has(self, split: str) -> bool:
        """Tell whether a split was evaluated to the end."""
        return (self.evaluation(split) / "metrics.json").is_file()

    def metrics(self, split: str) -> dict[str, Any]:
        """Read metrics.json of a split.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        return read_json(self.evaluation(split) / "metrics.json")

    def predictions(self, split: str) -> StoredPredictions:
        """Read predictions.parquet of a split.

        Raises:
            CheckpointError: it is missing or damaged.
        """
        return read_stored_predictions(self.evaluation(split) / "predictions.parquet")

    def table(self, split: str, name: str) -> list[dict[str, str]]:
        """Read a CSV of a split's evaluation; an undefined figure is an empty text.

        Raises:
            CheckpointError: it is missing.
        """
        path = self.evaluation(split) / name
        if not path.is_file():
            raise CheckpointError(f"{path} is missing: the run has not finished; run its command again to finish it")
        with path.open(newline="", encoding="utf-8") as handle:
            return list(csv.DictReader(handle))

    @cached_property
    def decision(self) -> Decision:
        """The run's decision.

        Raises:
            CheckpointError: decision.json is missing or damaged.
        """
        return read_decision(self.directory / "decision.json")

    def audit(self) -> dict[str, Any] | None:
        """Read data_audit.json; None without one."""
        path = self.directory / "data_audit.json"
        return read_json(path) if path.is_file() else None

    def config(self) -> str | None:
        """Read the text of config.yaml; None without one."""
        path = self.directory / "config.yaml"
        return path.read_text(encoding="utf-8", errors="replace") if path.is_file() else None


def open_run(directory: str | os.PathLike[str], *splits: str) -> Run:
    """Open a run directory that has been evaluated on the given splits.

    Raises:
        CheckpointError: the directory is missing, is no run, or has not been evaluated on one of the splits.
    """
    path = Path(directory)
    if not path.is_dir():
        raise CheckpointError(f"there is no directory {path}: give the --run_dir of a finished run")
    if not any((path / mark).exists() for mark in _MARKS):
        raise CheckpointError(f"{path} is no run directory (no {' or '.join(_MARKS)}): give the --run_dir of a run")
    run = Run(path)
    for split in splits:
        if not run.has(split):
            raise CheckpointError(
                f"{path} has no finished evaluation on {split}: run its command again to finish it, then this one"
            )
    return run
