"""The numpy metrics against scikit-learn and against formulas written out."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as sk
from sklearn.calibration import calibration_curve

from genre_lightning import metrics
from genre_lightning.files import json_value

TOLERANCE = 1e-6


def films(seed=0, n=400, g=7, decimals=None, dtype=np.float32):
    """Labels that the probabilities predict somewhat; rounding makes ties."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1, 1.5, (n, g))
    labels = rng.random((n, g)) < 1 / (1 + np.exp(-logits))
    probabilities = (1 / (1 + np.exp(-0.7 * logits - 0.3))).astype(dtype)
    return labels, probabilities if decimals is None else probabilities.round(decimals)


@pytest.mark.parametrize("seed", range(4))
def test_policy_metrics_equal_scikit_learn(seed):
    labels, probabilities = films(seed)
    decided = probabilities >= 0.4
    expected = {
        "f1_micro": sk.f1_score(labels, decided, average="micro"),
        "f1_macro": sk.f1_score(labels, decided, average="macro"),
        "f1_samples": sk.f1_score(labels, decided, average="samples", zero_division=0),
        "precision_micro": sk.precision_score(labels, decided, average="micro"),
        "recall_micro": sk.recall_score(labels, decided, average="micro"),
        "subset_accuracy": sk.accuracy_score(labels, decided),
        "hamming_loss": sk.hamming_loss(labels, decided),
    }
    assert metrics.policy_metrics(labels, decided) == pytest.approx(expected, abs=TOLERANCE)
    assert tuple(expected) == metrics.POLICY_METRICS


def test_film_without_any_genre_counts_zero_in_f1_samples():
    labels = np.array([[True, False], [False, False]])
    assert metrics.policy_metrics(labels, labels)["f1_samples"] == 0.5
    assert sk.f1_score(labels, labels, average="samples", zero_division=0) == 0.5


@pytest.mark.parametrize("decimals", [None, 1, 0])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_threshold_free_metrics_equal_scikit_learn(decimals, dtype):
    labels, probabilities = films(3, decimals=decimals, dtype=dtype)
    figures = metrics.threshold_free_metrics(labels, probabilities)
    expected = {
        "map_macro": sk.average_precision_score(labels, probabilities, average="macro"),
        "auroc_macro": sk.roc_auc_score(labels, probabilities, average="macro"),
        "loss": sk.log_loss(labels.ravel(), probabilities.ravel()),
    }
    assert {name: figures[name] for name in expected} == pytest.approx(expected, abs=TOLERANCE)
    assert tuple(figures) == metrics.THRESHOLD_FREE_METRICS


@pytest.mark.parametrize("decimals", [None, 1])
def test_each_genre_equals_scikit_learn(decimals):
    labels, probabilities = films(5, decimals=decimals)
    columns = range(labels.shape[1])
    precision, recall, f1, support = sk.precision_recall_fscore_support(labels, probabilities >= 0.5)
    figures = metrics.genre_policy_metrics(labels, probabilities >= 0.5)
    for name, expected in (("precision", precision), ("recall", recall), ("f1", f1), ("support", support)):
        np.testing.assert_allclose(figures[name], expected, atol=TOLERANCE, err_msg=name)
    expected_ap = [sk.average_precision_score(labels[:, j], probabilities[:, j]) for j in columns]
    expected_auc = [sk.roc_auc_score(labels[:, j], probabilities[:, j]) for j in columns]
    np.testing.assert_allclose(metrics.average_precision(labels, probabilities), expected_ap, atol=TOLERANCE)
    np.testing.assert_allclose(metrics.roc_auc(labels, probabilities), expected_auc, atol=TOLERANCE)
    confusion = sk.multilabel_confusion_matrix(labels, probabilities >= 0.5).reshape(-1, 4)
    np.testing.assert_array_equal(metrics.confusion_counts(labels, probabilities >= 0.5), confusion)


def test_calibration_error_follows_its_formula_on_scikit_learn_bins():
    labels, probabilities = films(7, n=900)
    flat_labels, flat = labels.ravel(), probabilities.astype(np.float64).ravel()
    observed, predicted = calibration_curve(flat_labels, flat, n_bins=15, strategy="uniform")
    table = metrics.calibration_bins(labels, probabilities)
    used = table["count"] > 0
    np.testing.assert_allclose(table["observed"][used], observed)
    np.testing.assert_allclose(table["predicted"][used], predicted)
    expected = (table["count"][used] / flat.size * np.abs(observed - predicted)).sum()
    assert metrics.expected_calibration_error(labels, probabilities) == pytest.approx(expected, abs=1e-12)
    by_hand = sum(
        abs(sum(flat_labels[inside]) - sum(flat[inside]))
        for low in range(15)
        if (inside := (flat > low / 15) & (flat <= (low + 1) / 15)).any()
    )
    assert expected == pytest.approx(by_hand / flat.size, abs=1e-9)
    genres = metrics.genre_calibration_error(labels, probabilities)
    one = metrics.expected_calibration_error(labels[:, :1], probabilities[:, :1])
    assert genres.shape == (7,)
    assert genres[0] == one


def test_perfectly_calibrated_is_zero_and_confidently_wrong_is_one():
    labels = np.array([[True], [False], [False], [False]])
    assert metrics.expected_calibration_error(labels, np.full((4, 1), 0.25)) == 0
    assert metrics.expected_calibration_error(labels, 1.0 - labels) == 1


def test_loss_is_the_written_formula_and_can_be_given():
    labels, probabilities = films(1, n=50)
    wide = probabilities.astype(np.float64)
    written = np.mean([-math.log(p if y else 1 - p) for y, p in zip(labels.ravel(), wide.ravel(), strict=True)])
    assert metrics.threshold_free_metrics(labels, probabilities)["loss"] == pytest.approx(written, abs=TOLERANCE)
    assert metrics.threshold_free_metrics(labels, probabilities, loss=0.25)["loss"] == 0.25
    certain = metrics.film_cross_entropy(np.array([[True]]), np.array([[0.0]], dtype=np.float32))
    assert certain[0] == pytest.approx(-math.log(np.finfo(np.float32).eps))


def test_genre_without_positives_is_undefined_and_left_out_of_the_macros():
    labels, probabilities = films(2)
    labels[:, 3] = False
    rest = [0, 1, 2, 4, 5, 6]
    decided = probabilities >= 0.5
    figures = metrics.policy_metrics(labels, decided)
    assert figures["f1_macro"] == pytest.approx(sk.f1_score(labels[:, rest], decided[:, rest], average="macro"))
    assert figures["f1_micro"] == pytest.approx(sk.f1_score(labels, decided, average="micro"))
    free = metrics.threshold_free_metrics(labels, probabilities)
    assert free["map_macro"] == pytest.approx(sk.average_precision_score(labels[:, rest], probabilities[:, rest]))
    assert free["auroc_macro"] == pytest.approx(sk.roc_auc_score(labels[:, rest], probabilities[:, rest]))
    for values in (
        metrics.average_precision(labels, probabilities),
        metrics.roc_auc(labels, probabilities),
        metrics.genre_policy_metrics(labels, decided)["f1"],
        metrics.genre_policy_metrics(labels, decided)["recall"],
    ):
        np.testing.assert_array_equal(np.isnan(values), np.arange(7) == 3)
    np.testing.assert_array_equal(metrics.undefined_genres(labels), np.arange(7) == 3)


def test_genre_that_all_films_have_has_no_auroc_but_an_average_precision_of_one():
    labels, probabilities = films(2)
    labels[:, 0] = True
    assert np.isnan(metrics.roc_auc(labels, probabilities)[0])
    assert metrics.average_precision(labels, probabilities)[0] == 1
    assert metrics.undefined_genres(labels)[0]


def test_precision_is_undefined_if_nothing_is_decided_and_f1_is_zero():
    labels = np.array([[True, False], [True, True]])
    nothing = np.zeros_like(labels)
    figures = metrics.genre_policy_metrics(labels, nothing)
    assert np.isnan(figures["precision"]).all()
    assert figures["f1"].tolist() == [0, 0]
    assert math.isnan(metrics.policy_metrics(labels, nothing)["precision_micro"])
    assert metrics.policy_metrics(labels, nothing)["f1_micro"] == 0


def test_no_films_leave_everything_undefined_without_a_warning():
    labels, probabilities = np.zeros((0, 3), dtype=bool), np.zeros((0, 3), dtype=np.float32)
    figures = {**metrics.policy_metrics(labels, labels), **metrics.threshold_free_metrics(labels, probabilities)}
    assert all(math.isnan(value) for value in figures.values())


def test_shapes_that_differ_are_refused():
    with pytest.raises(ValueError, match="must be the same"):
        metrics.policy_metrics(np.zeros((2, 3), dtype=bool), np.zeros((2, 4), dtype=bool))


def test_json_value_holds_no_nan():
    value = {"a": np.float64("nan"), 1: [np.int64(2), np.array([0.5, np.inf])], "t": (True, None, "x")}
    assert json_value(value) == {"a": None, "1": [2, [0.5, None]], "t": [True, None, "x"]}


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_ranking_metrics_equal_scikit_learn_with_any_ties(data):
    n = data.draw(st.integers(2, 25))
    labels = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))[:, None]
    scores = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))[:, None] / 4
    precision, area = metrics.average_precision(labels, scores)[0], metrics.roc_auc(labels, scores)[0]
    if labels.any():
        assert precision == pytest.approx(sk.average_precision_score(labels, scores), abs=1e-12)
    else:
        assert math.isnan(precision)
    if labels.any() and not labels.all():
        assert area == pytest.approx(sk.roc_auc_score(labels, scores), abs=1e-12)
    else:
        assert math.isnan(area)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_metrics_do_not_depend_on_the_order_of_films(seed):
    labels, probabilities = films(seed, n=40, g=3, decimals=1)
    order = np.random.default_rng(seed).permutation(len(labels))
    before = metrics.threshold_free_metrics(labels, probabilities)
    assert metrics.threshold_free_metrics(labels[order], probabilities[order]) == pytest.approx(before, nan_ok=True)


def test_probabilities_that_are_nan_are_refused():
    labels, probabilities = np.array([[1], [0], [1], [0]], bool), np.array([[np.nan], [0.2], [0.9], [np.nan]])
    for name in ("threshold_free_metrics", "average_precision", "roc_auc", "film_cross_entropy", "calibration_bins"):
        with pytest.raises(ValueError, match="probabilities are NaN"):
            getattr(metrics, name)(labels, probabilities)
