"""CurvesLogger: the curves of a run in one CSV file that continues if a run is resumed."""

from __future__ import annotations

import csv
import io
import time
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from typing_extensions import override

from genre_lightning.files import read_bytes, replacing

_SECONDS_BETWEEN_SAVES = 10.0
"""How old the file may be while the training runs; checkpoints save it too."""


class CurvesLogger(Logger):
    """Writes one row for each logged step or epoch, in the form of Lightning's CSVLogger.

    Args:
        path: Path of the CSV file; an existing one is continued after `resume_at`, else replaced.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._rows: list[dict[str, Any]] = []
        self._columns: list[str] = ["epoch", "step"]
        self._written = 0
        self._saved = time.monotonic()

    @property
    @override
    def name(self) -> str:
        return "curves"

    @property
    @override
    def version(self) -> str:
        return ""

    @property
    @override
    def log_dir(self) -> str:
        return str(self.path.parent)

    @override
    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Do nothing: the run directory's config.yaml holds them."""

    @rank_zero_only
    def resume_at(self, step: int) -> None:
        """Take up an existing file, without the rows past `step` that the resumed run will log again.

        Args:
            step: Optimizer steps done in the checkpoint.

        Raises:
            CheckpointError: The file is far larger than any curves.
        """
        if not self.path.is_file():
            return
        content = read_bytes(self.path, "delete it to do without its curves")
        lines = list(io.StringIO(content.decode("utf-8", errors="replace"), newline=""))
        if lines and not lines[-1].endswith("\n"):
            lines.pop()  # a killed process may leave half a line, whose step may be half a number
        reader = csv.DictReader(lines)
        self._columns = list(reader.fieldnames or self._columns)
        self._rows = [
            {name: row[name] for name in self._columns}
            for row in reader
            if (row.get("step") or "").isdecimal() and int(row["step"]) < step
        ]
        self._rewrite()

    @override
    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        row: dict[str, Any] = {**metrics, "step": step}
        last = self._rows[-1] if len(self._rows) > self._written else None
        if last is not None and str(last["step"]) == str(step) and not set(last) & set(row) - {"step", "epoch"}:
            last.update(row)
        else:
            # a row of another step begins, so those before it are whole
            if time.monotonic() - self._saved >= _SECONDS_BETWEEN_SAVES:
                self.save()
            self._rows.append(row)

    @override
    @rank_zero_only
    def save(self) -> None:
        new = [name for row in self._rows[self._written :] for name in row if name not in self._columns]
        if new or not self.path.is_file():
            self._columns += list(dict.fromkeys(new))
            self._rewrite()
            return
        self._saved = time.monotonic()
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, self._columns).writerows(self._rows[self._written :])
        self._written = len(self._rows)

    @override
    @rank_zero_only
    def finalize(self, status: str) -> None:
        if self._rows:
            self.save()

    def _rewrite(self) -> None:
        with replacing(self.path) as draft, draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(self._rows)
        self._saved = time.monotonic()
        self._written = len(self._rows)
