"""`genre-lightning status`: where runs stand, from their directories and, if there is a job, from SLURM."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.table import Table

from genre_lightning.commands.arguments import CommandParser
from genre_lightning.commands.run_status import _SHOWN, RunStatus, read_status
from genre_lightning.config.run_pattern import matching_runs
from genre_lightning.distributed.batch import JobState
from genre_lightning.evaluation.console import console_of
from genre_lightning.files import json_value
from genre_lightning.progress import duration
from genre_lightning.runs import RunDirectory


def status(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    parser = CommandParser(
        "status",
        "Shows where a run stands, or a table of several runs. It works while a run is queued, runs, or has ended.",
    )
    parser.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="directory of a run; of several, a row each: status runs/*; or a pattern: status 'runs/lr-{model.lr}'",
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table; a list for several runs")
    options = parser.parse_args(list(arguments))
    paths = [found for path in options.runs for found in matching_runs(path.expanduser())]
    if len(paths) > 1:
        from genre_lightning.commands.status_table import show_statuses

        show_statuses(paths, as_json=options.json)
        return 0
    found = read_status(RunDirectory(paths[0]))
    if options.json:
        print(json.dumps(json_value(asdict(found))))
    else:
        console_of(None).print(_table(found))
    return 0


def _table(found: RunStatus) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column()
    table.add_column(overflow="fold")
    table.add_row("run", found.run_dir)
    table.add_row("state", found.state)
    if found.job:
        table.add_row("job", _job_text(found.job, found.slurm))
    if found.steps:
        table.add_row("step", f"{found.step:,} of {found.steps:,} ({found.step / found.steps:.0%})")
    if found.saved_step is not None:
        table.add_row("saved", f"after step {found.saved_step:,}")
    if found.steps_per_second:
        table.add_row("rate", f"{found.steps_per_second:.2f} steps/s")
    if found.seconds_left is not None:
        table.add_row("left", f"{duration(found.seconds_left)} of training")
    if found.steps:
        table.add_row("restarts", str(found.restarts))
    shown = [f"{name} {found.metrics[name]:.4f}" for name in _SHOWN if name in found.metrics]
    if shown:
        table.add_row("metrics", "  ".join(shown))
    return table


def _job_text(job: str, slurm: JobState | None) -> str:
    if slurm is None:
        return f"{job}, which SLURM does not know here"
    words = [job, slurm.state.lower()]
    words += [f"on {slurm.nodes}"] if slurm.nodes and slurm.left else []
    words += [f"({slurm.reason})"] if slurm.reason else []
    words += [f"{slurm.left} to its time limit"] if slurm.left else []
    return ", ".join(words).replace(", (", " (")
