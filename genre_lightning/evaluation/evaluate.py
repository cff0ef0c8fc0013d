"""Evaluation of predictions under a decision: metrics, and the files of an evaluation directory."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genre_lightning.config.decision import SHIPPED_POLICY
from genre_lightning.evaluation import bootstrap
from genre_lightning.evaluation.decisions import Decision
from genre_lightning.evaluation.films import EvaluatedFilms
from genre_lightning.evaluation.languages import language_rows
from genre_lightning.evaluation.predictions import Predictions
from genre_lightning.evaluation.scored import ScoredSplit
from genre_lightning.evaluation.thresholds import threshold_grid
from genre_lightning.files import json_value, replacing_folder, write_csv, write_json
from genre_lightning.metrics import (
    average_precision,
    confusion_counts,
    expected_calibration_error,
    film_cross_entropy,
    genre_calibration_error,
    genre_policy_metrics,
    judged,
    known_pairs,
    mean_defined,
    policy_metrics,
    roc_auc,
    threshold_free_metrics,
    undefined_genres,
)
from genre_lightning.runs import EvaluationDirectory


def evaluate(
    scored: ScoredSplit,
    seed: int = 0,
    *,
    split: str = "",
    resamples: int = bootstrap.RESAMPLES,
) -> dict[str, Any]:
    """Compute the metrics of metrics.json.

    Plain numbers are at `threshold_free.<name>` and `policies.<policy>.<name>`, and their 95% intervals [low, high] at
    the same path under `intervals`. Undefined metrics are None. `raw` holds loss and ece before calibration,
    and the metrics of deciding at 0.5 then. `trivial_baseline` holds those of giving every film the same genres, which
    were chosen on the split of the decision. `languages` holds the rows of `language_rows`, if there are any.

    Args:
        scored: At least one film, decided by a decision that was fitted on other films.
        seed: Random seed of the bootstrap.
        split: Name of the split.
        resamples: Number of resamples of the bootstrap; 0 for no intervals.

    Raises:
        DataError: There is no film.
    """
    predictions, decision, labels = scored.predictions, scored.decision, scored.labels
    predictions.require_films(f"evaluate on {split}" if split else "evaluate")
    probabilities, decided, raw, known = scored.probabilities, scored.judged, scored.uncalibrated, scored.known
    policies: dict[str, dict[str, float]] = {
        name: policy_metrics(labels, chosen, known) for name, chosen in decided.items()
    }
    policies["fixed_0.5"]["threshold"] = 0.5
    policies["global"]["threshold"] = decision.threshold_global
    marked = undefined_genres(labels, known)
    truth, uncalibrated = known_pairs(known, labels, raw)
    result: dict[str, Any] = {
        "n": len(predictions),
        "split": split,
        "threshold_free": threshold_free_metrics(labels, probabilities, known=known),
        "policies": policies,
        "raw": {
            "ece": expected_calibration_error(truth, uncalibrated),
            "loss": float(mean_defined(film_cross_entropy(labels, raw, known))),
            "fixed_0.5": policy_metrics(labels, judged(raw >= 0.5, known), known),
        },
        "intervals": {},
        "undefined": [genre for genre, mark in zip(predictions.genres, marked, strict=True) if mark],
        "decision": {
            "calibration": decision.calibration,
            "temperature": decision.temperature,
            "fitted_on": decision.fitted_on,
            "n_films": decision.n_films,
            "without_positives": list(decision.without_positives),
        },
    }
    if decision.constant:
        constant = np.broadcast_to(np.isin(predictions.genres, decision.constant), labels.shape)
        result["trivial_baseline"] = {
            "genres": list(decision.constant),
            "chosen_on": decision.fitted_on,
            **policy_metrics(labels, judged(constant, known), known),
        }
    if languages := language_rows(scored, seed=seed, resamples=resamples):
        result["languages"] = languages
    if resamples:
        samples = bootstrap.bootstrap_samples(labels, probabilities, decided, resamples, seed, known)
        plain = {place: {k: v for k, v in figures.items() if v.ndim == 1} for place, figures in samples.items()}
        spans = bootstrap.bca_intervals(labels, probabilities, decided, plain, known=known)
        without = [f"{place}.{name}" for place in spans for name, span in spans[place].items() if np.isnan(span).any()]
        result["intervals"] = {"threshold_free": spans.pop("threshold_free"), "policies": spans}
        result["bootstrap"] = {
            "method": "BCa",
            "level": bootstrap.LEVEL,
            "resamples": resamples,
            "seed": seed,
            "unit": "film",
            "too_few_films_for": without,
        }
    value = json_value(result)
    assert isinstance(value, dict)
    return value


def genre_rows(scored: ScoredSplit, *, seed: int = 0, resamples: int = 0) -> list[dict[str, Any]]:
    """Give the rows of per_genre.csv: one a genre, for the shipped policy.

    With `resamples` they have the 95% interval of F1 too. `calibration_error` is the ECE of the genre's calibrated
    probabilities; undefined metrics are NaN.
    """
    labels, probabilities, decided = scored.labels, scored.probabilities, scored.judged[SHIPPED_POLICY]
    figures = genre_policy_metrics(labels, decided)
    columns: dict[str, Any] = {
        "genre": scored.predictions.genres,
        "policy": [SHIPPED_POLICY] * labels.shape[1],
        "support": figures["support"],
        **({} if scored.known is None else {"known": scored.known.sum(axis=0)}),
        "decided": figures["decided"],
        "precision": figures["precision"],
        "recall": figures["recall"],
        "f1": figures["f1"],
    }
    if resamples:
        columns["f1_low"], columns["f1_high"] = bootstrap.interval_of(
            lambda weights: bootstrap.policy_samples(labels, decided, weights)["f1"],
            figures["f1"], len(labels), resamples, seed,
        )  # fmt: skip
    columns |= {
        "average_precision": average_precision(labels, probabilities, scored.known),
        "auroc": roc_auc(labels, probabilities, scored.known),
        "threshold": scored.decision.thresholds(SHIPPED_POLICY),
        "calibration_error": genre_calibration_error(labels, probabilities, known=scored.known),
    }
    return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]


def confusion_rows(scored: ScoredSplit) -> list[dict[str, Any]]:
    """Give the rows of confusion.csv: tn, fp, fn, tp for each policy and genre."""
    rows = []
    for policy, decided in scored.judged.items():
        counts = confusion_counts(scored.labels, decided, scored.known)
        for genre, (tn, fp, fn, tp) in zip(scored.predictions.genres, counts, strict=True):
            rows.append({"genre": genre, "policy": policy, "tn": tn, "fp": fp, "fn": fn, "tp": tp})
    return rows


def write_evaluation(
    directory: str | os.PathLike[str],
    predictions: Predictions,
    decision: Decision,
    *,
    split: str,
    figures: bool = True,
    seed: int = 0,
    resamples: int = bootstrap.RESAMPLES,
    metadata: Mapping[str, str | float | None] | None = None,
    films: EvaluatedFilms | None = None,
    provenance: Mapping[str, Any] | None = None,
    curves_csv: str | os.PathLike[str] | None = None,
) -> dict[str, Any]:
    """Evaluate, and write an evaluation directory whole: the one that is there stays until the new one is complete.

    top_words.json, which `explain` adds, is kept.

    Args:
        directory: Directory to write to, such as RUN/evaluation/test.
        predictions: Predictions of at least one film.
        decision: Fitted on other films.
        split: Name of the split.
        figures: Whether to draw figures/*.png too.
        seed: Random seed of the bootstrap.
        resamples: Number of resamples of the bootstrap.
        metadata: Kept in predictions.parquet and metrics.json: split_sha256, checkpoint_sha256, and the cost that
            `compare` shows, seconds (of training) and trainable_parameters.
        provenance: What made them, kept in metrics.json: "made_by" and "training".
        films: Which films they are, kept in metrics.json.
        curves_csv: The run's curves, for the plot of the loss.

    Returns:
        What metrics.json holds.

    Raises:
        DataError: There is no film, or the decision is of another vocabulary.
    """
    scored = ScoredSplit(predictions, decision)
    result = evaluate(scored, seed, split=split, resamples=resamples)
    kept = {key: value for key, value in (metadata or {}).items() if value is not None}
    result |= kept
    if films is not None:
        result["films"] = films.to_json()
    result |= provenance or {}
    stored = {**{key: str(value) for key, value in kept.items()}, "split": split, "policy": SHIPPED_POLICY}
    with replacing_folder(directory) as draft:
        files = EvaluationDirectory(draft)
        predictions.write_parquet(files.predictions, scored.probabilities, scored.decided[SHIPPED_POLICY], stored)
        write_csv(files.per_genre, genre_rows(scored, seed=seed, resamples=resamples))
        write_csv(files.thresholds, threshold_grid(scored.probabilities, scored.labels, known=scored.known))
        write_csv(files.confusion, confusion_rows(scored))
        if figures:
            # matplotlib takes a second to import, and not every evaluation draws
            from genre_lightning.evaluation.plots.figures import write_figures

            write_figures(files.figures, scored, curves_csv=curves_csv)
        write_json(files.metrics, result)
        top_words = EvaluationDirectory(Path(directory)).top_words
        if top_words.is_file():
            shutil.copyfile(top_words, files.top_words)
    return result
