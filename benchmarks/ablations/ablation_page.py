"""The page of a suite: a table of its experiments and a plot of their differences."""

from __future__ import annotations

import textwrap
from pathlib import Path
from typing import Any

import numpy as np
from experiments import Experiment, Suite
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from measured import read_results

from genre_lightning.escapes import markdown_table
from genre_lightning.evaluation.bootstrap import paired_p_value
from genre_lightning.files import write_text

SHOWN = ("micro-F1", "mAP")
_LABEL_WIDTH = 60
"""Characters of a line of a row's name in the plot."""
Results = dict[tuple[str, int], dict[str, Any]]


def samples_of(results: Results, experiment: Experiment, metric: str) -> np.ndarray | None:
    """Return a metric on all test films and on the resamples, (seeds, 1 + resamples); None without results."""
    seeds = [results.get((experiment.name, seed)) for seed in range(experiment.seeds)]
    values = [found["metrics"][metric] for found in seeds if found and metric in found["metrics"]]
    return np.array(values) if values else None


def difference(results: Results, suite: Suite, experiment: Experiment, metric: str) -> dict[str, float] | None:
    """Return the mean difference to the experiment that this one is compared with, its 95% interval and its p-value.

    Seeds that both have count. The interval is that of the paired bootstrap over test films.

    Raises:
        SystemExit: The results are of different test films.
    """
    if experiment.against is None:
        return None
    other = suite[experiment.against]
    pairs = [
        (results[experiment.name, seed], results[other.name, seed])
        for seed in range(experiment.seeds)
        if (experiment.name, seed) in results and (other.name, seed) in results
    ]
    if not pairs:
        return None
    if any(one["test_sha256"] != two["test_sha256"] for one, two in pairs):
        raise SystemExit(f"{experiment.name} and {other.name} have other test films: measure both on the same file")
    ours, theirs = (np.mean([pair[side]["metrics"][metric] for pair in pairs], axis=0) for side in (0, 1))
    low, high = np.nanquantile((ours - theirs)[1:], [0.025, 0.975])
    return {
        "seeds": len(pairs), "difference": float(ours[0] - theirs[0]), "low": float(low), "high": float(high),
        "p": paired_p_value(ours[1:], theirs[1:]),
    }  # fmt: skip


def table(suite: Suite, results: Results) -> str:
    """Return the experiments that have results as a table in Markdown."""
    several = max(experiment.seeds for experiment in suite.experiments) > 1
    heads = ["experiment", *(["seeds"] if several else []), "films trained on"]
    for metric in SHOWN:
        heads += [metric, "difference [95%]"]
    heads += [*suite.columns, "parameters trained", "CPU s", "peak GiB"]
    rows = []
    for experiment in suite.experiments:
        own = [found for seed in range(experiment.seeds) if (found := results.get((experiment.name, seed)))]
        if not own or not experiment.evaluated:
            continue
        cells = [_label(suite, experiment), *([str(len(own))] if several else []), _count(own[0]["films"].get("train"))]
        for metric in SHOWN:
            cells += [_values(results, experiment, metric), _change(difference(results, suite, experiment, metric))]
        cells += [_values(results, experiment, metric) for metric in suite.columns]
        cells.append(_count(own[0]["trained_parameters"]))
        cells.append(_count(round(np.mean([found["cpu_seconds"] for found in own]))))
        cells.append(f"{max(found['peak_gib'] for found in own):.1f}")
        rows.append(cells)
    return markdown_table(heads, rows)


def _label(suite: Suite, experiment: Experiment) -> str:
    """Return an experiment's title, with what its differences are to if that is not the suite's first experiment."""
    if experiment.against in (None, suite.experiments[0].name):
        return experiment.title
    return f"{experiment.title} (to: {suite[experiment.against].title})"


def _values(results: Results, experiment: Experiment, metric: str) -> str:
    values = samples_of(results, experiment, metric)
    if values is None:
        return ""
    deviation = f" ± {values[:, 0].std(ddof=1):.3f}" if len(values) > 1 else ""
    return f"{values[:, 0].mean():.3f}{deviation}"


def _change(found: dict[str, float] | None) -> str:
    if found is None:
        return ""
    mark = "**" if found["p"] < 0.05 else ""
    return f"{mark}{found['difference']:+.3f}{mark} [{found['low']:+.3f}, {found['high']:+.3f}]"


def _count(number: int | None) -> str:
    return "" if number is None else f"{number:,}"


def plot(suite: Suite, results: Results) -> Figure | None:
    """Draw the differences with their intervals; None if there are none."""
    rows = []
    for experiment in suite.experiments:
        found = [difference(results, suite, experiment, metric) for metric in SHOWN]
        if all(found):
            rows.append((experiment, found))
    if not rows:
        return None
    names = [textwrap.wrap(_label(suite, experiment), _LABEL_WIDTH) for experiment, _ in rows]
    height = 0.24 * len(rows) * (1.5 if any(len(name) > 1 for name in names) else 1)
    figure = Figure(figsize=(9, 1.2 + height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(1, len(SHOWN), sharey=True)
    places = np.arange(len(rows))[::-1]
    for number, (axis, metric) in enumerate(zip(axes, SHOWN, strict=True)):
        for place, (_, found) in zip(places, rows, strict=True):
            change = found[number]
            assert change is not None
            colour = "tab:blue" if change["p"] < 0.05 else "0.6"
            axis.plot([change["low"], change["high"]], [place, place], color=colour, linewidth=1.5)
            axis.plot(change["difference"], place, "o", color=colour, markersize=4)
        axis.axvline(0, color="0.3", linewidth=0.8)
        axis.set_xlabel(f"difference of {metric},\n95% interval")
        axis.grid(axis="x", color="0.9")
        axis.xaxis.set_major_locator(MaxNLocator(4))
    axes[0].set_yticks(places, ["\n".join(name) for name in names], fontsize=7)
    return figure


def write_page(suite: Suite, folder: Path) -> list[Path]:
    """Write the page and the plot of a suite's results; return their paths."""
    results = read_results(suite)
    if not results:
        return []
    paths = [folder / f"ablation_{suite.name}.md"]
    dates = sorted({found["date"] for found in results.values()})
    on = sorted({_machine(found["machine"]) for found in results.values()})
    rows = sum(experiment.seeds for experiment in suite.experiments)
    mixed = " CPU seconds of rows from different processors do not compare." if len(on) > 1 else ""
    left = f" {rows - len(results)} of the {rows} runs have not been made." if len(results) < rows else ""
    parts = [
        f"# {suite.title}",
        suite.about,
        f"{' to '.join(dict.fromkeys((dates[0], dates[-1])))}, {'; '.join(on)}. Metrics of the test films at the "
        "thresholds fitted on validation, one for each genre. Intervals are those of the paired bootstrap over test "
        "films; a difference in bold has p < "
        f"0.05, uncorrected for the number of rows.{mixed}{left}",
        table(suite, results),
    ]
    figure = plot(suite, results)
    if figure is not None:
        paths.append(paths[0].with_suffix(".png"))
        figure.savefig(paths[1], dpi=120, metadata={"Software": None})
        parts.append(f"![Differences with their intervals]({paths[1].name})")
    write_text(paths[0], "\n\n".join(parts) + "\n")
    return paths


def _machine(on: dict[str, Any]) -> str:
    return f"{on['processor']}, {on['threads']} thread{'s' if on['threads'] > 1 else ''} a run, torch {on['torch']}"
