"""A plan for a terminal or a log file."""

from __future__ import annotations

import textwrap
from typing import TextIO

from rich import box
from rich.console import Console
from rich.table import Table

from genre_lightning.evaluation.console import console_of
from genre_lightning.planning.memory import PARTS
from genre_lightning.planning.report import GpuTime, PlanReport
from genre_lightning.progress import duration

_LABEL_WIDTH = 12
_NAMES = {"single": "one device"}


def print_plan(report: PlanReport, file: TextIO | None = None) -> None:
    """Print a plan: its lines, the table of memory, notes, and conflicts with their cures."""
    console = console_of(file)
    machine = report.machine
    where = f"{machine.ranks} x {machine.gpu or machine.accelerator}"
    nodes = f" on {machine.nodes} nodes" if machine.nodes > 1 else ""
    _line(console, "run", f"{where}{nodes}, strategy {machine.strategy}, precision {machine.precision}")
    for label, text in _data_lines(report):
        _line(console, label, text)
    if parameters := report.parameters:
        share = parameters.trained / max(parameters.total, 1)
        quantised = f", {parameters.quantised:,} quantised" if parameters.quantised else ", none quantised"
        _line(
            console,
            "parameters",
            f"{parameters.total:,}, of them {parameters.trained:,} trained ({share:.2%}){quantised}",
        )
    if report.memory:
        console.print("\nmemory of each device in GB (10^9 bytes):")
        console.print(_memory_table(report))
        _print_fit(console, report)
    if time := report.time:
        if isinstance(time, GpuTime):
            basis = f"at {time.utilisation:g} of {machine.ranks} x {time.dense_peak_flops / 1e12:g} TFLOP/s"
        else:
            basis = (
                f"{duration(time.seconds_a_step)} a step, as measured here in {duration(time.probe_seconds)} on "
                f"{time.threads} thread{'s' * (time.threads > 1)} ({time.tokens_per_second:,.0f} tokens/s)"
            )
        whole = f"{duration(time.seconds_an_epoch)} an epoch, {duration(time.seconds)} in all"
        _line(console, "time", f"{whole}, {basis}; validation and saving come on top")
    elif report.no_time:
        _line(console, "time", report.no_time)
    for note in report.notes:
        _line(console, "note", note)
    if conflicts := report.conflicts:
        said = "1 conflict, with its fix" if len(conflicts) == 1 else f"{len(conflicts)} conflicts, each with its fix"
        console.print(f"\n{said}:", markup=False)
        for place, conflict in enumerate(conflicts, 1):
            _line(console, f"  {place}.", conflict, width=5)


def _line(console: Console, label: str, text: str, width: int = _LABEL_WIDTH) -> None:
    lines = textwrap.wrap(text, max(console.width - width, 40), break_long_words=False, break_on_hyphens=False)
    for place, line in enumerate(lines):
        console.print(f"{label if place == 0 else '':<{width}}{line}", markup=False, soft_wrap=True)


def _data_lines(report: PlanReport) -> list[tuple[str, str]]:
    lines = []
    if data := report.data:
        splits = ", ".join(f"{films:,} {name}" for name, films in data.splits.items())
        lines.append(("data", f"{data.rows:,} rows, {data.kept:,} kept; {splits}; {data.genres} genres"))
    if lengths := report.lengths:
        kind = "estimated: " if lengths.estimated else ""
        lines.append(
            (
                "lengths",
                f"{kind}mean {lengths.mean:.1f} tokens, median {lengths.median}, 95% up to {lengths.p95}, "
                f"longest {lengths.longest}; {lengths.at_limit:,} at the limit of {lengths.max_tokens}, "
                "longer ones cut",
            )
        )
    if steps := report.steps:
        largest = steps.largest_micro_batch
        parts = "one micro-batch" if steps.micro_batches == 1 else f"{steps.micro_batches} micro-batches"
        lines += [
            (
                "steps",
                f"{steps.steps_an_epoch:,} of {steps.global_batch_size} films an epoch, "
                f"{steps.total_steps:,} in {steps.epochs} epochs; on each rank "
                f"{parts}, the largest of {largest.tokens:,} tokens",
            ),
            (
                "tokens",
                f"{steps.tokens_an_epoch:,} real an epoch, {steps.slots_an_epoch:,} processed "
                f"({steps.padding:.1%} padding)",
            ),
        ]
    return lines


def _memory_table(report: PlanReport) -> Table:
    columns = report.memory
    configured = next(iter(columns))
    table = Table(box=box.ASCII)
    table.add_column("part", no_wrap=True)
    for name in columns:
        table.add_column(_NAMES.get(name, f"{name} (configured)" if name == configured else name), justify="right")
    for part, label in PARTS.items():
        sizes = [column.parts.get(part, 0) for column in columns.values()]
        if any(sizes):
            table.add_row(label, *map(_gigabytes, sizes))
    table.add_section()
    rows = (
        ("tensors", "all tensors"),
        ("context_assumed", "CUDA and NCCL (assumed)"),
        ("reserve_assumed", "fragments (assumed 5%)"),
        ("total", "in all"),
        ("host", "on the host"),
    )
    for key, label in rows:
        if any(getattr(column, key) for column in columns.values()):
            table.add_row(label, *(_gigabytes(getattr(column, key)) for column in columns.values()))
    return table


def _gigabytes(size: int) -> str:
    return "-" if not size else f"{size / 1e9:.2f}" if size >= 5e6 else f"{size / 1e9:.4f}"


def _print_fit(console: Console, report: PlanReport) -> None:
    gpu, size = report.machine.gpu, report.machine.gpu_bytes
    if gpu is None or size is None:
        return
    for name, column in report.memory.items():
        verdict = "fits" if column.fits else "does not fit"
        text = f"{verdict}: {_gigabytes(column.total)} of {size / 1e9:g} GB ({gpu})"
        if report.steps:
            largest = column.largest_micro_batch_tokens
            known = f"; largest data.micro_batch_tokens that fits: {largest}"
            text += known if largest else ", nor does the longest text alone"
        _line(console, _NAMES.get(name, name), text)
