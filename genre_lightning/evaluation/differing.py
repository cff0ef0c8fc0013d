"""Runs beside their settings: which of them differ, and mean and standard deviation over the seeds of one setting."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from genre_lightning.config.changes import changes_training, flatten
from genre_lightning.errors import CheckpointError
from genre_lightning.evaluation.runs import Run

_SEEDS = ("seed", "model.seed")
_MOST_SETTINGS = 12
"""Options that are shown: runs that differ in more are of different kinds, and no sweep."""


def differing_settings(runs: Sequence[Run], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return the settings of each run that are not the same for all of them.

    Args:
        runs: To compare.
        names: Of the runs.

    Returns:
        By run, the options and their values; none if no setting differs.
    """
    flat = [_settings(run) for run in runs]
    options = sorted({option for settings in flat for option in settings})
    differing = [option for option in options if len({_text(settings.get(option)) for settings in flat}) > 1]
    return {
        name: {option: settings.get(option) for option in differing}
        for name, settings in zip(names, flat, strict=True)
        if differing
    }


def over_seeds(
    rows: Sequence[Mapping[str, Any]], settings: Mapping[str, Mapping[str, Any]], metrics: Sequence[str]
) -> list[dict[str, Any]]:
    """Return mean and standard deviation of each metric over runs that differ in their seed alone.

    Args:
        rows: A run each, with "run" and the metrics.
        settings: See `differing_settings`.
        metrics: Names.

    Returns:
        One row for each setting that several seeds have, the best first: its settings, or one of its runs if they are
        too many to be read; "seeds"; and for each metric its mean and, under NAME_std, its standard deviation.
    """
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        own = settings.get(row["run"], {})
        groups.setdefault(json.dumps(_without_seeds(own), default=str), []).append(row)
    found = []
    for group in groups.values():
        seeds = {_text([settings.get(row["run"], {}).get(name) for name in _SEEDS]) for row in group}
        if len(group) < 2 or len(seeds) < len(group):
            continue
        own = _without_seeds(settings[group[0]["run"]])
        summary: dict[str, Any] = own if len(own) <= _MOST_SETTINGS else {"such as": group[0]["run"]}
        summary["seeds"] = len(group)
        for name in metrics:
            values = [float(row[name]) for row in group]
            summary |= {name: float(np.mean(values)), f"{name}_std": float(np.std(values, ddof=1))}
        found.append(summary)
    return sorted(found, key=lambda summary: -np.nan_to_num(summary[metrics[0]]))


def readable(settings: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    """Return differing settings as they are shown: those of runs of different kinds are reduced to the seeds."""
    if max(map(len, settings.values()), default=0) <= _MOST_SETTINGS:
        return {name: dict(own) for name, own in settings.items()}
    seeds = {name: {seed: own[seed] for seed in _SEEDS if seed in own} for name, own in settings.items()}
    return seeds if any(seeds.values()) else {}


def extra_tables(
    settings: Mapping[str, Mapping[str, Any]], summaries: Sequence[Mapping[str, Any]], titles: Mapping[str, str]
) -> list[tuple[str, list[str], list[list[str]]]]:
    """Lay out the settings that differ, and the metrics over seeds: title, heads and rows of each table there is.

    Args:
        settings: See `differing_settings`.
        summaries: See `over_seeds`.
        titles: Of the metrics, by their names.
    """
    tables = [("settings that differ", *_settings_table(settings))] if settings else []
    if summaries:
        tables.append(("mean ± standard deviation over seeds", *_seeds_table(summaries, titles)))
    return tables


def _settings_table(settings: Mapping[str, Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Lay out the settings that differ, a run each."""
    options = list(next(iter(settings.values()), {}))
    return ["run", *options], [
        [name, *(_text(values[option]) for option in options)] for name, values in settings.items()
    ]


def _seeds_table(
    summaries: Sequence[Mapping[str, Any]], titles: Mapping[str, str]
) -> tuple[list[str], list[list[str]]]:
    """Lay out mean and standard deviation over seeds, a setting each."""
    known = {"seeds", *titles, *(f"{name}_std" for name in titles)}
    options = [name for name in summaries[0] if name not in known]
    rows = [
        [
            *(_text(summary[option]) for option in options),
            str(summary["seeds"]),
            *(f"{summary[name]:.3f} ± {summary[f'{name}_std']:.3f}" for name in titles),
        ]
        for summary in summaries
    ]
    return [*options, "seeds", *titles.values()], rows


def _settings(run: Run) -> dict[str, Any]:
    try:
        settings = run.files.settings()
    except CheckpointError:
        return {}
    flat = {name.replace(".init_args.", "."): value for name, value in flatten(settings).items()}
    return {name: value for name, value in flat.items() if changes_training(name)}


def _without_seeds(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name not in _SEEDS}


def _text(value: Any) -> str:
    return (
        f"{value:g}"
        if isinstance(value, float)
        else value
        if isinstance(value, str)
        else json.dumps(value, default=str)
    )
