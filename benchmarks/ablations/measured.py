"""Results of experiments: metrics of a run with their bootstrap samples, as JSON."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from experiments import Experiment, Suite

from genre_lightning.evaluation.bootstrap import film_weights, policy_samples, threshold_free_samples
from genre_lightning.evaluation.runs import open_run
from genre_lightning.evaluation.scored import ScoredSplit
from genre_lightning.metrics import judged

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

    Args:
        run_dir: The run's directory.
        constant: Measure what the run is compared with: the most frequent genres for every film.

    Each metric is a list: its value on all test films, then on each resample of them. The resamples of two runs on the
    same films are the same, so that the results of two runs are paired.
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
    parts: dict[str, list[np.ndarray]] = {name: [] for name in METRICS}
    for weights in (np.ones((1, len(labels)), dtype=np.float32), *film_weights(len(labels), RESAMPLES)):
        found = {"threshold_free": threshold_free_samples(labels, probabilities, weights, known)}
        found |= {policy: policy_samples(labels, chosen, weights, known) for policy, chosen in decided.items()}
        for name, (place, key) in METRICS.items():
            parts[name].append(found[place][key])
    return {
        "films": {name: split["films"] for name, split in (run.audit() or {}).get("splits", {}).items()},
        "test_sha256": metrics["split_sha256"],
        "trained_parameters": 0 if constant else metrics.get("trainable_parameters"),
        "metrics": {name: [round(float(x), 5) for x in np.concatenate(values)] for name, values in parts.items()},
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
