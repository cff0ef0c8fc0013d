"""The page, the table and the lines about a study."""

from __future__ import annotations

import json

from rich import box
from rich.table import Table

from genre_lightning.evaluation.console import console_of, figure_text
from genre_lightning.evaluation.report import render
from genre_lightning.files import write_csv, write_text
from genre_lightning.progress import duration
from genre_lightning.tuning.plots import as_uris, study_figures
from genre_lightning.tuning.results import StudyResults, TrialResult
from genre_lightning.tuning.study import StudyDirectory

_MOST_SHOWN = 10
"""Trials that the terminal shows; the page and trials.csv have all."""


def write_page(folder: StudyDirectory, results: StudyResults) -> None:
    """Write study.html and trials.csv."""
    trials = results.trials
    names = list(dict.fromkeys(name for trial in trials for name in trial.options))
    failed = [trial for trial in trials if trial.state == "failed"]
    values = {
        "title": f"Study {folder.path.name}: {len(trials)} trials",
        "notes": notes(results),
        "figures": as_uris(study_figures(results)),
        "tables": [
            {"title": "Best, and not significantly worse: the simplest first", **_table(results.equals, names)},
            {"title": "All complete trials", **_table(results.ranked, names)},
            {"title": "Pruned trials", **_table([t for t in trials if t.state == "pruned"], names)},
            {
                "title": "Failed trials",
                "heads": ["trial", "reason"],
                "rows": [[str(trial.number), trial.reason or ""] for trial in failed],
            },
        ],
    }
    values["tables"] = [table for table in values["tables"] if table["rows"]]  # type: ignore[index]
    write_text(folder.page, render("study.html.j2", values))
    if trials:
        write_csv(folder.table, [_row(trial, names) for trial in trials])


def notes(results: StudyResults) -> list[str]:
    """Return what the tables' columns are."""
    counts = ", ".join(f"{count} {state}" for state, count in results.counts.items())
    lines = [f"{len(results.trials)} of {results.planned} trials: {counts}."] if results.trials else []
    if results.best is not None:
        lines.append(
            f"metric: {results.monitor} of the evaluation of each trial's best checkpoint on the validation split, "
            "with calibrated probabilities. In brackets: 95% bootstrap intervals over films. The best of many trials "
            "is optimistic: judge it on the test split (tune --finish)."
        )
        lines.append(
            "training: the same name's value of the training's best epoch, of raw probabilities. Sampler, pruning, "
            "importance and optuna-dashboard have this one, so that they may rank trials otherwise."
        )
        lines.append(
            f"p: paired bootstrap, two-sided, against trial {results.best}, corrected for the number of trials by "
            "Holm's method. Not significantly worse: p of 0.05 or more. Simpler: fewer trained parameters, then less "
            "time."
        )
    if results.importance:
        lines.append("Importance is Optuna's fANOVA of the complete trials; of few trials it is a rough guide.")
    return lines


def print_results(folder: StudyDirectory, results: StudyResults) -> None:
    """Print the best trials, and where all of them are."""
    console = console_of(None)
    name = results.monitor.removeprefix("val/")
    table = Table(box=box.ASCII)
    for head in ("trial", name, "p", "options"):
        table.add_column(head, overflow="fold", no_wrap=head in ("trial", "p"))
    for trial in results.ranked[:_MOST_SHOWN]:
        table.add_row(str(trial.number), _value(trial), _p(trial, results.best), _options(trial))
    if results.ranked:
        console.print(table)
    if results.importance:
        shown = ", ".join(f"{option} {share:.0%}" for option, share in results.importance.items())
        console.print(f"importance: {shown}", soft_wrap=True)
    counts = ", ".join(f"{count} {state}" for state, count in results.counts.items())
    console.print(f"{len(results.trials)} of {results.planned} trials: {counts}", soft_wrap=True)
    if results.ranked:
        console.print(
            f"{name} in the table is of each trial's evaluation, with calibrated probabilities; sampler, pruning and "
            "importance go by the training's, at its best epoch",
            soft_wrap=True,
        )
    equals = results.equals
    if len(equals) > 1:
        others = ", ".join(str(trial.number) for trial in equals)
        console.print(
            f"trials {others} are the best and those not significantly worse, the simplest first", soft_wrap=True
        )
    console.print(f"the study is in {folder.path}, to be read in {folder.page.name}", soft_wrap=True)


def as_json(folder: StudyDirectory, results: StudyResults) -> dict[str, object]:
    """Return what `--json` prints."""
    return {
        "study": str(folder.path),
        "monitor": results.monitor,
        "best": results.best,
        "not_significantly_worse": [trial.number for trial in results.equals],
        "importance": results.importance,
        "counts": results.counts,
        "trials": [{**vars(trial), "run_dir": str(folder.trial(trial.number))} for trial in results.trials],
    }


def _table(trials: list[TrialResult], names: list[str]) -> dict[str, object]:
    heads = ["trial", "metric", "training", "p", *names, "epochs", "trained in", "parameters"]
    rows = []
    for trial in trials:
        spread = f"± {trial.spread:.3f} over {len(trial.seeds) + 1} seeds" if trial.spread is not None else ""
        value, _, span = _value(trial).partition(" ")
        rows.append(
            [
                str(trial.number),
                [line for line in (value, span, spread) if line],
                "" if trial.training_value is None else f"{trial.training_value:.3f}",
                _p(trial, None),
                *("" if name not in trial.options else _short(trial.options[name]) for name in names),
                str(trial.epochs),
                "" if trial.seconds is None else duration(trial.seconds),
                "" if trial.parameters is None else f"{trial.parameters:,}",
            ]
        )
    return {"heads": heads, "rows": rows}


def _row(trial: TrialResult, names: list[str]) -> dict[str, object]:
    low, high = trial.interval or (None, None)
    return {
        "trial": trial.number, "state": trial.state, "metric": trial.value, "metric_low": low, "metric_high": high,
        "metric_in_training": trial.training_value,
        "p": trial.p_value, **{name: trial.options.get(name) for name in names}, "epochs": trial.epochs,
        "seconds": trial.seconds, "parameters": trial.parameters, "seeds": json.dumps(trial.seeds),
        "reason": trial.reason,
    }  # fmt: skip


def _value(trial: TrialResult) -> str:
    mean = trial.mean if trial.seeds else trial.value
    return figure_text(mean, trial.interval if not trial.seeds else None)


def _p(trial: TrialResult, best: int | None) -> str:
    if trial.number == best:
        return "best"
    return "" if trial.p_value is None else f"{trial.p_value:.3f}"


def _options(trial: TrialResult) -> str:
    return ", ".join(f"{name} {_short(value)}" for name, value in trial.options.items())


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
