"""A continued run against its parent, on the test films that both have: what was gained, and what was forgotten."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import pyarrow as pa
from rich import box
from rich.table import Table

from genre_lightning.config.decision import SHIPPED_POLICY
from genre_lightning.errors import DataError
from genre_lightning.evaluation import bootstrap
from genre_lightning.evaluation.console import console_of
from genre_lightning.evaluation.predictions import Predictions, StoredPredictions
from genre_lightning.evaluation.runs import Run
from genre_lightning.files import json_value, read_json, read_parquet, write_json
from genre_lightning.metrics import judged
from genre_lightning.runs import RunDirectory
from genre_lightning.shapes import Shape, boolean, count, maybe_number, text

LEVEL = 0.05
"""Significance level of "worse", after Holm's correction."""
OVERALL = (("f1_micro", "micro-F1"), ("f1_macro", "macro-F1"), ("map_macro", "mAP"))
_ROW: dict[str, Shape] = {"name": text, "old": maybe_number, "new": maybe_number, "p": maybe_number, "worse": boolean}
_SHAPE: Shape = {"parent": text, "n": count, "overall": [_ROW], "genres": [{**_ROW, "support": count}]}


def on_shared_films(stored: Sequence[StoredPredictions], truth: int) -> list[StoredPredictions]:
    """Reduce predictions to the films and genres that all of them have, with the labels of one.

    Args:
        stored: Of several runs.
        truth: Number of the run whose labels count for all.

    Raises:
        DataError: They have no film or no genre in common.
    """
    names = [[str(name) for name in one.predictions.ids.tolist()] for one in stored]
    places = [{name: row for row, name in enumerate(of_run)} for of_run in names]
    films = [name for name in names[truth] if all(name in place for place in places)]
    genres = [g for g in stored[truth].predictions.genres if all(g in one.predictions.genres for one in stored)]
    if not films or not genres:
        raise DataError("the runs have no test film and genre in common: compare runs on the same films")
    found = []
    rows_of_truth = [places[truth][name] for name in films]
    labels = _cut(stored[truth].predictions.labels, rows_of_truth, stored[truth].predictions, genres)
    mask = stored[truth].predictions.known
    known = None if mask is None else _cut(mask, rows_of_truth, stored[truth].predictions, genres)
    for one, place in zip(stored, places, strict=True):
        p, rows = one.predictions, [place[name] for name in films]
        predictions = Predictions(
            tuple(genres),
            np.array(films, dtype=object),
            [p.titles[row] for row in rows],
            [p.texts[row] for row in rows],
            labels,
            _cut(p.logits, rows, p, genres),
            None if known is None or known.all() else known,
        )
        cut = replace(
            one,
            predictions=predictions,
            probabilities=_cut(one.probabilities, rows, p, genres),
            decided=_cut(one.decided, rows, p, genres),
        )
        found.append(replace(cut, metadata={k: v for k, v in cut.metadata.items() if k != "split_sha256"}))
    return found


def _cut(values: Any, rows: Sequence[int], predictions: Predictions, genres: Sequence[str]) -> Any:
    return values[np.ix_(rows, [predictions.genres.index(name) for name in genres])]


def against_parent(run: Run, parent: Run, *, seed: int = 0, resamples: int | None = None) -> dict[str, Any]:
    """Compare a continued run with its parent on the parent's test films, over all genres and for each.

    Each run decides with its own thresholds. p-values are of the paired bootstrap, corrected by Holm's method among the
    overall metrics and among the genres.

    Args:
        run: The continued run, evaluated.
        parent: Its parent.
        seed: Random seed of the bootstrap.
        resamples: Of the bootstrap; None for as many as the number of genres needs.

    Raises:
        CheckpointError: Predictions are missing or damaged.
        DataError: The runs have no test film in common.
    """
    old, new = on_shared_films([named_as_in(run, parent, parent.predictions("test")), run.predictions("test")], truth=1)
    labels, known = new.predictions.labels, new.predictions.known
    resamples = resamples or bootstrap.resamples_for(labels.shape[1], LEVEL)
    drawn = [_samples(one, seed, resamples) for one in (old, new)]
    exact = [_samples(one, seed, 0) for one in (old, new)]
    overall = _rows([title for _, title in OVERALL], *(_columns(s) for s in (*drawn, *exact)))
    genres = _rows(new.predictions.genres, *(s["f1"] for s in (*drawn, *exact)))
    for row, support in zip(genres, labels.sum(axis=0).tolist(), strict=True):
        row["support"] = support
    found = {
        "parent": str(parent.directory),
        "n": len(labels),
        "partly_known": known is not None,
        "overall": overall,
        "genres": genres,
    }
    value = json_value(found)
    assert isinstance(value, dict)
    return value


def named_as_in(run: Run, other: Run, stored: StoredPredictions) -> StoredPredictions:
    """Return another run's predictions; if its ids are numbers of rows, with the run's ids of the same texts.

    Args:
        run: A run that continues from the other one, or that run itself.
        other: The other run.
        stored: Its predictions.

    Raises:
        CheckpointError: Splits are damaged.
    """
    films, own = _kept_films(other), _kept_films(run)
    if films is None or own is None or not _is_numbered(films) or _is_numbered(own):
        return stored
    name_of = dict(zip(own["text_digest"].to_pylist(), own["id"].to_pylist(), strict=True))
    digest_of = dict(zip(films["id"].to_pylist(), films["text_digest"].to_pylist(), strict=True))
    ids = [name_of.get(digest_of[str(name)], f"row {name}") for name in stored.predictions.ids.tolist()]
    return replace(stored, predictions=replace(stored.predictions, ids=np.array(ids, dtype=object)))


def _kept_films(run: Run) -> pa.Table | None:
    """Read the ids of a run's films and the digests of their texts; None for a run of a version that kept none."""
    path = RunDirectory(Path(run.directory)).splits
    return read_parquet(path, ["id", "text_digest"]) if path.is_file() else None


def _is_numbered(films: pa.Table) -> bool:
    """Return whether the ids are numbers of rows, as the file has none."""
    return b"numbered" in (films.schema.metadata or {})


def _samples(stored: StoredPredictions, seed: int, resamples: int) -> bootstrap.Samples:
    """Return the metrics of resamples of the films, or of the films themselves for no resamples."""
    labels, known = stored.predictions.labels, stored.predictions.known
    decided = judged(stored.decided, known)
    if not resamples:
        once = np.ones((1, len(labels)), dtype=np.float32)
        return {
            **bootstrap.policy_samples(labels, decided, once, known),
            **bootstrap.threshold_free_samples(labels, stored.probabilities, once, known),
        }
    drawn = bootstrap.bootstrap_samples(labels, stored.probabilities, {SHIPPED_POLICY: decided}, resamples, seed, known)
    return {**drawn["threshold_free"], **drawn[SHIPPED_POLICY]}


def _columns(samples: bootstrap.Samples) -> Any:
    return np.stack([samples[name] for name, _ in OVERALL], axis=1)


def _rows(names: Sequence[str], old: Any, new: Any, old_value: Any, new_value: Any) -> list[dict[str, Any]]:
    """Make a row for each column of samples (resamples, names) and of exact values (1, names)."""
    p = np.array([bootstrap.paired_p_value(old[:, column], new[:, column]) for column in range(len(names))])
    defined = ~np.isnan(p)
    p[defined] = bootstrap.holm(p[defined])
    before, now = old_value[0], new_value[0]
    return [
        {
            "name": name,
            "old": float(before[column]),
            "new": float(now[column]),
            "p": float(p[column]),
            "worse": bool(now[column] < before[column] and p[column] < LEVEL),
        }
        for column, name in enumerate(names)
    ]


def is_worse(comparison: Mapping[str, Any]) -> list[str]:
    """Name the metrics and genres in which a run is significantly worse than its parent."""
    return [row["name"] for row in (*comparison["overall"], *comparison["genres"]) if row["worse"]]


def verdict(comparison: Mapping[str, Any]) -> str:
    """Return a sentence on whether the run is better or worse than its parent."""
    if worse := is_worse(comparison):
        return f"significantly worse than the parent on its test films: {', '.join(worse)}"
    rows = (*comparison["overall"], *comparison["genres"])
    compared = [row for row in rows if None not in (row["p"], row["new"], row["old"])]
    better = [row["name"] for row in compared if row["p"] < LEVEL and row["new"] > row["old"]]
    if better:
        return f"significantly better than the parent on its test films: {', '.join(better)}; worse in nothing"
    return "not significantly different from the parent on its test films"


def comparison_path(run: RunDirectory) -> Path:
    """Return the path of the comparison of a run with its parent."""
    return run.path / "evaluation" / "against_parent.json"


def write_against_parent(run: RunDirectory, parent: RunDirectory, seed: int) -> dict[str, Any]:
    """Compare a run with its parent, and keep that in the run directory; see `against_parent`."""
    found = against_parent(Run(run.path), Run(parent.path), seed=seed)
    write_json(comparison_path(run), found)
    return found


def read_against_parent(run: RunDirectory) -> dict[str, Any] | None:
    """Read the comparison of a run with its parent; None for a run without one.

    Raises:
        CheckpointError: It is damaged.
    """
    path = comparison_path(run)
    return read_json(path, _SHAPE, f"delete it, then {run.again}") if path.is_file() else None


def print_against_parent(comparison: Mapping[str, Any], file: TextIO | None = None) -> None:
    """Print the comparison as a table, and the verdict."""
    console = console_of(file)
    title = f"against {Path(comparison['parent']).name}, on {comparison['n']:,} of its test films"
    table = Table(box=box.ASCII, title=title, title_justify="left")
    table.add_column("metric or genre (F1)", overflow="fold")
    for head in ("films", "old", "new", "change", "p (Holm)", ""):
        table.add_column(head, justify="right", no_wrap=True)
    for cells in against_cells(comparison):
        table.add_row(*cells)
    console.print(table)
    console.print(verdict(comparison), soft_wrap=True)


def against_cells(comparison: Mapping[str, Any]) -> list[list[str]]:
    """Lay out the rows of a comparison as texts: name, films, old, new, change, p-value and whether it is worse."""
    cells = []
    for row in (*comparison["overall"], *comparison["genres"]):
        old, new, p = row["old"], row["new"], row["p"]
        numbers = ["-" if value is None else f"{value:.3f}" for value in (old, new)]
        change = "-" if None in (old, new) else f"{new - old:+z.3f}"
        films = f"{row.get('support', comparison['n']):,}"
        cells.append([row["name"], films, *numbers, change, "-" if p is None else f"{p:.3f}", "worse" * row["worse"]])
    return cells
