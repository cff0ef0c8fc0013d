"""What the evaluation reads from a run directory, with a clear refusal if it is not a run or has not finished."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from genre_lightning.errors import CheckpointError
from genre_lightning.evaluation.decisions import Decision, read_decision
from genre_lightning.evaluation.predictions import StoredPredictions, read_stored_predictions
from genre_lightning.evaluation.stored import read_genre_rows, read_metrics, read_threshold_rows
from genre_lightning.files import read_json, read_text
from genre_lightning.runs import RunDirectory
from genre_lightning.shapes import Shape, count, text

_AUDIT: Shape = {
    "rows?": count,
    "kept?": count,
    "splits?": {"*": {"films": count, "ids_sha256?": text, "genres": {"*": count}, "known?": {"*": count}}},
}


@dataclass(frozen=True)
class Run:
    """A run directory; files are read when asked for."""

    directory: Path

    @property
    def name(self) -> str:
        """The directory's name."""
        return self.directory.resolve().name

    @property
    def files(self) -> RunDirectory:
        """The names of its files."""
        return RunDirectory(self.directory)

    def has(self, split: str) -> bool:
        """Tell whether a split was evaluated to the end."""
        return self.files.evaluation(split).metrics.is_file()

    def require_finished(self) -> Run:
        """Refuse a run whose training or evaluation is under way or was cut off; give the run.

        Raises:
            CheckpointError: The run is not finished; the message names the fix.
        """
        if self.files.status in ("training", "evaluating"):
            raise CheckpointError(
                f"{self.directory} has not finished (it is {self.files.status}): "
                "run its own command to the end, then this one"
            )
        return self

    @property
    def test_is_validation(self) -> bool:
        """Whether the decision was fitted on the very films of the test split, as in the paper's protocol."""
        return bool((self.audit() or {}).get("validation_is_test"))

    def metrics(self, split: str) -> dict[str, Any]:
        """Read metrics.json of a split.

        Raises:
            CheckpointError: It is missing or damaged.
        """
        return read_metrics(self.files.evaluation(split).metrics, self.files.again)

    def predictions(self, split: str) -> StoredPredictions:
        """Read predictions.parquet of a split.

        Raises:
            CheckpointError: It is missing or damaged.
        """
        return read_stored_predictions(self.files.evaluation(split).predictions, self.files.again)

    def genre_rows(self, split: str) -> list[dict[str, str]]:
        """Read per_genre.csv of a split; an undefined metric is an empty text.

        Raises:
            CheckpointError: It is missing or damaged.
        """
        return read_genre_rows(self.files.evaluation(split).per_genre, self.files.again)

    def threshold_rows(self, split: str) -> list[dict[str, str]]:
        """Read thresholds.csv of a split.

        Raises:
            CheckpointError: It is missing or damaged.
        """
        return read_threshold_rows(self.files.evaluation(split).thresholds, self.files.again)

    @cached_property
    def decision(self) -> Decision:
        """The run's decision.

        Raises:
            CheckpointError: decision.json is missing or damaged.
        """
        return read_decision(self.files.decision, self.files.again)

    def audit(self) -> dict[str, Any] | None:
        """Read data_audit.json; None without one.

        Raises:
            CheckpointError: It is damaged.
        """
        fix = f"delete it, then {self.files.again}"
        return read_json(self.files.audit, _AUDIT, fix) if self.files.audit.is_file() else None

    def config(self) -> str | None:
        """Read the text of config.yaml; None without one.

        Raises:
            CheckpointError: It is damaged.
        """
        if not self.files.config.is_file():
            return None
        self.files.settings()
        return read_text(self.files.config)


def open_run(directory: str | os.PathLike[str], *splits: str) -> Run:
    """Open a run directory that has been evaluated on the given splits.

    Raises:
        CheckpointError: The directory is missing, is not a run, is a pretraining, or has not been evaluated on one of
            the splits.
        ConfigError: A link in it leads out of it, or it holds a pipe or the like.
    """
    path = Path(directory)
    if not path.is_dir():
        raise CheckpointError(f"there is no directory {path}: give the --run_dir of a finished run")
    run = Run(path)
    marks = (run.files.config, run.files.decision, run.files.checkpoints, path / "evaluation")
    if not any(mark.exists() for mark in marks):
        names = " or ".join(mark.name for mark in marks)
        raise CheckpointError(f"{path} is not a run directory (no {names}): give the --run_dir of a run")
    run.files.check_links()
    run.files.require_genres()
    for split in splits:
        if not run.has(split):
            raise CheckpointError(
                f"{path} has no finished evaluation on {split}: run its command again to finish it, then this one"
            )
    return run
