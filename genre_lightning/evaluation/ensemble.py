"""Weighted mean of several runs' probabilities, evaluated like any run."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import scipy  # its parts are imported when they are used, in half a second
from numpy.typing import NDArray

from genre_lightning.config.decision import Calibration
from genre_lightning.errors import ConfigError
from genre_lightning.evaluation import bootstrap
from genre_lightning.evaluation.comparison import require_same_films
from genre_lightning.evaluation.decisions import fit_decision, write_decision
from genre_lightning.evaluation.evaluate import write_evaluation
from genre_lightning.evaluation.films import EvaluatedFilms
from genre_lightning.evaluation.predictions import Predictions, StoredPredictions
from genre_lightning.evaluation.runs import open_run
from genre_lightning.files import write_json
from genre_lightning.metrics import BoolArray, FloatArray, known_pairs
from genre_lightning.provenance import device_name, made_by
from genre_lightning.runs import ENSEMBLE, RunDirectory, kind_of

_EDGE = 1e-7  # keeps the log-odds of a saturated mean finite


def fit_weights(
    probabilities: Sequence[FloatArray], labels: BoolArray, steps: int = 500, tolerance: float = 1e-9
) -> NDArray[np.float64]:
    """Find the weights of least binary cross-entropy of the weighted mean of probabilities.

    The mean is a mixture, so expectation-maximisation finds them: each step multiplies a weight by the mean of its
    run's likelihood over the mixture's. The loss is convex in the weights and falls with every step.

    Args:
        probabilities: One floating (films, genres) array for each run.
        labels: bool (films, genres).
        steps: The most to take.
        tolerance: Change of a weight below which to stop.

    Returns:
        float64 (runs,), not negative, of sum 1.
    """
    likelihood = np.stack([np.where(labels, p, 1 - p).ravel().astype(np.float64) for p in probabilities])
    likelihood = np.clip(likelihood, _EDGE, None)
    weights = np.full(len(likelihood), 1 / len(likelihood))
    for _ in range(steps):
        updated = weights * (likelihood / (weights @ likelihood)).mean(axis=1)
        if np.abs(updated - weights).max() < tolerance:
            break
        weights = updated
    return weights / weights.sum()


def combine(stored: Sequence[StoredPredictions], weights: NDArray[np.float64]) -> Predictions:
    """Give the predictions whose log-odds are those of the weighted mean, films in the first run's order."""
    first = stored[0].predictions
    logits = mean_log_odds(_aligned(stored), weights)
    return Predictions(
        first.genres, first.ids, first.titles, first.texts, first.labels, logits, first.known, first.languages
    )


def mean_log_odds(probabilities: Sequence[FloatArray], weights: NDArray[np.float64]) -> NDArray[np.float32]:
    """Give the log-odds, (films, genres), of the weighted mean of each run's probabilities of that shape."""
    mean = np.tensordot(weights, np.stack(probabilities).astype(np.float64), axes=1)
    return scipy.special.logit(np.clip(mean, _EDGE, 1 - _EDGE)).astype(np.float32)


def write_ensemble(
    run_directory: str | os.PathLike[str],
    directories: Sequence[str | os.PathLike[str]],
    *,
    calibration: Calibration = "auto",
    figures: bool = True,
    seed: int = 0,
    resamples: int = bootstrap.RESAMPLES,
    before_writing: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Fit an ensemble on validation, evaluate it on test, and write both as a run directory.

    Args:
        run_directory: Run directory of the ensemble.
        directories: Directories of at least two runs evaluated on validation and test.
        calibration: Calibration of the mean of the logits.
        figures: Whether to draw plots too.
        seed: Random seed of the bootstrap and of the thresholds' resampling.
        resamples: Number of resamples of the bootstrap.
        before_writing: Called once all runs have been read and checked, such as to take the directory's lock.

    Returns:
        The weight of each run, by its absolute path.

    Raises:
        ConfigError: There are fewer than two runs, or the ensemble's directory holds one of them or another run.
        CheckpointError: A directory is not a finished run.
        DataError: The runs are of different splits.
    """
    paths = [Path(directory).resolve() for directory in directories]
    if len(set(paths)) < max(2, len(paths)):
        raise ConfigError("ensemble needs at least two different run directories: name two or more finished runs")
    if Path(run_directory).resolve() in paths:
        raise ConfigError(
            f"run_dir {run_directory} is one of the runs to combine: give the ensemble its own directory with --run_dir"
        )
    files = RunDirectory(Path(run_directory))
    require_no_other_run(files)
    runs = [open_run(directory, "validation", "test").require_finished() for directory in directories]
    for run in runs:
        run.files.check_members((files.path.resolve(),))
    _require_same_members(files, paths)
    sets = {split: [run.predictions(split) for run in runs] for split in ("validation", "test")}
    for stored in sets.values():
        for other, run in zip(stored[1:], runs[1:], strict=True):
            require_same_films(stored[0], other, runs[0].name, run.name)
    held = sets["validation"]
    first = held[0].predictions
    pairs = known_pairs(first.known, first.labels, *_aligned(held))
    weights = fit_weights(pairs[1:], pairs[0])
    named = {str(path): float(weight) for path, weight in zip(paths, weights, strict=True)}
    combined = {split: combine(stored, weights) for split, stored in sets.items()}
    decision = fit_decision(combined["validation"], "validation", calibration=calibration, seed=seed)
    audit = runs[0].audit()
    cost = {name: _sum([run.metrics("test").get(name) for run in runs]) for name in ("seconds", "trainable_parameters")}
    noted = {split: runs[0].metrics(split).get("films") for split in sets}
    before_writing()
    if audit:
        write_json(files.audit, audit)
    # JSON is YAML too
    write_json(files.config, {ENSEMBLE: {"weights": named, "fitted_on": "validation"}})
    files.set_status("evaluating")
    write_decision(decision, files.decision)
    for split, stored in sets.items():
        write_evaluation(
            files.evaluation(split).path,
            combined[split],
            decision,
            split=split,
            figures=figures,
            seed=seed,
            resamples=resamples,
            films=EvaluatedFilms.from_json(films) if (films := noted[split]) else None,
            provenance={"made_by": made_by(device_name())},
            metadata={"split_sha256": stored[0].metadata.get("split_sha256"), **cost},
        )
    files.set_status("finished")
    return named


def require_no_other_run(files: RunDirectory) -> None:
    """Refuse to write an ensemble over a run of another kind, or among files that are not a run's.

    Raises:
        ConfigError: The directory holds something else; the message names the fix.
    """
    files.check_writable()
    if files.config.is_file() and kind_of(files.settings()) != ENSEMBLE:
        raise ConfigError(f"run_dir {files.path} holds another run: name another with --run_dir")


def _require_same_members(files: RunDirectory, paths: Sequence[Path]) -> None:
    """Refuse to write an ensemble over one of other runs, which reports and other ensembles may stand on.

    Raises:
        ConfigError: With the runs that it has.
    """
    if not files.config.is_file():
        return
    members = dict((files.settings().get(ENSEMBLE) or {}).get("weights") or {})
    if set(members) != set(map(str, paths)):
        names = ", ".join(Path(member).name for member in members)
        raise ConfigError(f"run_dir {files.path} holds an ensemble of {names}: name another with --run_dir")


def _sum(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) if len(known) == len(values) else None


def _aligned(stored: Sequence[StoredPredictions]) -> list[NDArray[np.float32]]:
    """Give each run's probabilities with films in the first run's order."""
    first = np.argsort(stored[0].predictions.ids, kind="stable")
    aligned = []
    for one in stored:
        rows = np.empty_like(first)
        rows[first] = np.argsort(one.predictions.ids, kind="stable")
        aligned.append(one.probabilities[rows])
    return aligned
