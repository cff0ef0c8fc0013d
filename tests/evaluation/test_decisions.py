"""Calibration and thresholds against brute force, scikit-learn and scipy; decisions stored and restored."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_predictions import GENRES, default_decision, make_predictions
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import f1_score, log_loss

from genre_lightning.config.decision import POLICIES
from genre_lightning.errors import CheckpointError, ConfigError, DataError
from genre_lightning.evaluation.calibration import fit_platt, fit_temperature
from genre_lightning.evaluation.decisions import (
    Decision,
    check_checkpoint,
    fit_decision,
    read_decision,
    write_decision,
)
from genre_lightning.evaluation.predictions import Predictions
from genre_lightning.evaluation.thresholds import (
    best_genre_thresholds,
    best_global_threshold,
    micro_f1_curve,
    threshold_grid,
)
from genre_lightning.metrics import policy_metrics


def sigmoid(x):
    return (1 / (1 + np.exp(-np.asarray(x, dtype=np.float64)))).astype(np.float32)


def without(predictions, columns):
    labels = predictions.labels.copy()
    labels[:, columns] = False
    p = predictions
    return Predictions(p.genres, p.ids, p.titles, p.texts, labels, p.logits)


def test_temperature_has_the_least_log_loss(predictions):
    temperature = fit_temperature(predictions.logits, predictions.labels)
    flat, truth = predictions.logits.astype(np.float64).ravel(), predictions.labels.ravel()
    best = minimize_scalar(
        lambda t: log_loss(truth, 1 / (1 + np.exp(-flat / t))),
        bounds=(0.05, 20),
        method="bounded",
        options={"xatol": 1e-9},
    )
    assert temperature == pytest.approx(best.x, abs=1e-4)
    assert temperature > 1.3  # the logits were made 1.8 times too steep


def test_temperature_of_perfect_and_of_reversed_logits_is_bounded():
    labels = np.array([[True], [False]])
    logits = np.array([[3.0], [-3.0]])
    assert fit_temperature(logits, labels) == 0.05
    assert fit_temperature(-logits, labels) == 20
    assert fit_temperature(logits * 0, labels) > 0


def test_platt_undoes_a_shift_that_a_temperature_cannot():
    made = make_predictions(1, films=3000)
    shifted = made.logits + np.array([0, 1, 2, 3, 4], dtype=np.float32)
    scale, shift = fit_platt(shifted, made.labels)
    platt = log_loss(made.labels.ravel(), sigmoid(shifted * scale + shift).ravel())
    single = log_loss(made.labels.ravel(), sigmoid(shifted / fit_temperature(shifted, made.labels)).ravel())
    assert platt < single - 0.05
    for j in range(5):
        reference = LogisticRegression(C=1e6, tol=1e-10).fit(shifted[:, [j]], made.labels[:, j])
        # Platt's softened targets differ from the plain ones by about 1/positives
        np.testing.assert_allclose([scale[j], shift[j]], [reference.coef_[0, 0], reference.intercept_[0]], rtol=0.1)


def least_platt_loss(logits, truth):
    """Scale and shift of least cross-entropy against Platt's targets, by scipy on standardised logits."""
    n, positives = len(truth), truth.sum()
    target = np.where(truth, (positives + 1) / (positives + 2), 1 / (n - positives + 2))
    unit, centre = logits.std(), logits.mean()
    z = (logits - centre) / unit
    found = minimize(
        lambda w: np.mean(np.logaddexp(0, w[0] * z + w[1]) - target * (w[0] * z + w[1])),
        [1.0, 0.0],
        bounds=[(0.05 * unit, 20 * unit), (None, None)],
        method="L-BFGS-B",
        options={"ftol": 1e-15, "gtol": 1e-9},
    )
    return found.x[0] / unit, found.x[1] - found.x[0] / unit * centre


@pytest.mark.parametrize(
    ("spread", "sign", "bound"),
    [(1.8, 1, None), (1e-4, 1, 20.0), (1e-4, -1, 0.05), (1.0, -1, 0.05), (300.0, 1, 0.05)],
    ids=["trained", "hardly trained", "hardly trained, reversed", "reversed", "overconfident"],
)
def test_platt_scale_is_the_optimum_within_the_bounds_of_the_temperature(spread, sign, bound):
    made = make_predictions(3, films=400)
    logits = sign * spread * made.logits.astype(np.float64) + 2 * (spread < 1)
    scale, shift = fit_platt(logits, made.labels)
    for j in range(len(GENRES)):
        expected = least_platt_loss(logits[:, j], made.labels[:, j])
        np.testing.assert_allclose([scale[j], shift[j]], expected, rtol=2e-3, atol=2e-3)
    if bound:
        np.testing.assert_allclose(scale, bound)
    # films outside validation: no text is certain because of noise
    calibrated = sigmoid(logits * scale + shift)
    if spread == 1e-4:
        np.testing.assert_allclose(calibrated, np.tile(made.labels.mean(axis=0), (400, 1)), atol=0.03)


def test_platt_targets_keep_a_separated_genre_finite_and_odd_genres_unreversed():
    logits = np.array([[4.0, 1, 1], [3, 1.5, -1], [-3, -1, 2], [-4, -2, -2]])
    labels = np.array([[1, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0]], dtype=bool)
    scale, shift = fit_platt(logits, labels)
    common = 1 / fit_temperature(logits, labels)
    assert np.isfinite([scale, shift]).all()
    assert (scale > 0).all()
    assert scale[1] == 0.05  # reversed
    assert (scale[2], shift[2]) == (common, 0)  # without positives


def brute_force(probabilities, labels):
    values = np.unique(probabilities)
    return max(f1_score(labels.ravel(), (probabilities >= value).ravel()) for value in values)


@pytest.mark.parametrize("decimals", [None, 1])
def test_global_threshold_is_the_best_of_all(decimals):
    made = make_predictions(2, films=60)
    probabilities = sigmoid(made.logits)
    probabilities = probabilities if decimals is None else probabilities.round(decimals)
    threshold = best_global_threshold(probabilities, made.labels)
    found = policy_metrics(made.labels, probabilities >= threshold)["f1_micro"]
    assert found == pytest.approx(brute_force(probabilities, made.labels), abs=1e-12)


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_exact_thresholds_are_the_best_with_any_ties(data):
    n = data.draw(st.integers(1, 20))
    labels = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)))[:, None]
    values = st.floats(0, 1, width=32)
    scores = data.draw(st.lists(st.one_of(values, st.sampled_from([0.0, 0.5, 1.0])), min_size=n, max_size=n))
    probabilities = np.array(scores, dtype=np.float32)[:, None]
    if not labels.any():
        with pytest.raises(DataError, match="no film here has any genre"):
            best_global_threshold(probabilities, labels)
        return
    threshold = best_global_threshold(probabilities, labels)
    found = policy_metrics(labels, probabilities.astype(np.float64) >= threshold)["f1_micro"]
    assert found == pytest.approx(brute_force(probabilities, labels), abs=1e-12)
    # the same decision in float32, where most programs compare
    np.testing.assert_array_equal(probabilities >= np.float32(threshold), probabilities.astype(np.float64) >= threshold)


def test_threshold_lies_midway_between_observed_neighbours():
    probabilities = np.array([0.9, 0.7, 0.3, 0.1], dtype=np.float32)
    labels = np.array([True, True, False, False])
    assert best_global_threshold(probabilities, labels) == pytest.approx(0.5)
    near = np.array([0.9, np.nextafter(np.float32(0.9), np.float32(0))], dtype=np.float32)
    threshold = best_global_threshold(near, np.array([True, False]))
    assert (near >= threshold).tolist() == [True, False]


def test_raw_genre_thresholds_are_each_genre_s_best():
    made = make_predictions(3, films=80)
    probabilities = sigmoid(made.logits)
    thresholds = best_genre_thresholds(probabilities, made.labels, 0.3, shrinkage=0, resamples=0)
    for j in range(5):
        column, truth = probabilities[:, [j]], made.labels[:, [j]]
        found = policy_metrics(truth, column >= thresholds[j])["f1_micro"]
        assert found == pytest.approx(brute_force(column, truth), abs=1e-12)


def test_shrinkage_moves_a_rare_genre_more_and_all_of_them_in_the_end():
    made = make_predictions(4, films=500)
    probabilities = sigmoid(made.logits)
    logit = lambda p: np.log(p / (1 - p))  # noqa: E731
    raw, some, full = (best_genre_thresholds(probabilities, made.labels, 0.4, k) for k in (0, 20, 1e9))
    moved = np.abs(logit(some) - logit(raw)) / np.abs(logit(0.4) - logit(raw))
    support = made.labels.sum(axis=0)
    np.testing.assert_allclose(moved, 20 / (support + 20), atol=0.15)
    assert moved[-1] > 3 * moved[0]
    np.testing.assert_allclose(full, 0.4, atol=0.02)
    again = best_genre_thresholds(probabilities, made.labels, 0.4, 20)
    np.testing.assert_array_equal(some, again)


def test_genre_without_positives_gets_the_global_threshold_and_is_reported(predictions):
    decision = fit_decision(without(predictions, [3]), "validation")
    assert decision.threshold_per_genre[3] == decision.threshold_global
    assert decision.without_positives == ("War",)
    assert decision.to_dict()["without_positives"] == ["War"]


def test_probability_equal_to_the_threshold_is_decided():
    decision = default_decision(("A", "B"))
    assert decision.decide(np.array([[0.5, 0.4999]], dtype=np.float32), "global").tolist() == [[True, False]]
    with pytest.raises(ConfigError, match="choose one of"):
        decision.decide(np.zeros((1, 2)), "best")


@pytest.mark.parametrize("calibration", ["none", "temperature", "platt"])
def test_decision_survives_its_file(predictions, calibration, tmp_path):
    decision = fit_decision(predictions, "validation", calibration=calibration, checkpoint_sha256="ab" * 32)
    write_decision(decision, tmp_path / "decision.json")
    again = read_decision(tmp_path / "decision.json")
    assert again.to_dict() == decision.to_dict()
    assert again.calibration == calibration
    probabilities = decision.probabilities(predictions.logits)
    assert probabilities.dtype == np.float32
    np.testing.assert_array_equal(again.probabilities(predictions.logits), probabilities)
    for policy in POLICIES:
        np.testing.assert_array_equal(again.decide(probabilities, policy), decision.decide(probabilities, policy))
    values = decision.to_dict()
    assert values["thresholds"]["per_genre"].keys() == set(GENRES)
    assert values["fitted_on"] == "validation"
    assert values["n_films"] == 300


def test_per_genre_thresholds_follow_their_names_not_their_place(predictions):
    values = fit_decision(predictions, "validation").to_dict()
    values["thresholds"]["per_genre"] = dict(sorted(values["thresholds"]["per_genre"].items()))
    again = Decision.from_dict(values)
    assert again.to_dict()["thresholds"]["per_genre"] == values["thresholds"]["per_genre"]


def test_fitting_improves_what_it_is_fitted_for(predictions):
    decision = fit_decision(predictions, "validation", shrinkage=0, resamples=0)
    scores = decision.scores
    assert scores["global"]["f1_micro"] >= scores["fixed_0.5"]["f1_micro"]
    assert scores["per_genre"]["f1_macro"] >= scores["global"]["f1_macro"]


def test_test_split_unknown_calibration_and_no_films_are_refused(predictions):
    with pytest.raises(ConfigError, match="fit it on validation"):
        fit_decision(predictions, "test")
    with pytest.raises(ConfigError, match="no calibration 'isotonic'"):
        fit_decision(predictions, "validation", calibration="isotonic")
    empty = Predictions(GENRES, [], [], [], [], [])
    with pytest.raises(DataError, match="no film to fit the decision on validation"):
        fit_decision(empty, "validation")


def test_another_checkpoint_is_refused_with_the_fix(predictions):
    decision = fit_decision(predictions, "validation", checkpoint_sha256="a" * 64)
    check_checkpoint(decision, "a" * 64)
    check_checkpoint(decision.with_checkpoint(None), "b" * 64)
    for other in ("b" * 64, None):
        with pytest.raises(CheckpointError, match="restore the checkpoint, or run"):
            check_checkpoint(decision, other)


@pytest.mark.parametrize(
    "damage",
    [
        lambda values: values.pop("temperature"),
        lambda values: values.update(temperature=0),
        lambda values: values["thresholds"].update({"global": float("nan")}),
        lambda values: values["thresholds"]["per_genre"].pop("War"),
    ],
)
def test_damaged_decisions_are_refused(predictions, damage):
    values = fit_decision(predictions, "validation").to_dict()
    damage(values)
    with pytest.raises(ValueError, match=r"temperature|thresholds"):
        Decision.from_dict(values)


def test_missing_decision_file_is_refused(tmp_path):
    with pytest.raises(CheckpointError, match="is missing"):
        read_decision(tmp_path / "decision.json")


def test_grid_and_curve_are_plain_metrics(predictions):
    probabilities = sigmoid(predictions.logits)
    rows = threshold_grid(probabilities, predictions.labels)
    assert [row["threshold"] for row in rows] == [0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9]
    figures = policy_metrics(predictions.labels, probabilities >= 0.7)
    assert rows[6] == {
        "threshold": 0.7,
        "accuracy": figures["subset_accuracy"],
        "precision": figures["precision_micro"],
        "recall": figures["recall_micro"],
        "f1": figures["f1_micro"],
    }
    curve = micro_f1_curve(probabilities, predictions.labels, points=11)
    np.testing.assert_allclose(curve["f1"][1:10], [row["f1"] for row in rows])
    np.testing.assert_allclose(curve["recall"][1:10], [row["recall"] for row in rows])


@pytest.mark.parametrize(("shift", "expected"), [(0.0, "temperature"), (3.0, "platt")])
def test_auto_takes_the_calibration_that_predicts_unseen_films_better(shift, expected):
    rng = np.random.default_rng(4)
    truth = rng.normal(-1, 1.5, (1500, 6))
    labels = rng.random(truth.shape) < 1 / (1 + np.exp(-truth))
    # what pos_weight does: the genres' logits are moved apart, and one temperature cannot move them back
    logits = 2 * truth + shift * np.arange(6) / 5
    names = [""] * len(logits)
    made = Predictions(tuple("abcdef"), np.arange(len(logits)), names, names, labels, logits)
    assert fit_decision(made, "validation").calibration == expected
    unseen = expit(truth)
    error = {
        name: np.abs(fit_decision(made, "validation", calibration=name).probabilities(made.logits) - unseen).mean()
        for name in ("temperature", "platt")
    }
    assert min(error, key=error.get) == expected
