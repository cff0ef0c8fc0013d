"""What a run has come to, compared with the unbroken one: to the bit, and with no step twice or missing."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch

from genre_lightning.distributed.checkpoint.io import read_checkpoint

# what depends on a clock or the system, and names that hold a digest of such a value
_CLOCKS = ("made_by", "git_commit", "date", "seconds", "checkpoint/seconds", "checkpoint_sha256", "sha256")
_CLOCK_GROUPS = ("throughput/", "memory/")


def differences(expected: Path, got: Path) -> list[str]:
    """Return everything in which two finished runs differ; nothing if they are equal.

    Compared are the content of the last and the best checkpoint (weights, optimizer, schedule, counts, random states,
    best score, decision), the curves row by row, the predictions and the metrics of both splits.
    """
    found: list[str] = []
    for name in ("last", "best"):
        a, b = (read_checkpoint(run / "checkpoints" / f"{name}.ckpt") for run in (expected, got))
        found += _unequal(a, b, name)
    a, b = curves(expected), curves(got)
    if [place for place, _ in a] != [place for place, _ in b]:
        found.append(f"curves: rows {sorted(dict(a).keys() ^ dict(b).keys()) or [place for place, _ in b]}")
    else:
        found += _unequal(dict(enumerate(a)), dict(enumerate(b)), "curves")
    for split in ("validation", "test"):
        tables = [pq.read_table(run / "evaluation" / split / "predictions.parquet") for run in (expected, got)]
        if not tables[0].equals(tables[1]):
            found.append(f"predictions of {split}")
        metrics = [json.loads((run / "evaluation" / split / "metrics.json").read_text()) for run in (expected, got)]
        found += _unequal(*metrics, f"metrics of {split}")
    found += [f"no {name}" for name in ("report.html", "decision.json") if not (got / name).is_file()]
    return found


def curves(run_dir: Path) -> list[tuple[tuple[str, str], dict[str, str]]]:
    """Return the rows of a run's curves that hold more than times, under their epoch and step."""
    with (run_dir / "curves.csv").open(newline="") as file:
        rows = [{name: value for name, value in row.items() if value} for row in csv.DictReader(file)]
    return [
        ((row.get("epoch", ""), row["step"]), {name: value for name, value in row.items() if not _of_a_clock(name)})
        for row in rows
        if any(not _of_a_clock(name) for name in set(row) - {"epoch", "step"})
    ]


def _of_a_clock(name: str) -> bool:
    return name in _CLOCKS or name.startswith(_CLOCK_GROUPS)


def _unequal(a: Any, b: Any, place: str) -> list[str]:
    return list(_walk(a, b, place))


def _walk(a: Any, b: Any, place: str) -> Iterator[str]:
    if isinstance(a, dict) and isinstance(b, dict):
        for name in sorted(set(a) | set(b), key=str):
            if name in _CLOCKS:
                continue
            if name not in a or name not in b:
                yield f"{place}.{name} is in one only"
            else:
                yield from _walk(a[name], b[name], f"{place}.{name}")
    elif isinstance(a, list | tuple) and isinstance(b, list | tuple) and len(a) == len(b):
        for index, (left, right) in enumerate(zip(a, b, strict=True)):
            yield from _walk(left, right, f"{place}.{index}")
    elif isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        if a.shape != b.shape or a.dtype != b.dtype:
            yield f"{place}: {tuple(a.shape)} {a.dtype} and {tuple(b.shape)} {b.dtype}"
        elif not torch.equal(a, b):
            yield f"{place}: by {float((a.double() - b.double()).abs().max()):.3g}"
    elif a != b and not (a != a and b != b):
        yield f"{place}: {str(a)[:60]} and {str(b)[:60]}"
