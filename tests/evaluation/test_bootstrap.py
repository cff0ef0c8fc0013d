"""Weighted counts against metrics of the films really repeated, and intervals and p-values against what they mean."""

import numpy as np
import pytest
from made_predictions import make_predictions

from genre_lightning.evaluation import bootstrap
from genre_lightning.metrics import policy_metrics, threshold_free_metrics


def sigmoid(x, decimals=4):
    return (1 / (1 + np.exp(-x))).astype(np.float32).round(decimals)


@pytest.mark.parametrize("decimals", [4, 1])
def test_each_resample_equals_the_metrics_of_its_films(decimals):
    made = make_predictions(0, films=60)
    probabilities = sigmoid(made.logits, decimals)
    decided = probabilities >= 0.4
    (weights,) = bootstrap.film_weights(60, resamples=25, seed=3)
    policy = bootstrap.policy_samples(made.labels, decided, weights)
    free = bootstrap.threshold_free_samples(made.labels, probabilities, weights)
    for row, drawn in enumerate(weights.astype(int)):
        films = np.repeat(np.arange(60), drawn)
        expected = {
            **policy_metrics(made.labels[films], decided[films]),
            **threshold_free_metrics(made.labels[films], probabilities[films]),
        }
        found = {name: values[row] for name, values in {**policy, **free}.items() if name != "f1"}
        assert found == pytest.approx(expected, abs=1e-6, nan_ok=True)


def test_resamples_draw_each_film_once_on_average_and_repeat_by_seed():
    weights = np.concatenate(list(bootstrap.film_weights(50, 400, seed=1)))
    assert weights.shape == (400, 50)
    assert (weights.sum(axis=1) == 50).all()
    assert abs(weights.mean(axis=0) - 1).max() < 0.3
    assert weights.var() == pytest.approx(1 - 1 / 50, abs=0.1)
    np.testing.assert_array_equal(weights, np.concatenate(list(bootstrap.film_weights(50, 400, seed=1))))
    assert (weights != np.concatenate(list(bootstrap.film_weights(50, 400, seed=2)))).any()


def test_interval_of_a_share_is_the_binomial_one():
    labels = np.arange(400)[:, None] % 4 == 0
    samples = bootstrap.bootstrap_samples(labels, labels * 0.5, {"all": np.ones_like(labels)}, resamples=2000)
    low, high = bootstrap.percentile_interval(samples["all"]["precision_micro"])
    spread = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert low == pytest.approx(0.25 - spread, abs=0.006)
    assert high == pytest.approx(0.25 + spread, abs=0.006)


def test_undefined_figures_have_no_interval():
    values = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    low, high = bootstrap.percentile_interval(values)
    assert low[0] == pytest.approx(1.05)
    assert high[0] == pytest.approx(2.95)
    assert np.isnan([low[1], high[1]]).all()


def test_paired_p_value():
    rng = np.random.default_rng(0)
    noise = rng.normal(size=999)
    assert bootstrap.paired_p_value(noise, noise) == 1
    assert bootstrap.paired_p_value(noise + 5, noise) == pytest.approx(2 / 1000)
    assert bootstrap.paired_p_value(noise, noise + 5) == pytest.approx(2 / 1000)
    some = bootstrap.paired_p_value(noise + 1, np.zeros(999))
    assert some == pytest.approx(2 * (noise + 1 <= 0).mean(), abs=0.01)
    assert np.isnan(bootstrap.paired_p_value(noise * np.nan, noise))


def test_pairing_sees_a_difference_that_overlapping_intervals_hide():
    made = make_predictions(5, films=600)
    better = sigmoid(made.logits) >= 0.4
    rng = np.random.default_rng(0)
    worse = better ^ (rng.random(better.shape) < 0.01)
    samples = bootstrap.bootstrap_samples(made.labels, sigmoid(made.logits), {"a": better, "b": worse}, 500)
    first, second = samples["a"]["f1_micro"], samples["b"]["f1_micro"]
    assert bootstrap.percentile_interval(first)[0] < bootstrap.percentile_interval(second)[1]
    assert bootstrap.paired_p_value(first, second) < 0.05
