"""Several runs on the same films: one table with intervals and paired p-values."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from genre_lightning.config.decision import SHIPPED_POLICY
from genre_lightning.errors import ConfigError, DataError
from genre_lightning.escapes import markdown as in_markdown
from genre_lightning.escapes import markdown_table
from genre_lightning.evaluation import bootstrap
from genre_lightning.evaluation.against_parent import named_as_in, on_shared_films
from genre_lightning.evaluation.console import console_of, figure_text, print_stacked
from genre_lightning.evaluation.differing import differing_settings, extra_tables, over_seeds, readable
from genre_lightning.evaluation.predictions import StoredPredictions
from genre_lightning.evaluation.report import render
from genre_lightning.evaluation.runs import Run, open_run
from genre_lightning.files import write_csv, write_text
from genre_lightning.lineage import ancestors
from genre_lightning.metrics import judged, policy_metrics, threshold_free_metrics
from genre_lightning.progress import duration
from genre_lightning.runs import RunDirectory

COMPARED = (
    ("f1_micro", "micro-F1"),
    ("f1_macro", "macro-F1"),
    ("map_macro", "mAP"),
    ("subset_accuracy", "subset accuracy"),
)
PAPER_ROW = {
    "f1_micro": 0.5687,
    "f1_macro": None,
    "map_macro": None,
    "subset_accuracy": 0.162,
    "precision_micro": 0.519,
    "recall_micro": 0.630,
    "threshold": 0.70,
}
"""The published metrics, at the threshold that was chosen on the same 20% of films that they are of."""
PAPER_NAME = "paper, as published (another split, threshold chosen on it)"


@dataclass(frozen=True)
class Comparison:
    """What `compare_runs` found."""

    n: int
    """Films that every run was evaluated on."""
    split: str
    best: str
    """The run of highest micro-F1, which the p-values are against."""
    optimistic: bool
    """Whether the runs' thresholds were fitted on these very films."""
    rows: list[dict[str, Any]]
    """A row per run, best first: run, each metric, its `_low` and `_high`, its `_p`, seconds, trainable_parameters."""
    lineage: list[str] = field(default_factory=list)
    """Which runs continue from which, if all are of one family: they are compared on the films that all have."""
    settings: dict[str, dict[str, Any]] = field(default_factory=dict)
    """Settings of each run that are not the same for all; empty if there are none, or too many to be read."""
    over_seeds: list[dict[str, Any]] = field(default_factory=list)
    """Mean and standard deviation of the metrics over runs that differ in their seed alone, the best setting first."""
    paper: bool = False
    """Whether the paper's published metrics are shown beside them."""


def compare_runs(
    directories: Sequence[str | os.PathLike[str]],
    *,
    split: str = "test",
    seed: int = 0,
    resamples: int = bootstrap.RESAMPLES,
    paper: bool = False,
) -> Comparison:
    """Compare runs on the films of one split, as each decides with its own thresholds for each genre.

    Args:
        directories: Directories of at least two finished runs.
        split: Split of the predictions.
        seed: Random seed of the bootstrap.
        resamples: Number of resamples of the bootstrap.
        paper: Whether to show the paper's published metrics beside them.

    Raises:
        ConfigError: There are fewer than two directories, or one is given twice.
        CheckpointError: A directory is not a finished run.
        DataError: The runs were evaluated on different films, labels or vocabularies.
    """
    if len({Path(directory).resolve() for directory in directories}) < max(2, len(directories)):
        raise ConfigError("compare needs at least two different run directories: name two or more finished runs")
    runs = [open_run(directory, split) for directory in directories]
    for run in runs:
        # the trials of a study are evaluated on validation alone
        if split != "validation" or run.files.status != "evaluating":
            run.require_finished()
    stored = [run.predictions(split) for run in runs]
    names = _names(runs)
    lineage = _lineage(runs, names)
    if lineage and len({one.metadata.get("split_sha256") for one in stored}) > 1:
        # the films that all have had from the first of them on, by the newest labels
        truth = int(np.argmax([len(ancestors(run.files)) for run in runs]))
        named = [named_as_in(runs[truth], run, one) for run, one in zip(runs, stored, strict=True)]
        stored = on_shared_films(named, truth=truth)
    for other, name in zip(stored[1:], names[1:], strict=True):
        require_same_films(stored[0], other, names[0], name)
    rows, samples = [], []
    for run, name, one in zip(runs, names, stored, strict=True):
        row, drawn = _row(one, seed, resamples)
        metrics = run.metrics(split)
        cost = {key: metrics.get(key) for key in ("seconds", "trainable_parameters")}
        rows.append({"run": name, **row, **cost})
        samples.append(drawn)
    best = int(np.argmax([-1.0 if np.isnan(row["f1_micro"]) else row["f1_micro"] for row in rows]))
    for index, row in enumerate(rows):
        for name, _ in COMPARED:
            same = index == best
            row[f"{name}_p"] = None if same else bootstrap.paired_p_value(samples[best][name], samples[index][name])
    order = sorted(range(len(rows)), key=lambda index: (index != best, -np.nan_to_num(rows[index]["f1_micro"])))
    optimistic = split == "validation" or any(run.test_is_validation for run in runs)
    ordered = [rows[index] for index in order]
    settings = differing_settings(runs, names)
    seeds = over_seeds(ordered, settings, [name for name, _ in COMPARED])
    films = len(stored[0].predictions)
    return Comparison(films, split, names[best], optimistic, ordered, lineage, readable(settings), seeds, paper)


def _lineage(runs: Sequence[Run], names: Sequence[str]) -> list[str]:
    """Describe which runs continue from which; nothing unless all of them are of one family."""
    chains = [ancestors(run.files) for run in runs]
    own = [run.decision.checkpoint_sha256 for run in runs]
    families = [{sha256, *(one.checkpoint_sha256 for one in chain)} for sha256, chain in zip(own, chains, strict=True)]
    if not any(chains) or not set.intersection(*families):
        return []
    name_of = dict(zip(own, names, strict=True))
    return [
        f"{name} continues from {name_of.get(chain[0].checkpoint_sha256, Path(chain[0].run).name)} "
        f"(checkpoint {chain[0].checkpoint_sha256[:12]})."
        for name, chain in zip(names, chains, strict=True)
        if chain
    ]


def require_same_films(first: StoredPredictions, second: StoredPredictions, name: str, other: str) -> None:
    """Refuse two sets of predictions that are not of the same films with the same labels.

    Raises:
        DataError: They differ; the message names the difference.
    """
    second.predictions.require_genres(first.predictions.genres)
    hashes = [stored.metadata.get("split_sha256") for stored in (first, second)]
    left, right = (np.argsort(stored.predictions.ids, kind="stable") for stored in (first, second))
    ids = np.array_equal(first.predictions.ids[left], second.predictions.ids[right])
    if not ids or (None not in hashes and hashes[0] != hashes[1]):
        # as texts: the ids of one file may be numbers, and those of the other not
        shared = len(set.intersection(*(set(map(str, one.predictions.ids.tolist())) for one in (first, second))))
        raise DataError(
            f"{name} and {other} were evaluated on different splits ({len(first.predictions)} and "
            f"{len(second.predictions)} films, {shared} in both): run both with the same data settings and seed"
        )
    first_known, second_known = (
        np.ones_like(one.predictions.labels) if one.predictions.known is None else one.predictions.known[at]
        for one, at in ((first, left), (second, right))
    )
    same_known = np.array_equal(first_known, second_known)
    if not same_known or not np.array_equal(first.predictions.labels[left], second.predictions.labels[right]):
        raise DataError(
            f"{name} and {other} have other genres for the same films: run both on the same version of the movies file"
        )


def print_comparison(comparison: Comparison, file: TextIO | None = None) -> None:
    """Print the table and its notes."""
    console = console_of(file)
    title = f"{comparison.split}: {comparison.n:,} films"
    print_stacked(console, *stacked_cells(comparison), title)
    for heading, heads, cells in extra_tables(comparison.settings, comparison.over_seeds, dict(COMPARED)):
        print_stacked(console, heads, [[[cell] for cell in row] for row in cells], heading)
    for note in notes(comparison):
        console.print(note, markup=False, soft_wrap=True)


def comparison_files(directory: str | os.PathLike[str]) -> dict[str, Path]:
    """Name the files of a comparison by their kind."""
    return {kind: Path(directory) / f"comparison.{kind}" for kind in ("md", "csv", "html")}


def is_comparison(directory: str | os.PathLike[str]) -> bool:
    """Return whether a directory holds what `write_comparison` writes, and no run."""
    files = comparison_files(directory).values()
    return all(file.is_file() for file in files) and not RunDirectory(Path(directory)).config.exists()


def write_comparison(comparison: Comparison, directory: str | os.PathLike[str]) -> dict[str, Path]:
    """Write comparison.md, comparison.csv and comparison.html, each whole or not at all; give their paths."""
    paths = comparison_files(directory)
    write_text(paths["md"], markdown(comparison))
    rows = [*comparison.rows]
    if comparison.paper:
        rows.append({name: PAPER_ROW.get(name) for name in comparison.rows[0]} | {"run": PAPER_NAME})
    write_csv(paths["csv"], rows)
    heads, cells = stacked_cells(comparison)
    values = {
        "title": f"{len(comparison.rows)} runs on {comparison.n:,} films of the {comparison.split} split",
        "notes": notes(comparison),
        "tables": [
            {"title": "", "heads": heads, "rows": cells},
            *(
                {"title": title, "heads": names, "rows": rows}
                for title, names, rows in extra_tables(comparison.settings, comparison.over_seeds, dict(COMPARED))
            ),
        ],
    }
    write_text(paths["html"], render("tables.html.j2", values))
    return paths


def markdown(comparison: Comparison) -> str:
    """Write the table and its notes as Markdown."""
    heads, cells = table_cells(comparison)
    table = markdown_table(heads, [[in_markdown(name), *figures] for name, *figures in cells])
    for title, names, rows in extra_tables(comparison.settings, comparison.over_seeds, dict(COMPARED)):
        table += f"\n\n{in_markdown(title)}\n\n{markdown_table(names, [list(map(in_markdown, row)) for row in rows])}"
    return f"{table}\n\n" + "\n".join(f"- {in_markdown(note)}" for note in notes(comparison)) + "\n"


def notes(comparison: Comparison) -> list[str]:
    """Return the notes below the table."""
    fitted_here = ["Thresholds were fitted on these very films: the metrics are optimistic."] * comparison.optimistic
    found = [
        *fitted_here,
        *comparison.lineage,
        f"{comparison.n:,} films of the {comparison.split} split, each run with its own threshold for each genre.",
        "In brackets: 95% bootstrap intervals over films (BCa); none if there are too few films for one.",
        f"p: paired bootstrap, two-sided, against '{comparison.best}' (best micro-F1), not adjusted for several runs.",
    ]
    if comparison.paper:
        found.append(
            "The paper's row is of another split, with one threshold (0.70) chosen on the films it is scored on: "
            "no p-value can be given, and it is optimistic."
        )
    return found


def table_cells(comparison: Comparison) -> tuple[list[str], list[list[str]]]:
    """Lay out heads and rows of texts, with the paper's row last if it is asked for."""
    heads = ["run"]
    for _, title in COMPARED:
        heads += [title, "p"]
    heads += ["time (s)", "parameters trained"]
    rows = []
    for row in comparison.rows:
        cells = [row["run"]]
        for name, _ in COMPARED:
            value, p = row[name], row[f"{name}_p"]
            defined = None if np.isnan(value) else float(value)
            span = None if np.isnan(row[f"{name}_low"]) else (row[f"{name}_low"], row[f"{name}_high"])
            cells.append(figure_text(defined, span))
            cells.append("" if p is None else "-" if np.isnan(p) else f"{p:.3f}")
        cells += ["" if row[key] is None else f"{float(row[key]):,.0f}" for key in ("seconds", "trainable_parameters")]
        rows.append(cells)
    if comparison.paper:
        metrics = [cell for name, _ in COMPARED for cell in (figure_text(PAPER_ROW[name]), "")]
        rows.append([PAPER_NAME, *metrics, "", ""])
    return heads, rows


def stacked_cells(comparison: Comparison) -> tuple[list[str], list[list[list[str]]]]:
    """Lay out the same as lines of few, narrow cells: a metric over its interval and its p-value, time over size."""
    flat_heads, flat = table_cells(comparison)
    heads = ["run", *(title for _, title in COMPARED), "trained in"]
    rows = []
    costs = [*comparison.rows, {}] if comparison.paper else comparison.rows
    for cells, row in zip(flat, costs, strict=True):
        lines = [[cells[0]]]
        for place in range(1, len(flat_heads) - 2, 2):
            value, _, span = cells[place].partition(" ")
            p_value = f"p {cells[place + 1]}" if cells[place + 1] else ""
            lines.append([line for line in (value, span, p_value) if line])
        seconds, size = row.get("seconds"), row.get("trainable_parameters")
        cost = ["" if seconds is None else duration(float(seconds)), "" if size is None else _count(int(size))]
        rows.append([*lines, [line for line in cost if line]])
    return heads, rows


def _count(parameters: int) -> str:
    """Write a number of parameters in twelve characters: "1.1M weights"."""
    for size, mark in ((1_000_000_000, "B"), (1_000_000, "M"), (1_000, "k")):
        if parameters >= size:
            share = parameters / size
            return f"{share:.0f}{mark} weights" if share >= 10 else f"{share:.1f}{mark} weights"
    return f"{parameters} weights"


def _row(stored: StoredPredictions, seed: int, resamples: int) -> tuple[dict[str, Any], bootstrap.Samples]:
    """Compute a run's metrics, intervals and samples; films in the order of their ids, so that samples are paired."""
    order = np.argsort(stored.predictions.ids, kind="stable")
    labels, probabilities = stored.predictions.labels[order], stored.probabilities[order]
    known = None if stored.predictions.known is None else stored.predictions.known[order]
    decided = judged(stored.decided[order], known)
    figures = {**policy_metrics(labels, decided, known), **threshold_free_metrics(labels, probabilities, known=known)}
    drawn = bootstrap.bootstrap_samples(labels, probabilities, {SHIPPED_POLICY: decided}, resamples, seed, known)
    samples = {**drawn["threshold_free"], **drawn[SHIPPED_POLICY]}
    compared = {place: {n: s for n, s in part.items() if n in dict(COMPARED)} for place, part in drawn.items()}
    spans = bootstrap.bca_intervals(labels, probabilities, {SHIPPED_POLICY: decided}, compared, known=known)
    intervals = {**spans["threshold_free"], **spans[SHIPPED_POLICY]}
    row: dict[str, Any] = {}
    for name, _ in COMPARED:
        low, high = intervals[name]
        row |= {name: figures[name], f"{name}_low": float(low), f"{name}_high": float(high)}
    return row, samples


def _names(runs: Sequence[Run]) -> list[str]:
    """Name runs by their directories, and by their paths if two directories share a name."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.directory) for run in runs]
