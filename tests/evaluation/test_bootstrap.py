"""Weighted counts against metrics of the films really repeated, and intervals and p-values against what they mean."""

import io

import numpy as np
import pytest
from made_predictions import GENRES, default_decision, make_predictions
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.metrics import average_precision_score, roc_auc_score

from genre_lightning.evaluation import bootstrap
from genre_lightning.evaluation.console import print_headlines
from genre_lightning.evaluation.evaluate import evaluate
from genre_lightning.evaluation.scored import ScoredSplit
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
    spans = bootstrap.bca_intervals(labels, labels * 0.5, {"all": np.ones_like(labels)}, samples)
    low, high = spans["all"]["precision_micro"]
    spread = 1.96 * np.sqrt(0.25 * 0.75 / 400)
    assert low == pytest.approx(0.25 - spread, abs=0.006)
    assert high == pytest.approx(0.25 + spread, abs=0.006)


def test_undefined_metrics_have_no_interval():
    values = np.array([[1.0, np.nan], [3.0, np.nan], [np.nan, np.nan]])
    low, high = bootstrap.bca_interval(values, np.array([2.0, np.nan]), values)
    assert low[0] == pytest.approx(1.05)
    assert high[0] == pytest.approx(2.95)
    assert np.isnan([low[1], high[1]]).all()


@pytest.mark.parametrize("right", [True, False])
def test_a_figure_that_no_resample_moves_has_no_interval(right):
    labels = np.arange(60)[:, None] % 2 == np.arange(2)
    decided = {"all": labels == right}
    samples = bootstrap.bootstrap_samples(labels, labels * 0.5, decided, resamples=200)
    spans = bootstrap.bca_intervals(labels, labels * 0.5, decided, samples)
    for name in ("subset_accuracy", "f1_micro", "hamming_loss"):
        assert np.isnan(spans["all"][name]).all()


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
    words = (made.labels, sigmoid(made.logits), {"a": better, "b": worse})
    samples = bootstrap.bootstrap_samples(*words, 500)
    spans = bootstrap.bca_intervals(*words, samples)
    first, second = samples["a"]["f1_micro"], samples["b"]["f1_micro"]
    assert spans["a"]["f1_micro"][0] < spans["b"]["f1_micro"][1]
    assert bootstrap.paired_p_value(first, second) < 0.05


@pytest.mark.parametrize("name", ["f1_micro", "hamming_loss", "map_macro", "auroc_macro", "ece", "loss"])
def test_intervals_are_those_of_scipy(name):
    made = make_predictions(3, films=80)
    probabilities = sigmoid(made.logits)
    decided = probabilities >= 0.4

    def statistic(films):
        figures = threshold_free_metrics(made.labels[films], probabilities[films])
        return {**figures, **policy_metrics(made.labels[films], decided[films])}[name]

    theirs = scipy_bootstrap(
        (np.arange(80),),
        statistic,
        vectorized=False,
        n_resamples=300,
        method="BCa",
        random_state=np.random.default_rng(1),
    )
    drawn = theirs.bootstrap_distribution
    place = "all" if name in ("f1_micro", "hamming_loss") else "threshold_free"
    spans = bootstrap.bca_intervals(made.labels, probabilities, {"all": decided}, {place: {name: drawn}})
    low, high = spans[place][name]
    expected = theirs.confidence_interval
    if expected.low <= statistic(np.arange(80)) <= expected.high:
        assert (low, high) == pytest.approx((expected.low, expected.high), abs=2e-5)
    else:
        assert np.isnan([low, high]).all()


@pytest.mark.parametrize("films", [1, 2, 5, 20, 60])
def test_an_interval_holds_its_own_figure_or_there_is_none(films):
    made = make_predictions(films, films=films)
    decision = default_decision(GENRES)
    result = evaluate(ScoredSplit(made, decision), resamples=200)
    without = set(result["bootstrap"]["too_few_films_for"])
    for place in ("threshold_free", *result["policies"]):
        named = result["threshold_free"] if place == "threshold_free" else result["policies"][place]
        spans = (
            result["intervals"]["threshold_free"]
            if place == "threshold_free"
            else result["intervals"]["policies"][place]
        )
        for name, (low, high) in spans.items():
            assert (low is None) == (f"{place}.{name}" in without)
            if low is not None:
                assert low - 1e-6 <= named[name] <= high + 1e-6
    console = io.StringIO()
    print_headlines({**result, "split": "test"}, console)
    if "threshold_free.ece" in without:
        assert f"no interval, as {films} films are too few" in console.getvalue()


def test_many_films_are_left_out_in_groups():
    weights = np.concatenate(list(bootstrap.jackknife_weights(1203)))
    assert weights.shape == (500, 1203)
    assert (weights == 0).sum(axis=0).tolist() == [1] * 1203
    assert list(bootstrap.jackknife_weights(1)) == []


def test_rankings_count_the_films_that_were_drawn():
    rng = np.random.default_rng(4)
    scores = rng.random(60).astype(np.float32).round(2)
    truth = rng.random(60) < scores
    # of partly known labels, and of the jackknife: the weights need not sum up to the films
    weights = rng.integers(0, 4, (20, 60)).astype(np.float32)
    precision, area = bootstrap._ranking_samples(truth, scores, weights)
    for row, drawn in enumerate(weights):
        assert precision[row] == pytest.approx(average_precision_score(truth, scores, sample_weight=drawn), abs=1e-6)
        assert area[row] == pytest.approx(roc_auc_score(truth, scores, sample_weight=drawn), abs=1e-6)


@pytest.mark.parametrize("tests", [1, 12, 13, 26, 300])
def test_one_of_many_tests_can_be_significant(tests):
    resamples = bootstrap.resamples_for(tests, 0.05)
    p = [bootstrap.paired_p_value(np.ones(resamples), np.zeros(resamples)), *[1.0] * (tests - 1)]
    assert bootstrap.holm(p)[0] < 0.05
    assert resamples >= bootstrap.RESAMPLES


def test_an_interval_of_one_metric_is_that_of_all_metrics():
    made = make_predictions(0, films=80)
    decided = sigmoid(made.logits) >= 0.4
    samples = bootstrap.bootstrap_samples(made.labels, sigmoid(made.logits), {"policy": decided}, 100, 3)
    spans = bootstrap.bca_intervals(made.labels, sigmoid(made.logits), {"policy": decided}, samples)
    for name in ("f1", "f1_micro"):
        drawn = bootstrap.interval_of(
            lambda weights, name=name: bootstrap.policy_samples(made.labels, decided, weights)[name],
            bootstrap.policy_samples(made.labels, decided, np.ones((1, 80), dtype=np.float32))[name][0], 80, 100, 3,
        )  # fmt: skip
        np.testing.assert_array_equal(drawn, spans["policy"][name])
