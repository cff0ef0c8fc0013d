"""What is compared in a study: p-values against the best trial, corrected for their number."""

import numpy as np
import pytest

from genre_lightning.tuning import results
from genre_lightning.tuning.results import StudyResults, TrialResult, _compare


def made_trials(samples):
    return [TrialResult(number, "complete", {}, float(drawn.mean()), 1) for number, drawn in enumerate(samples)]


def test_p_values_are_corrected_for_the_number_of_trials():
    rng = np.random.default_rng(0)
    best = rng.normal(0.5, 0.01, 1000)
    samples = [best, *(best - rng.normal(gap, 0.01, 1000) for gap in (0.022, 0.025, 0.001, 0.06))]
    trials = made_trials(samples)
    _compare(trials[0], trials[1:], lambda trial: samples[trial.number])
    raw = [2 * (np.count_nonzero(best <= drawn) + 1) / 1001 for drawn in samples[1:]]
    by_size = np.argsort(raw)
    expected, largest = np.empty(4), 0.0
    for rank, place in enumerate(by_size):  # Holm (1979)
        largest = max(largest, min(1.0, (4 - rank) * raw[place]))
        expected[place] = largest
    assert [trial.p_value for trial in trials[1:]] == pytest.approx(expected)
    # alone, the first would be significantly worse
    study = StudyResults("val/f1_micro_tuned", True, trials, 0, {}, 5)
    assert raw[0] < 0.05 < expected[0]
    assert {trial.number for trial in study.equals} == {0, 1, 3}


def test_the_clearest_of_many_differences_is_significant():
    samples = [np.full(results._RESAMPLES, value) for value in np.linspace(0.5, 0.2, results._MOST_COMPARED)]
    trials = made_trials(samples)
    _compare(trials[0], trials[1:], lambda trial: samples[trial.number])
    assert all(trial.p_value < results.SIGNIFICANCE for trial in trials[1:])
