"""The curves that each tool has written itself, as the steps of their points."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Curves:
    """Steps at which a run has points.

    Attributes:
        training: Of the training loss.
        validation: Of the validation's loss.
    """

    training: list[int]
    validation: list[int]


def of_csv(path: Path, training: str, validation: str) -> Curves:
    """Read one CSV file with a row for each step."""
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return Curves(*([int(row["step"]) for row in rows if row.get(name)] for name in (training, validation)))


def of_ours(run: Path) -> Curves:
    """Read a run's curves.csv."""
    return of_csv(run / "curves.csv", "train/loss", "val/loss")


def of_lightning(run: Path) -> Curves:
    """Read CSVLogger's files: every start makes a new one."""
    all_starts = [of_csv(path, "train/loss", "val/loss") for path in sorted(run.glob("lightning_logs/*/metrics.csv"))]
    return Curves(
        [step for curves in all_starts for step in curves.training],
        [step for curves in all_starts for step in curves.validation],
    )


def of_transformers(run: Path) -> Curves:
    """Read the log history that Trainer keeps in its state."""
    history = json.loads((run / "trainer_state.json").read_text())["log_history"]
    return Curves(*([row["step"] for row in history if name in row] for name in ("loss", "eval_loss")))


def of_swift(run: Path) -> Curves:
    """Read ms-swift's logging.jsonl."""
    rows = [json.loads(line) for line in (run / "logging.jsonl").read_text().splitlines()]
    step = "global_step/max_steps"
    return Curves(
        *([int(row[step].partition("/")[0]) for row in rows if name in row] for name in ("loss", "eval_loss"))
    )


def of_accelerate(run: Path) -> Curves:
    """Read TensorBoard's event files."""
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    steps: dict[str, list[int]] = {"train/loss": [], "val/loss": []}
    for path in sorted(run.glob("**/events.out.tfevents.*")):
        for event in EventFileLoader(str(path)).Load():
            for value in event.summary.value:
                if value.tag in steps:
                    steps[value.tag].append(event.step)
    return Curves(steps["train/loss"], steps["val/loss"])


Reader = Callable[[Path], Curves]
