"""The table of `genre-lightning status` for several runs: a row each, in 80 columns."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.table import Table

from genre_lightning.commands.run_status import RunStatus, read_status
from genre_lightning.errors import CheckpointError, one_line
from genre_lightning.evaluation.console import console_of
from genre_lightning.evaluation.curves import read_curves
from genre_lightning.evaluation.decisions import read_decision
from genre_lightning.files import json_value
from genre_lightning.metrics import better_is_higher
from genre_lightning.runs import RunDirectory

_WIDTH = 80
_TUNED = "val/f1_micro_tuned"
"""Micro-F1 at validation's best threshold: what `checkpoint.monitor` is by default, and what every decision keeps."""
_TITLES = {_TUNED: "micro-F1", "val/f1_micro": "micro-F1", "val/f1_macro": "macro-F1", "val/map_macro": "mAP"}


@dataclass(frozen=True)
class StatusRow:
    """A row of the table.

    Attributes:
        run: Directory of the run.
        status: State of the run; None if a file of the run is damaged.
        error: Why there is no status; None otherwise.
        epoch: Epochs begun; epochs: of the whole training. None for a run without epochs.
        best: Name and value of its best validation metric; None before a validation.
        updated: Time at which the run last wrote something, in seconds since the epoch of Unix.
    """

    run: RunDirectory
    status: RunStatus | None
    error: str | None
    epoch: int | None
    epochs: int | None
    best: tuple[str, float] | None
    updated: float | None

    def as_json(self) -> dict[str, Any]:
        """Return what `status --json` prints of a run, and the row's own columns."""
        if self.status is None:
            return {"run_dir": str(self.run.path), "state": "damaged", "error": self.error}
        updated = None if self.updated is None else _local(self.updated).isoformat(timespec="seconds")
        return {
            **asdict(self.status),
            "epoch": self.epoch,
            "epochs": self.epochs,
            "best": self.best and {"name": self.best[0], "value": self.best[1]},
            "updated": updated,
        }


def show_statuses(paths: Sequence[Path], *, as_json: bool) -> None:
    """Print where each of several runs stands.

    Args:
        paths: Run directories; files and other folders among them are counted.
        as_json: Print a JSON list.

    Raises:
        CheckpointError: A path is missing, or none is a run directory.
    """
    if missing := [path for path in paths if not path.exists()]:
        raise CheckpointError(f"there is no directory {missing[0]}: give the directories of runs")
    runs = [RunDirectory(path) for path in paths if _is_run(path)]
    if not runs:
        raise CheckpointError(
            f"none of the {len(paths)} paths given is a run directory, which has a config.yaml: give the directories "
            "of runs"
        )
    rows = [_read(run) for run in runs]
    if as_json:
        print(json.dumps(json_value([row.as_json() for row in rows])))
        return
    console = console_of(None)
    console.print(_table(rows))
    for row in rows:
        if row.error:
            console.print(row.error, soft_wrap=True)
    if others := len(paths) - len(runs):
        console.print(f"not run directories: {others} of the {len(paths)} paths given", soft_wrap=True)


def _is_run(path: Path) -> bool:
    run = RunDirectory(path)
    return run.config.is_file() or (run.batch / "job.json").is_file()


def _read(run: RunDirectory) -> StatusRow:
    try:
        status = read_status(run)
        rows = read_curves(run.curves)[1] if run.curves.is_file() else []
        settings = run.settings() if run.config.is_file() else {}
        best = _best(run, settings, rows)
    except CheckpointError as error:
        return StatusRow(run, None, one_line(error), None, None, None, None)
    epochs = _section(settings, "trainer").get("max_epochs")
    written = [path.stat().st_mtime for path in (run.curves, run.state, run.config, run.batch) if path.exists()]
    return StatusRow(
        run=run,
        status=status,
        error=None,
        epoch=max((int(row["epoch"]) + 1 for row in rows if "epoch" in row), default=None),
        epochs=epochs if isinstance(epochs, int) and epochs > 0 else None,
        best=best,
        updated=max(written, default=None),
    )


def _best(run: RunDirectory, settings: dict[str, Any], rows: list[dict[str, float]]) -> tuple[str, float] | None:
    """Find the best value of the metric that chooses the checkpoint; without curves, the decision's on validation."""
    monitor = str(_section(settings, "checkpoint").get("monitor") or _TUNED)
    values = [row[monitor] for row in rows if monitor in row and math.isfinite(row[monitor])]
    if values:
        return monitor, max(values) if better_is_higher(monitor) else min(values)
    if not run.decision.is_file():
        return None
    value = read_decision(run.decision, run.again).scores.get("global", {}).get("f1_micro")
    return None if value is None else (_TUNED, float(value))


def _section(settings: dict[str, Any], name: str) -> dict[str, Any]:
    found = settings.get(name)
    return found if isinstance(found, dict) else {}


def _table(rows: Sequence[StatusRow]) -> Table:
    table = Table(box=box.ASCII, width=_WIDTH)
    table.add_column("run", overflow="fold", ratio=1)
    table.add_column("state", no_wrap=True)
    table.add_column("epoch", justify="right", no_wrap=True)
    table.add_column("step", justify="right", no_wrap=True)
    table.add_column("best on validation", justify="right", max_width=14, overflow="fold")
    table.add_column("updated", no_wrap=True)
    for row in rows:
        name = row.run.path.name or str(row.run.path)
        if row.status is None:
            table.add_row(name, "damaged", "", "", "", "")
            continue
        step = _of(row.status.step or None, row.status.steps)
        best = f"{_TITLES.get(row.best[0], row.best[0].removeprefix('val/'))} {row.best[1]:.3f}" if row.best else "-"
        updated = "-" if row.updated is None else f"{_local(row.updated):%m-%d %H:%M}"
        table.add_row(name, row.status.state, _of(row.epoch, row.epochs), step, best, updated)
    return table


def _of(done: int | None, whole: int | None) -> str:
    if done is None:
        return "-"
    return f"{done:,}/{whole:,}" if whole else f"{done:,}"


def _local(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds).astimezone()
