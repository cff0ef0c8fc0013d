"""Results of experiments: metrics of a run with their bootstrap samples, as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from experiments import Experiment, Suite

from genre_lightning.evaluation.bootstrap import bootstrap_samples
from genre_lightning.evaluation.runs import open_run
from genre_lightning.evaluation.scored import ScoredSplit
from genre_lightning.metrics import judged, policy_metrics, threshold_free_metrics

FOLDER = Path(__file__).resolve().parents[1] / "results" / "ablations"
RESAMPLES = 500
METRICS = {
    "micro-F1": ("per_genre", "f1_micro"),
    "micro-F1, one threshold": ("global", "f1_micro"),
    "uncalibrated micro-F1": ("as_is", "f1_micro"),
    "macro-F1": ("per_genre", "f1_macro"),
    "mAP": ("threshold_free", "map_macro"),
}


def result_file(suite: Suite, name: str, seed: int) -> Path:
    """Return where the result of an experiment is kept."""
    return FOLDER / suite.name / f"{name}-seed{seed}.json"


def measure(run_dir: Path, constant: bool = False) -> dict[str, Any]:
    """Return the test metrics of a run, and the number of films and of trained parameters.

    Each metric is a list: its value on all test films, then on each resample. Two runs on the same films have the same
    resamples, so that their results are paired.

    Args:
        run_dir: The run's directory.
        constant: Measure what the run is compared with: the most frequent genres for every film.
    """
    run = open_run(run_dir, "test").require_finished()
    metrics = run.metrics("test")
    predictions = run.predictions("test").predictions
    scored = ScoredSplit(predictions, run.decision)
    decided = {"as_is": scored.uncalibrated > 0.5, **scored.decided}
    probabilities = scored.probabilities
    if constant:
        probabilities = np.full_like(probabilities, 0.5)
        always = np.isin(predictions.genres, metrics["trivial_baseline"]["genres"])
        decided = {policy: np.broadcast_to(always, chosen.shape) for policy, chosen in decided.items()}
    order = np.argsort(predictions.ids, kind="stable")
    labels, probabilities = scored.labels[order], probabilities[order]
    known = None if scored.known is None else scored.known[order]
    decided = {policy: judged(chosen[order], known) for policy, chosen in decided.items()}
    exact = {policy: policy_metrics(labels, chosen, known) for policy, chosen in decided.items()}
    exact["threshold_free"] = threshold_free_metrics(labels, probabilities, known=known)
    drawn = bootstrap_samples(labels, probabilities, decided, RESAMPLES, known=known)
    return {
        "films": {name: split["films"] for name, split in (run.audit() or {}).get("splits", {}).items()},
        "test_sha256": metrics["split_sha256"],
        "trained_parameters": 0 if constant else metrics.get("trainable_parameters"),
        "metrics": {
            name: [round(float(value), 5) for value in (exact[place][key], *drawn[place][key])]
            for name, (place, key) in METRICS.items()
        },
    }


def read_results(suite: Suite) -> dict[tuple[str, int], dict[str, Any]]:
    """Read the results of a suite by experiment and seed; leave out those of an experiment that is another one now."""
    found = {}
    for experiment in suite.experiments:
        for seed in range(experiment.seeds):
            path = result_file(suite, experiment.name, seed)
            if path.is_file():
                result = json.loads(path.read_text(encoding="utf-8"))
                if _is_of(result, experiment):
                    found[experiment.name, seed] = result
    return found


def _is_of(result: dict[str, Any], experiment: Experiment) -> bool:
    described = experiment.description()
    return {name: result.get(name) for name in described} == described
