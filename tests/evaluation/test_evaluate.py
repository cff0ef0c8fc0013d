"""Every number of an evaluation directory, computed again by scikit-learn from its predictions.parquet."""

import csv
import io
import itertools
import json
import re
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from made_predictions import GENRES, make_predictions
from sklearn import metrics as sk
from sklearn.dummy import DummyClassifier

from genre_lightning.config.decision import POLICIES
from genre_lightning.errors import DataError
from genre_lightning.evaluation.console import headline_lines, print_headlines
from genre_lightning.evaluation.decisions import Decision, fit_decision
from genre_lightning.evaluation.evaluate import evaluate, write_evaluation
from genre_lightning.evaluation.predictions import Predictions
from genre_lightning.evaluation.scored import ScoredSplit

TOLERANCE = 1e-6


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    directory = tmp_path_factory.mktemp("run") / "evaluation" / "test"
    decision = fit_decision(make_predictions(1, noise=1), "validation")
    result = write_evaluation(
        directory,
        make_predictions(2, noise=1),
        decision,
        split="test",
        figures=False,
        resamples=100,
        metadata={"split_sha256": "abc", "nothing": None},
    )
    return directory, decision, result


def columns(directory):
    table = pq.read_table(directory / "predictions.parquet")
    return tuple(np.array(table[name].to_pylist()) for name in ("labels", "probabilities"))


def rows_of(path):
    with path.open(newline="") as handle:
        return list(csv.DictReader(handle))


def test_metrics_json_equals_scikit_learn(written):
    directory, decision, result = written
    labels, probabilities = columns(directory)
    stored = json.loads((directory / "metrics.json").read_text(), parse_constant=pytest.fail)
    assert stored == result
    assert stored["n"] == 300
    assert stored["split"] == "test"
    assert stored["split_sha256"] == "abc"
    assert stored["threshold_free"]["map_macro"] == pytest.approx(
        sk.average_precision_score(labels, probabilities), abs=TOLERANCE
    )
    assert stored["threshold_free"]["auroc_macro"] == pytest.approx(
        sk.roc_auc_score(labels, probabilities), abs=TOLERANCE
    )
    assert stored["threshold_free"]["loss"] == pytest.approx(
        sk.log_loss(labels.ravel(), probabilities.ravel()), abs=TOLERANCE
    )
    thresholds = {"fixed_0.5": 0.5, "global": decision.threshold_global, "per_genre": decision.threshold_per_genre}
    for policy, threshold in thresholds.items():
        decided = probabilities >= threshold
        figures = stored["policies"][policy]
        for average in ("micro", "macro", "samples"):
            expected = sk.f1_score(labels, decided, average=average, zero_division=0)
            assert figures[f"f1_{average}"] == pytest.approx(expected, abs=TOLERANCE)
        assert figures["subset_accuracy"] == pytest.approx(sk.accuracy_score(labels, decided), abs=TOLERANCE)
        assert figures["hamming_loss"] == pytest.approx(sk.hamming_loss(labels, decided), abs=TOLERANCE)
    assert stored["policies"]["global"]["threshold"] == decision.threshold_global


def test_intervals_hold_their_metrics(written):
    _, _, result = written
    for name, (low, high) in result["intervals"]["threshold_free"].items():
        # resampling adds noise to bins, so ece is not inside its own interval by necessity
        assert low < high
        assert name == "ece" or low <= result["threshold_free"][name] <= high
    for policy in POLICIES:
        for name, (low, high) in result["intervals"]["policies"][policy].items():
            assert low <= result["policies"][policy][name] <= high


def test_per_genre_csv_equals_scikit_learn(written):
    directory, decision, _ = written
    labels, probabilities = columns(directory)
    decided = probabilities >= decision.threshold_per_genre
    expected = sk.precision_recall_fscore_support(labels, decided)
    rows = rows_of(directory / "per_genre.csv")
    assert [row["genre"] for row in rows] == list(GENRES)
    for j, row in enumerate(rows):
        for name, values in zip(("precision", "recall", "f1", "support"), expected, strict=True):
            assert float(row[name]) == pytest.approx(values[j], abs=TOLERANCE)
        area = sk.average_precision_score(labels[:, j], probabilities[:, j])
        assert float(row["average_precision"]) == pytest.approx(area, abs=TOLERANCE)
        assert float(row["threshold"]) == decision.threshold_per_genre[j]
        assert float(row["f1_low"]) <= float(row["f1"]) <= float(row["f1_high"])
        assert row["policy"] == "per_genre"


def test_thresholds_csv_has_the_form_of_table_two(written):
    directory, _, _ = written
    labels, probabilities = columns(directory)
    rows = rows_of(directory / "thresholds.csv")
    assert list(rows[0]) == ["threshold", "accuracy", "precision", "recall", "f1"]
    assert [row["threshold"] for row in rows] == [f"0.{i}" for i in range(1, 10)]
    for row in rows:
        decided = probabilities >= float(row["threshold"])
        assert float(row["accuracy"]) == pytest.approx(sk.accuracy_score(labels, decided), abs=TOLERANCE)
        assert float(row["f1"]) == pytest.approx(sk.f1_score(labels, decided, average="micro"), abs=TOLERANCE)


def test_confusion_csv_equals_scikit_learn(written):
    directory, _, _ = written
    labels, probabilities = columns(directory)
    rows = [row for row in rows_of(directory / "confusion.csv") if row["policy"] == "fixed_0.5"]
    expected = sk.multilabel_confusion_matrix(labels, probabilities >= 0.5).reshape(-1, 4)
    np.testing.assert_array_equal([[int(row[k]) for k in ("tn", "fp", "fn", "tp")] for row in rows], expected)


def test_genre_without_positives_is_null_and_named(tmp_path, capsys):
    made = make_predictions(3)
    labels = made.labels.copy()
    labels[:, 3] = False
    bare = Predictions(made.genres, made.ids, made.titles, made.texts, labels, made.logits)
    decision = fit_decision(bare, "validation")
    result = write_evaluation(tmp_path, bare, decision, split="validation", figures=False, resamples=20)
    assert result["undefined"] == ["War"]
    assert result["threshold_free"]["map_macro"] is not None
    row = rows_of(tmp_path / "per_genre.csv")[3]
    assert (row["genre"], row["support"]) == ("War", "0")
    assert [row[name] for name in ("f1", "recall", "average_precision", "auroc", "f1_low")] == [""] * 5
    print_headlines(result)
    assert capsys.readouterr().out.count("War") == 2


def test_all_undefined_is_null_never_zero():
    made = make_predictions(3, films=20)
    bare = Predictions(made.genres, made.ids, made.titles, made.texts, made.labels & False, made.logits)
    result = evaluate(ScoredSplit(bare, fit_decision(made, "validation")), resamples=20)
    assert result["threshold_free"]["map_macro"] is None
    assert result["policies"]["global"]["f1_micro"] is None
    assert result["intervals"]["policies"]["global"]["f1_micro"] == [None, None]


def test_no_films_and_another_vocabulary_are_refused():
    made = make_predictions(4)
    decision = fit_decision(made, "validation")
    with pytest.raises(DataError, match="no film to evaluate on test"):
        evaluate(ScoredSplit(Predictions(GENRES, [], [], [], [], []), decision), split="test")
    other = Predictions(("Sport", *GENRES[1:]), made.ids, made.titles, made.texts, made.labels, made.logits)
    with pytest.raises(DataError, match="another vocabulary"):
        evaluate(ScoredSplit(other, decision))


def test_headlines_are_plain_in_a_log_file(written):
    log = io.StringIO()
    print_headlines(written[2], file=log)
    text = log.getvalue()
    assert text.isascii()
    assert "\x1b" not in text
    assert max(map(len, text.splitlines())) <= 100
    assert f"{written[2]['policies']['per_genre']['f1_micro']:.3f} [" in text


def test_of_many_genres_the_first_are_named_and_the_rest_counted(written):
    names = [f"Genre {number}" for number in range(1000)]
    log = io.StringIO()
    print_headlines({**written[2], "undefined": names}, file=log)
    text = " ".join(log.getvalue().split())
    assert "Genre 19 and 980 more" in text
    assert "Genre 20" not in text


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_shows_every_interval_whole(written, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    shown = io.StringIO()
    print_headlines(written[2], file=shown)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue())
    assert "\u2026" not in text
    assert text.count("[") == text.count("]") > 20
    assert max(map(len, text.splitlines())) <= columns


def test_trivial_baseline_equals_scikit_learns_constant_classifier(written):
    directory, decision, result = written
    labels, _ = columns(directory)
    fitted_on = make_predictions(1, noise=1).labels
    sets = np.array(list(itertools.product([False, True], repeat=len(GENRES))))
    on_validation = [
        sk.f1_score(fitted_on, np.broadcast_to(chosen, fitted_on.shape), average="micro", zero_division=0)
        for chosen in sets
    ]
    best = sets[np.argmax(on_validation)]
    assert decision.constant == tuple(np.array(GENRES)[best])
    # scikit-learn wants each constant to be among the values of its column
    both = np.vstack([np.zeros(len(GENRES), dtype=int), np.ones(len(GENRES), dtype=int)])
    dummy = DummyClassifier(strategy="constant", constant=best.astype(int)).fit(both, both)
    expected = sk.f1_score(labels, dummy.predict(labels), average="micro")
    assert result["trivial_baseline"]["f1_micro"] == pytest.approx(expected, abs=TOLERANCE)
    assert Decision.from_dict(decision.to_dict()).constant == decision.constant


@pytest.mark.parametrize("learned", [True, False])
def test_headline_shows_whether_the_model_has_learned_anything(learned):
    made = make_predictions(2)
    noise = np.random.default_rng(0).normal(size=made.logits.shape).astype(np.float32)
    if not learned:
        made = replace(made, logits=noise)
    result = evaluate(ScoredSplit(made, fit_decision(made, "validation")), resamples=100, split="test")
    lines = headline_lines(result)
    low, high = result["intervals"]["policies"]["per_genre"]["f1_micro"]
    value, trivial = result["policies"]["per_genre"]["f1_micro"], result["trivial_baseline"]["f1_micro"]
    assert lines[0].startswith(f"test micro-F1 {value:.3f} [{low:.3f}, {high:.3f}], 300 films")
    assert lines[1].startswith(f"trivial baseline {trivial:.3f}: Drama, Comedy for every film")
    assert [line.startswith("not clearly better") for line in lines[2:]] == ([] if learned else [True])


def test_decision_of_an_older_version_has_no_trivial_baseline(predictions):
    values = fit_decision(predictions, "validation").to_dict()
    del values["constant"]
    result = evaluate(ScoredSplit(predictions, Decision.from_dict(values)), resamples=0, split="test")
    assert "trivial_baseline" not in result
    assert len(headline_lines(result)) == 1
