"""Labels that are not known count nowhere: in metrics, intervals, calibration, thresholds and tables."""

import numpy as np
import pytest
from quick_figures import real_figures
from sklearn.metrics import average_precision_score, f1_score, hamming_loss, log_loss, roc_auc_score

from genre_lightning import metrics
from genre_lightning.evaluation import bootstrap
from genre_lightning.evaluation.calibration import choose_calibration, fit_platt, fit_temperature
from genre_lightning.evaluation.decisions import Decision, fit_decision
from genre_lightning.evaluation.evaluate import confusion_rows, evaluate, genre_rows, write_evaluation
from genre_lightning.evaluation.plots import figures as plots
from genre_lightning.evaluation.predictions import Predictions, read_stored_predictions
from genre_lightning.evaluation.scored import ScoredSplit
from genre_lightning.evaluation.thresholds import best_constant_genres, best_genre_thresholds, best_global_threshold

GENRES = ("Comedy", "Drama", "War")


def films(n=200, seed=0):
    """Films of which the last genre is known of the second half alone, and a few other labels are unknown."""
    rng = np.random.default_rng(seed)
    known = rng.random((n, 3)) < 0.9
    known[: n // 2, 2] = False
    logits = rng.normal(size=(n, 3)).astype(np.float32) * 2
    labels = (logits + rng.normal(size=(n, 3)) * 2 > 1) & known
    # what is unknown is far off: it would show in every metric
    logits = np.where(known, logits, 6).astype(np.float32)
    return labels, logits, known


def predictions(labels, logits, known):
    n = len(labels)
    return Predictions(GENRES, np.arange(n), ["t"] * n, ["x"] * n, labels, logits, known)


def test_metrics_are_scikit_learns_on_the_known_pairs():
    labels, logits, known = films()
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    decided = metrics.judged(probabilities >= 0.5, known)
    found = metrics.policy_metrics(labels, decided, known)
    free = metrics.threshold_free_metrics(labels, probabilities, known=known)
    assert found["f1_micro"] == pytest.approx(f1_score(labels[known], decided[known]))
    assert found["hamming_loss"] == pytest.approx(hamming_loss(labels[known], decided[known]))
    columns = [(labels[known[:, j], j], probabilities[known[:, j], j]) for j in range(3)]
    assert free["map_macro"] == pytest.approx(np.mean([average_precision_score(*pair) for pair in columns]))
    assert free["auroc_macro"] == pytest.approx(np.mean([roc_auc_score(*pair) for pair in columns]))
    films_with_labels = known.any(axis=1)
    by_film = metrics.film_cross_entropy(labels, probabilities, known)
    expected = [
        log_loss(labels[i][known[i]], probabilities[i][known[i]], labels=[0, 1])
        for i in np.flatnonzero(films_with_labels)
    ]
    np.testing.assert_allclose(by_film[films_with_labels], expected)
    tn, fp, fn, tp = metrics.confusion_counts(labels, decided, known).T
    np.testing.assert_array_equal(tn + fp + fn + tp, known.sum(axis=0))
    assert free["ece"] == pytest.approx(metrics.expected_calibration_error(labels[known], probabilities[known]))


def test_what_is_unknown_changes_nothing():
    labels, logits, known = films()
    other = np.where(known, logits, -9).astype(np.float32)
    found = [
        fit_decision(predictions(labels, values, known), "validation", resamples=5).to_dict()
        for values in (logits, other)
    ]
    assert found[0] == found[1]
    decision = Decision.from_dict(found[0])
    figures = [
        evaluate(ScoredSplit(predictions(labels, values, known), decision), resamples=20) for values in (logits, other)
    ]
    assert figures[0] == figures[1]


def test_bootstrap_of_all_films_is_the_metric_itself():
    labels, logits, known = films()
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    decided = metrics.judged(probabilities >= 0.5, known)
    once = np.ones((1, len(labels)), dtype=np.float32)
    drawn = {
        **bootstrap.policy_samples(labels, decided, once, known),
        **bootstrap.threshold_free_samples(labels, probabilities, once, known),
    }
    exact = {
        **metrics.policy_metrics(labels, decided, known),
        **metrics.threshold_free_metrics(labels, probabilities, known=known),
    }
    for name, value in exact.items():
        assert drawn[name][0] == pytest.approx(value, rel=1e-6), name


def test_films_without_a_known_label_count_nowhere():
    labels, logits, known = films()
    known[::4] = False
    labels &= known
    judged_films = known.any(axis=1)
    probabilities = 1 / (1 + np.exp(-logits.astype(np.float64)))
    decided = metrics.judged(probabilities >= 0.5, known)
    right = (labels == decided).all(axis=1)[judged_films]
    both, either = (labels & decided).sum(axis=1), labels.sum(axis=1) + decided.sum(axis=1)
    of_films = np.where(either > 0, 2 * both / np.maximum(either, 1), 0)[judged_films]
    gains = np.where(labels, np.log(probabilities), np.log(1 - probabilities)) * known
    losses = -(gains.sum(axis=1) / np.maximum(known.sum(axis=1), 1))[judged_films]
    expected = {"subset_accuracy": right.mean(), "f1_samples": of_films.mean(), "loss": losses.mean()}
    found = {
        **metrics.policy_metrics(labels, decided, known),
        **metrics.threshold_free_metrics(labels, probabilities, known=known),
    }
    weights = np.vstack([np.ones(len(labels)), np.random.default_rng(1).integers(0, 3, len(labels))]).astype(np.float32)
    drawn = {
        **bootstrap.policy_samples(labels, decided, weights, known),
        **bootstrap.threshold_free_samples(labels, probabilities, weights, known),
    }
    by_film = {"subset_accuracy": right, "f1_samples": of_films, "loss": losses}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name
        again = np.average(by_film[name], weights=weights[1][judged_films])
        np.testing.assert_allclose(drawn[name], [value, again], rtol=1e-6, err_msg=name)
    # a resample without a film that counts has no metric
    nothing = (~judged_films)[None].astype(np.float32)
    assert np.isnan(bootstrap.policy_samples(labels, decided, nothing, known)["subset_accuracy"]).all()
    assert np.isnan(bootstrap.threshold_free_samples(labels, probabilities, nothing, known)["loss"]).all()


def test_raw_metrics_and_plots_leave_out_films_without_a_known_label(tmp_path, monkeypatch):
    labels, logits, known = films()
    known[::4] = False
    made = predictions(labels & known, logits, known)
    decision = fit_decision(made, "validation", resamples=5)
    keep = known.any(axis=1)
    alone = predictions((labels & known)[keep], logits[keep], known[keep])
    every, kept = (evaluate(ScoredSplit(p, decision), resamples=0) for p in (made, alone))
    for path in (("threshold_free",), ("raw", "fixed_0.5"), ("policies", "fixed_0.5")):
        first, second = every, kept
        for key in path:
            first, second = first[key], second[key]
        assert first == pytest.approx(second), path
    assert every["raw"]["loss"] == pytest.approx(kept["raw"]["loss"])
    drawn = {}
    for name in ("f1_by_length_figure", "f1_by_genre_count_figure"):
        figure = getattr(plots, name)

        def count_films(*arguments, of=name, draw=figure):
            drawn[of] = len(arguments[0])
            return draw(*arguments)

        monkeypatch.setattr(plots, name, count_films)
    with real_figures():
        plots.write_figures(tmp_path, ScoredSplit(made, decision))
    assert drawn == {"f1_by_length_figure": keep.sum(), "f1_by_genre_count_figure": keep.sum()}


def test_calibration_and_thresholds_are_those_of_the_known_films():
    labels, logits, known = films()
    assert fit_temperature(*metrics.known_pairs(known, logits, labels)) == fit_temperature(logits[known], labels[known])
    scale, shift = fit_platt(logits, labels, known)
    rows = known[:, 2]
    common = 1 / fit_temperature(logits[known], labels[known])
    alone_scale, alone_shift = fit_platt(logits[rows][:, 2:], labels[rows][:, 2:])
    assert common > 0
    assert (scale[2], shift[2]) == (alone_scale[0], alone_shift[0])
    assert choose_calibration(logits, labels, known=known) in ("temperature", "platt")
    probabilities = 1 / (1 + np.exp(-logits))
    threshold = best_global_threshold(*metrics.known_pairs(known, probabilities, labels))
    exact = best_genre_thresholds(probabilities, labels, threshold, shrinkage=0, resamples=0, known=known)
    alone = best_genre_thresholds(probabilities[rows][:, 2:], labels[rows][:, 2:], threshold, shrinkage=0, resamples=0)
    assert exact[2] == alone[0]


def test_best_constant_genres_count_known_films():
    # 6 of 30 films have the first genre; all 4 that are known have the second
    labels, known = np.zeros((30, 2), dtype=bool), np.ones((30, 2), dtype=bool)
    labels[:6, 0] = True
    known[4:, 1] = False
    labels[:4, 1] = True
    assert best_constant_genres(labels, known).tolist() == [False, True]
    assert best_constant_genres(labels).tolist() == [True, False]


def test_predictions_carry_what_is_unknown(tmp_path):
    labels, logits, known = films()
    made = predictions(labels | ~known, logits, known)
    np.testing.assert_array_equal(made.labels, labels)  # an unknown label is not a positive one
    decision = fit_decision(made, "validation", resamples=5)
    write_evaluation(tmp_path / "test", made, decision, split="test", figures=False, resamples=0)
    stored = read_stored_predictions(tmp_path / "test" / "predictions.parquet")
    np.testing.assert_array_equal(stored.predictions.known, known)
    assert stored.decided[~known].any()  # the genres of a film are predicted, known or not
    rows = genre_rows(ScoredSplit(made, decision))
    assert [row["known"] for row in rows] == known.sum(axis=0).tolist()
    for row in confusion_rows(ScoredSplit(made, decision)):
        assert sum(row[name] for name in ("tn", "fp", "fn", "tp")) == known[:, GENRES.index(row["genre"])].sum()


def test_plots_are_drawn_of_known_labels(tmp_path):
    labels, logits, known = films(60)
    made = predictions(labels, logits, known)
    decision = fit_decision(made, "validation", resamples=5)
    with real_figures():
        write_evaluation(tmp_path / "test", made, decision, split="test", resamples=0)
    assert (tmp_path / "test/figures/precision_recall.png").is_file()
