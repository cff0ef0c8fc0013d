"""What a study found: each trial with its interval, those that are not significantly worse than the best, and why."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from genre_lightning.evaluation.bootstrap import (
    film_weights,
    holm,
    paired_p_value,
    policy_samples,
    threshold_free_samples,
)
from genre_lightning.evaluation.runs import Run
from genre_lightning.evaluation.scored import ScoredSplit
from genre_lightning.metrics import FloatArray
from genre_lightning.runs import RunDirectory
from genre_lightning.tuning.space import Options
from genre_lightning.tuning.study import StudyDirectory

SIGNIFICANCE = 0.05
_MOST_COMPARED = 30
"""Trials that are compared with the best: a bootstrap takes a second or two for some thousand films."""
_RESAMPLES = 4000
"""The smallest p-value, 2 / (resamples + 1), is significant after Holm's correction for `_MOST_COMPARED`."""
_FEWEST_FOR_IMPORTANCE = 4
_PLACES = {"f1_micro_tuned": ("global", "f1_micro"), "loss": ("threshold_free", "loss")}
_THRESHOLD_FREE = ("map_macro", "auroc_macro")


@dataclass
class TrialResult:
    """A trial of a study.

    Attributes:
        number: Of the trial.
        state: "complete", "pruned", "failed" or "running".
        options: That were searched.
        value: Metric of a complete trial's evaluation, of calibrated probabilities; of another one's best epoch; None
            if it has none.
        training_value: Metric of the training's validation at its best epoch, which sampler and pruning go by, and
            which Optuna's storage has; None if it has none.
        epochs: That were validated.
        reason: Why it failed; None if it did not.
        interval: 95% bootstrap interval of the metric on the validation films; None without an evaluation.
        p_value: Of the paired difference to the best trial, by Holm's method; None if it was not compared.
        seeds: Metric of each further seed.
        seconds: Of training.
        parameters: That were trained.
    """

    number: int
    state: str
    options: Options
    value: float | None
    epochs: int
    training_value: float | None = None
    reason: str | None = None
    interval: tuple[float, float] | None = None
    p_value: float | None = None
    seeds: dict[int, float] = field(default_factory=dict)
    seconds: float | None = None
    parameters: int | None = None

    @property
    def mean(self) -> float:
        """Metric of the trial and its further seeds."""
        return float(np.mean([*([] if self.value is None else [self.value]), *self.seeds.values()]))

    @property
    def spread(self) -> float | None:
        """Standard deviation over the seeds; None for a single one."""
        values = [*([] if self.value is None else [self.value]), *self.seeds.values()]
        return float(np.std(values, ddof=1)) if len(values) > 1 else None


@dataclass(frozen=True)
class StudyResults:
    """All trials of a study.

    Attributes:
        monitor: Metric that they are compared by.
        maximises: Whether a higher one is better.
        trials: By number.
        best: Number of the best trial; None without a complete one.
        importance: Fraction of the metric's variance that each option explains, largest first.
        planned: Trials that the study is to have.
    """

    monitor: str
    maximises: bool
    trials: list[TrialResult]
    best: int | None
    importance: dict[str, float]
    planned: int

    @property
    def counts(self) -> dict[str, int]:
        """How many trials are in each state."""
        states = [trial.state for trial in self.trials]
        return {state: states.count(state) for state in ("complete", "pruned", "failed", "running") if state in states}

    @property
    def ranked(self) -> list[TrialResult]:
        """Complete trials, the best first; those with further seeds before the others."""
        return _ranked(self.trials, maximises=self.maximises)

    @property
    def equals(self) -> list[TrialResult]:
        """The best trial and those that are not significantly worse, the simplest first.

        Simpler is what trains fewer parameters, then what trains for less time.
        """
        alike = [trial for trial in self.ranked if _is_equal(trial, self.best)]
        return sorted(alike, key=lambda trial: (trial.parameters or 0, trial.seconds or 0.0))

    @property
    def how_chosen(self) -> str:
        """How many trials chose the best one, for a report."""
        finished = self.counts.get("complete", 0) + self.counts.get("pruned", 0) + self.counts.get("failed", 0)
        parts = ", ".join(f"{count} {state}" for state, count in self.counts.items())
        seeds = next((len(trial.seeds) for trial in self.trials if trial.number == self.best), 0)
        repeated = f", and over {seeds + 1} seeds of the finalists" if seeds else ""
        return f"best of {finished} trials by {self.monitor} ({parts}){repeated}"


def read_results(folder: StudyDirectory, *, compare: bool = True) -> StudyResults:
    """Read all trials of a study, and compare the best ones.

    Args:
        folder: Of the study.
        compare: Compute p-values against the best trial.
    """
    study = folder.open()
    frozen = study.get_trials(deepcopy=False)
    trials = [_result(folder, one) for one in frozen if one.state != TrialState.WAITING]
    ranked = _ranked(trials, maximises=folder.maximises)
    best = ranked[0].number if ranked else None
    if compare and ranked:
        _compare(ranked[0], ranked[1:_MOST_COMPARED], lambda trial: _samples(folder, trial))
    settings = folder.settings
    return StudyResults(settings.monitor, folder.maximises, trials, best, _importance(study, frozen), settings.trials)


def _compare(
    best: TrialResult, others: Sequence[TrialResult], samples_of: Callable[[TrialResult], FloatArray | None]
) -> None:
    """Set the p-values of trials against the best one, corrected for their number."""
    first = samples_of(best)
    if first is None:
        return
    p_values = {}
    for trial in others:
        second = samples_of(trial)
        if second is not None and not math.isnan(p_value := paired_p_value(first, second)):
            p_values[trial.number] = p_value
    corrected = dict(zip(p_values, holm(list(p_values.values())), strict=True))
    for trial in others:
        if trial.number in corrected:
            trial.p_value = float(corrected[trial.number])


def _ranked(trials: Sequence[TrialResult], *, maximises: bool) -> list[TrialResult]:
    complete = [trial for trial in trials if trial.state == "complete" and trial.value is not None]
    most_seeds = max((len(trial.seeds) for trial in complete), default=0)
    sign = -1 if maximises else 1
    return sorted(complete, key=lambda trial: (len(trial.seeds) < most_seeds, sign * trial.mean, trial.number))


def _is_equal(trial: TrialResult, best: int | None) -> bool:
    return trial.number == best or (trial.p_value is not None and trial.p_value >= SIGNIFICANCE)


def _result(folder: StudyDirectory, frozen: FrozenTrial) -> TrialResult:
    states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    reported = list(frozen.intermediate_values.values())
    best = (max(reported) if folder.maximises else min(reported)) if reported else None
    result = TrialResult(
        frozen.number,
        states.get(frozen.state, "running"),
        dict(frozen.params),
        frozen.value if frozen.state == TrialState.COMPLETE else best,
        len(reported),
        best,
        frozen.user_attrs.get("reason"),
    )
    if result.state == "complete":
        run = RunDirectory(folder.trial(frozen.number))
        state = run.read_state()
        result.seconds, result.parameters = state.train_seconds, state.trainable_parameters
        if run.evaluation("validation").metrics.is_file():
            metrics = Run(run.path).metrics("validation")
            result.value = evaluated(metrics, folder.settings.monitor, result.value)
            result.interval = _interval(metrics, folder.settings.monitor)
        result.seeds = folder.further_seeds().get(frozen.number, {})
    return result


def place_of(monitor: str) -> tuple[str, str]:
    """Return where an evaluation has the metric of a validation during training: the policy and the name."""
    name = monitor.removeprefix("val/")
    return _PLACES.get(name, ("threshold_free" if name in _THRESHOLD_FREE else "fixed_0.5", name))


def evaluated(metrics: dict[str, Any], monitor: str, default: float | None) -> float | None:
    """Return the metric of an evaluation that a training is monitored by; the default if the evaluation lacks it."""
    found = _at(metrics, monitor)
    return default if found is None else float(found)


def _interval(metrics: dict[str, Any], monitor: str) -> tuple[float, float] | None:
    found = _at(metrics.get("intervals", {}), monitor)
    return (float(found[0]), float(found[1])) if found and None not in found else None


def _at(values: dict[str, Any], monitor: str) -> Any:
    """Return what an evaluation's metrics, or their intervals, have of the monitored metric."""
    place, name = place_of(monitor)
    return (values.get(place) or values.get("policies", {}).get(place) or {}).get(name)


def _samples(folder: StudyDirectory, trial: TrialResult) -> FloatArray | None:
    """Resample the metric on the validation films, the mean over the trial's seeds; paired over trials."""
    place, name = place_of(folder.settings.monitor)
    places = [folder.trial(trial.number), *(folder.finalist(trial.number, seed) for seed in trial.seeds)]
    drawn = []
    for path in places:
        run = Run(path)
        if not run.has("validation"):
            return None
        scored = ScoredSplit(run.predictions("validation").predictions, run.decision)
        parts = []
        # the same films for each trial; of all metrics, this one alone
        for weights in film_weights(len(scored.labels), _RESAMPLES, 0):
            if place in scored.judged:
                found = policy_samples(scored.labels, scored.judged[place], weights, scored.known)
            else:
                found = threshold_free_samples(scored.labels, scored.probabilities, weights, scored.known)
            if name not in found:
                return None
            parts.append(found[name])
        drawn.append(np.concatenate(parts))
    return np.mean(drawn, axis=0)


def _importance(study: optuna.Study, trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Return Optuna's fANOVA of the complete trials; empty if they are too few or all alike."""
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    if len(complete) < _FEWEST_FOR_IMPORTANCE or len({trial.value for trial in complete}) < 2:
        return {}
    if not set.intersection(*(set(trial.params) for trial in complete)):
        return {}
    evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
    return dict(optuna.importance.get_param_importances(study, evaluator=evaluator))
