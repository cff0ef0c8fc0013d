"""The paper's tables in its own layout, its protocol beside the held-out metric."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from genre_lightning.errors import CheckpointError
from genre_lightning.evaluation.comparison import PAPER_ROW
from genre_lightning.evaluation.curves import loss_by_epoch
from genre_lightning.evaluation.report import render
from genre_lightning.evaluation.runs import open_run
from genre_lightning.evaluation.thresholds import threshold_grid
from genre_lightning.files import write_text
from genre_lightning.runs import RunDirectory


def paper_tables(run_directory: str | os.PathLike[str], split: str = "test") -> dict[str, Any]:
    """Gather Table I (loss by epoch), Table II (threshold grid), and both protocols side by side.

    The paper chooses the threshold on the same films that it scores. That is done here too, on the grid of Table II,
    and marked as optimistic beside this run's metric at the threshold fitted on validation.

    Args:
        run_directory: Directory of a run that was evaluated on `split`.
        split: Split of the films.

    Returns:
        `losses`, `grid` (rows of Table II), `optimistic` (the grid's row of highest F1), `held_out` (the run's metrics
        at its global threshold, None if that was fitted on these films) and `published`.

    Raises:
        CheckpointError: The directory is not a run, or was not evaluated on the split.
    """
    run = open_run(run_directory, split)
    stored, metrics = run.predictions(split), run.metrics(split)
    curves = run.files.curves
    grid = threshold_grid(stored.probabilities, stored.predictions.labels, known=stored.predictions.known)
    if not stored.predictions.labels.any():
        raise CheckpointError(f"no film of {split} in {run.directory} has a genre: evaluate the run on other films")
    figures = metrics["policies"]["global"]
    held_out = None
    if metrics["decision"]["fitted_on"] != split and not run.test_is_validation:
        held_out = {
            "threshold": figures["threshold"],
            "accuracy": figures["subset_accuracy"],
            "precision": figures["precision_micro"],
            "recall": figures["recall_micro"],
            "f1": figures["f1_micro"],
        }
    return {
        "n": metrics["n"],
        "split": split,
        "losses": loss_by_epoch(curves) if curves.is_file() else [],
        "grid": grid,
        "optimistic": max(grid, key=lambda row: row["f1"]),
        "held_out": held_out,
        "published": {
            "threshold": PAPER_ROW["threshold"],
            "accuracy": PAPER_ROW["subset_accuracy"],
            "precision": PAPER_ROW["precision_micro"],
            "recall": PAPER_ROW["recall_micro"],
            "f1": PAPER_ROW["f1_micro"],
        },
    }


def write_paper_report(run_directory: str | os.PathLike[str], split: str = "test") -> Path:
    """Write paper.html into a run directory; give its path.

    Raises:
        CheckpointError: The directory is not a run, or was not evaluated on the split.
    """
    tables = paper_tables(run_directory, split)
    heads = ["threshold", "accuracy", "precision", "recall", "F1 score"]
    protocols = [
        ["paper, as published (another split; threshold chosen on it)", *_cells(tables["published"])],
        ["the paper's protocol here (optimistic: threshold chosen on these films)", *_cells(tables["optimistic"])],
    ]
    notes = [f"{tables['n']:,} films of the {split} split. Accuracy is the fraction of films with every genre right."]
    if tables["held_out"] is None:
        notes.append(
            "This run has no held-out metric: its threshold was fitted on these very films. For one, train with three "
            "fractions (data.split: [0.8, 0.1, 0.1])."
        )
    else:
        protocols.append(["held out here (threshold fitted on validation)", *_cells(tables["held_out"])])
    losses = [[str(row["epoch"]), _number(row["train"]), _number(row["validation"])] for row in tables["losses"]]
    shown = [
        {"title": "Side by side", "heads": ["", *heads], "rows": protocols},
        {"title": "Table II: thresholds", "heads": heads, "rows": [_cells(row) for row in tables["grid"]]},
    ]
    if losses:
        table_one = {"title": "Table I: loss", "heads": ["epoch", "training loss", "validation loss"], "rows": losses}
        shown.insert(1, table_one)
    values = {
        "title": f"{Path(run_directory).resolve().name}: the paper's tables",
        "notes": notes,
        "tables": shown,
    }
    path = RunDirectory(Path(run_directory)).paper_report
    write_text(path, render("tables.html.j2", values))
    return path


def _cells(row: dict[str, Any]) -> list[str]:
    figures = [_number(row[name]) for name in ("accuracy", "precision", "recall", "f1")]
    return [f"{row['threshold']:.2f}", *figures]


def _number(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.4f}"
