"""Doubtful labels: injected errors are found, and shown as a table."""

import csv
import json

import numpy as np
import pytest
from made_runs import make_run, refused

from genre_lightning.__main__ import main
from genre_lightning.config.columns import ColumnNames, FilmSource, TextTemplate
from genre_lightning.data.films import load_films
from genre_lightning.data.genres import GenreVocabulary
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.evaluation.predictions import read_stored_predictions
from genre_lightning.evaluation.runs import Run
from genre_lightning.learning.doubts import find_doubts, self_confidence
from genre_lightning.models.tfidf import TfidfNaiveBayes


def with_errors(labels, seed, films=0.3):
    """Labels of which one is wrong in some of the films: half of them have lost a genre, half have one more."""
    rng = np.random.default_rng(seed)
    noisy = labels.copy()
    for row in np.flatnonzero(rng.random(len(labels)) < films):
        several = labels[row].sum() > 1 and rng.random() < 0.5
        noisy[row, rng.choice(np.flatnonzero(labels[row] == several))] ^= True
    return noisy


def test_injected_errors_of_the_sample_are_found(tmp_path):
    sample = write_sample(tmp_path / "sample.csv", films=1200, seed=1)
    films = load_films(FilmSource(sample, ColumnNames(), TextTemplate("{overview}")), tmp_path)
    names = GenreVocabulary.from_films(films.genres())
    noisy = with_errors(truth := names.encode(films.genres()), seed=0)
    texts, held = films.strings("text"), np.arange(len(truth)) % 2 == 1
    model = TfidfNaiveBayes()
    # the model learns from wrong labels too
    model.fit([text for text, out in zip(texts, held, strict=True) if not out], noisy[~held], names.names)
    logits = model.logits([text for text, out in zip(texts, held, strict=True) if out])
    scores = self_confidence(noisy[held], 1 / (1 + np.exp(-logits)))
    wrong = (noisy != truth)[held].ravel()
    precision = wrong[np.argsort(scores, axis=None, kind="stable")[:100]].mean()
    print(f"precision at 100: {precision:.2f}, by chance {wrong.mean():.3f}")
    assert precision > 0.35
    assert wrong.mean() < 0.02


def test_scores_are_those_of_cleanlab():
    scorer = pytest.importorskip("cleanlab.multilabel_classification")
    rng = np.random.default_rng(0)
    probabilities = rng.random((50, 6))
    labels = rng.random((50, 6)) < probabilities
    expected = scorer.get_label_quality_scores(
        [np.flatnonzero(row).tolist() for row in labels],
        probabilities,
        method="self_confidence",
        aggregator_kwargs={"method": np.min},
    )
    np.testing.assert_allclose(self_confidence(labels, probabilities).min(axis=1), expected)


def test_the_least_likely_labels_come_first(tmp_path, capfd):
    run = make_run(tmp_path / "run")
    stored = [read_stored_predictions(run / "evaluation" / s / "predictions.parquet") for s in ("validation", "test")]
    scores = np.concatenate([np.where(s.predictions.labels, s.probabilities, 1 - s.probabilities) for s in stored])
    assert main(["data", "doubts", str(run), "--size", "50"]) == 0
    out, err = capfd.readouterr()
    assert "the 20 most doubtful labels" in out
    assert "wrote 50 rows" in err
    with (run / "doubts.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [float(row["score"]) for row in rows] == pytest.approx(np.sort(scores, axis=None)[:50].tolist(), abs=6e-5)
    assert {row["split"] for row in rows} == {"validation", "test"}
    for row in rows:
        assert (row["genre"] in row["labels"].split("|")) == (row["kind"] == "wrong")
    assert main(["data", "doubts", str(run), "--kind", "missing", "--json", "--size", "1000"]) == 0
    missing = json.loads(capfd.readouterr().out)
    assert {row["kind"] for row in missing} == {"missing"}
    assert len(missing) == sum(int((~s.predictions.labels).sum()) for s in stored)


def test_films_of_both_splits_are_listed_once(tmp_path, monkeypatch):
    run = Run(make_run(tmp_path / "run"))
    monkeypatch.setattr(Run, "test_is_validation", property(lambda run: True))
    doubts = find_doubts(run, 10_000)
    assert len(doubts) == len({(doubt.id, doubt.genre) for doubt in doubts}) == 80 * 4


def test_runs_without_predictions_are_refused(tmp_path, capfd):
    run = make_run(tmp_path / "run", splits=("test",))
    refused(capfd, ["data", "doubts", run], "no finished evaluation on validation")
    refused(capfd, ["data", "doubts", tmp_path], "run directory")
    whole = make_run(tmp_path / "whole")
    refused(capfd, ["data", "doubts", whole, "--out", tmp_path / "d.txt"], ".csv")
    refused(capfd, ["data", "doubts", whole, "--size", "0"], "--size")
