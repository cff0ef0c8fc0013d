"""What `monitor` and `data doubts` have found, kept beside the evaluation and laid out for the report."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any, Literal, NamedTuple

from genre_lightning.evaluation.runs import Run
from genre_lightning.files import file_digest, read_json, write_json
from genre_lightning.shapes import Shape, boolean, count, interval, maybe_number, number, pair, text

Section = Literal["monitor", "doubts"]

_COMMANDS = {"monitor": "genre-lightning monitor", "doubts": "genre-lightning data doubts"}
_ABOUT: dict[str, Shape] = {"decision_sha256": text, "date": text}
_CHECKS: Shape = [
    {
        "name": text, "reference": maybe_number, "new": maybe_number, "effect": maybe_number, "p": maybe_number,
        "drifted": boolean, "interval?": interval,
    }
]  # fmt: skip
_SHAPES: dict[Section, Shape] = {
    "monitor": {
        **_ABOUT,
        "file": text, "films": count, "labelled": count, "reference_films": count, "left_out": count,
        "inputs": _CHECKS, "genres": _CHECKS, "calibration": _CHECKS,
        "auroc?": pair, "auroc_interval?": pair, "new_genres?": {"*": count}, "advice": text, "why": text,
    },
    "doubts": {
        **_ABOUT,
        "count": count, "kind?": text,
        "rows": [
            {"film": text, "id": text, "split": text, "genre": text, "kind": text, "score": number,
             "labels": [text], "predicted": [text]}
        ],
    },
}  # fmt: skip
_SHOWN_GENRES = 5
TABLES = (
    ("inputs", "texts", "measure", ("validation", "new", "PSI or change")),
    ("genres", "predicted genres", "genre", ("validation", "new", "change [95%]")),
    ("calibration", "labels", "genre", ("expected", "observed", "ratio")),
)
"""Of what `monitor` finds: key, title, head of the first column, and heads of the numbers."""


def section_path(run: Run, section: Section) -> Path:
    """Return the path of a command's results."""
    return run.directory / "evaluation" / f"{section}.json"


def keep_section(run: Run, section: Section, content: Mapping[str, Any]) -> None:
    """Keep what a command has found about a run with its present decision."""
    about = {"decision_sha256": file_digest(run.files.decision), "date": date.today().isoformat()}
    write_json(section_path(run, section), {**about, **content})


def read_section(run: Run, section: Section) -> dict[str, Any] | None:
    """Read what a command has found; None if it has not been run, or only before the run's decision has changed.

    Raises:
        CheckpointError: The file is damaged.
    """
    path = section_path(run, section)
    if not path.is_file():
        return None
    fix = f"delete it, then run '{_COMMANDS[section]} {run.directory}' again"
    found: dict[str, Any] = read_json(path, _SHAPES[section], fix)
    return found if found["decision_sha256"] == file_digest(run.files.decision) else None


def monitor_section(run: Run) -> dict[str, Any] | None:
    """Lay out what `monitor` has found: its values, and the tables that have rows."""
    found = read_section(run, "monitor")
    if found is None:
        return None
    tables = [
        {"title": title, "heads": (first, *heads, "p (Holm)"), "rows": [drift_row(row) for row in found[key]]}
        for key, title, first, heads in TABLES
        if found[key]
    ]
    return {**found, "tables": tables, "lines": monitor_lines(found)}


class DriftRow(NamedTuple):
    """A comparison, laid out; the interval and the mark may be empty."""

    name: str
    reference: str
    new: str
    effect: str
    interval: str
    p: str
    mark: str


def drift_row(check: Mapping[str, Any]) -> DriftRow:
    """Lay out a comparison of `monitor`."""
    effect, p, limits, span = _number(check["effect"]), _number(check["p"]), "", check.get("interval")
    if span and None not in (*span, check["effect"]):
        effect, limits = f"{check['effect']:+z.3f}", f"[{span[0]:+z.3f}, {span[1]:+z.3f}]"
    if check["p"] is not None and check["p"] < 0.001:
        p = "<0.001"
    mark = "drift" if check["drifted"] else ""
    return DriftRow(check["name"], _number(check["reference"]), _number(check["new"]), effect, limits, p, mark)


def monitor_lines(found: Mapping[str, Any]) -> list[str]:
    """Describe what else `monitor` has found: genres that are new, and the ranking if enough films have labels."""
    lines = []
    if counts := found.get("new_genres"):
        named = ", ".join(f"{name} ({films:,})" for name, films in list(counts.items())[:_SHOWN_GENRES])
        more = f" and {len(counts) - _SHOWN_GENRES} more" if len(counts) > _SHOWN_GENRES else ""
        lines.append(f"genres that the run does not know, with films: {named}{more}")
    if found.get("auroc") and found.get("auroc_interval"):
        (before, now), (low, high) = found["auroc"], found["auroc_interval"]
        lines.append(f"macro AUROC {now:.3f}, {before:.3f} on validation: change [{low:+z.3f}, {high:+z.3f}]")
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if abs(value) >= 10 else f"{value:.3f}"
