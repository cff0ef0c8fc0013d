"""Is a film with nothing but an overview tagged as well by a model of all inputs as by one of the overview alone?

Train both on the same splits, then compare them on the test films, paired:

    genre-lightning baseline tfidf_logreg --data.csv movies_metadata.csv --run_dir runs/overview
    genre-lightning baseline tfidf_logreg --config rich.yaml --data.csv movies_metadata.csv --run_dir runs/rich
    python benchmarks/dropped_inputs.py runs/overview runs/rich --out benchmarks/results/dropped_inputs
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
from machine import machine

from genre_lightning import Tagger
from genre_lightning.config.decision import SHIPPED_POLICY
from genre_lightning.escapes import markdown_table
from genre_lightning.evaluation import bootstrap
from genre_lightning.evaluation.comparison import require_same_films
from genre_lightning.evaluation.predictions import StoredPredictions
from genre_lightning.evaluation.runs import open_run
from genre_lightning.evaluation.scored import ScoredSplit
from genre_lightning.metrics import policy_metrics, threshold_free_metrics

_METRICS = ("f1_micro", "map_macro")


def compare(overview: Path, rich: Path, resamples: int = bootstrap.RESAMPLES, seed: int = 0) -> dict[str, Any]:
    """Compare the test metrics of two runs, and of the second one with nothing but the overviews.

    Args:
        overview: Run directory of a model of `{overview}` alone, whose stored texts are the overviews.
        rich: Run directory of a model of all inputs.
        resamples: Of the paired bootstrap.
        seed: Likewise.
    """
    runs = [open_run(place, "test").require_finished() for place in (overview, rich)]
    plain, full = (run.predictions("test") for run in runs)
    require_same_films(plain, full, runs[0].name, runs[1].name)
    if plain.predictions.ids.tolist() != full.predictions.ids.tolist():
        raise SystemExit("the runs have their films in different orders: train both on the same file")
    tagger = Tagger(rich)
    logits = tagger.scorer.logits([tagger.cells(text) for text in plain.predictions.texts])
    dropped = ScoredSplit(replace(plain.predictions, logits=logits), tagger.decision)
    scored = {
        "overview alone": (plain.probabilities, plain.decided),
        "all inputs": (full.probabilities, full.decided),
        "all inputs, given the overview alone": (dropped.probabilities, dropped.decided[SHIPPED_POLICY]),
    }
    rows, samples = [], []
    for name, (probabilities, decided) in scored.items():
        figures, drawn = _figures(plain, probabilities, decided, resamples, seed)
        samples.append(drawn)
        row: dict[str, Any] = {"model": name}
        for metric in _METRICS:
            row[metric] = float(figures[metric])
            if len(samples) > 1:
                difference = drawn[metric] - samples[0][metric]
                low, high = np.quantile(difference, [0.025, 0.975])
                row[f"{metric}_difference"] = [figures[metric] - rows[0][metric], float(low), float(high)]
                row[f"{metric}_p"] = bootstrap.paired_p_value(drawn[metric], samples[0][metric])
        rows.append(row)
    return {"films": len(plain.predictions), "rows": rows}


def _figures(
    truth: StoredPredictions, probabilities: Any, decided: Any, resamples: int, seed: int
) -> tuple[dict[str, float], dict[str, Any]]:
    labels, known = truth.predictions.labels, truth.predictions.known
    drawn = bootstrap.bootstrap_samples(labels, probabilities, {SHIPPED_POLICY: decided}, resamples, seed, known)
    figures = policy_metrics(labels, decided, known) | threshold_free_metrics(labels, probabilities, known=known)
    return figures, {**drawn["threshold_free"], **drawn[SHIPPED_POLICY]}


def table(results: dict[str, Any]) -> str:
    """Write the rows as a table in Markdown."""
    lines = []
    for row in results["rows"]:
        cells = [row["model"]]
        for metric in _METRICS:
            change = row.get(f"{metric}_difference")
            cells += [f"{row[metric]:.3f}", f"{change[0]:+.3f} [{change[1]:+.3f}, {change[2]:+.3f}]" if change else ""]
        lines.append(cells)
    return markdown_table(["model", "micro-F1", "difference", "mAP", "difference"], lines)


def main() -> None:
    """Compare and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("overview", type=Path, help="run directory of a model of the overview alone")
    parser.add_argument("rich", type=Path, help="run directory of a model of all inputs")
    parser.add_argument("--out", type=Path, help="path without ending of a JSON and a Markdown file")
    options = parser.parse_args()
    results = {"date": date.today().isoformat(), **machine("cpu"), **compare(options.overview, options.rich)}
    print(table(results))
    if options.out:
        options.out.with_suffix(".json").write_text(json.dumps(results, indent=2) + "\n")
        options.out.with_suffix(".md").write_text(table(results) + "\n")


if __name__ == "__main__":
    main()
