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
from genre_lightning.errors import CheckpointError
from genre_lightning.evaluation.predictions import read_stored_predictions
from genre_lightning.evaluation.report import write_report
from genre_lightning.evaluation.runs import Run
from genre_lightning.evaluation.sections import keep_section, section_path
from genre_lightning.learning.doubts import find_doubts, self_confidence
from genre_lightning.models.tfidf import TfidfNaiveBayes
from genre_lightning.runs import RunDirectory


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
    page = (run / "report.html").read_text()
    assert "the first 20 of 50 that" in page
    assert f"<td>{rows[0]['title']} <small>{rows[0]['id']}, {rows[0]['split']}</small></td>" in page
    for row in rows:
        assert (row["genre"] in row["labels"].split("|")) == (row["kind"] == "wrong")
    assert main(["data", "doubts", str(run), "--kind", "missing", "--json", "--size", "1000"]) == 0
    missing = json.loads(capfd.readouterr().out)
    assert {row["kind"] for row in missing} == {"missing"}
    assert len(missing) == sum(int((~s.predictions.labels).sum()) for s in stored)


HOSTILE = "<script>alert('1')</script> \u202e{{ 7 * 7 }}"


def test_sections_of_the_report_escape_texts_and_belong_to_a_decision(tmp_path):
    run = Run(make_run(tmp_path / "run"))
    row = {"film": HOSTILE, "id": HOSTILE, "split": "test", "genre": HOSTILE, "kind": "wrong", "score": 0.5}
    check = {"name": HOSTILE, "reference": None, "new": 0.5, "effect": 0.1, "p": 0.0001, "drifted": True}
    both = {"inputs": [check], "genres": [{**check, "interval": (-0.1, 0.2)}], "calibration": [], "why": HOSTILE}
    counts = {"films": 1200, "labelled": 0, "reference_films": 80, "left_out": 2}
    keep_section(run, "doubts", {"count": 1, "kind": None, "rows": [{**row, "labels": [HOSTILE], "predicted": []}]})
    found = {**both, **counts, "new_genres": {HOSTILE: 30}, "advice": "refit thresholds", "file": HOSTILE}
    keep_section(run, "monitor", found)
    page = write_report(run.directory).read_text()
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&#39;1&#39;)&lt;/script&gt; \u202e{{ 7 * 7 }}") == 9
    interval, mark = "+0.100 <small>[-0.100, +0.200]</small>", '<b class="warn">drift</b>'
    for expected in ("1,200 films of", interval, "&lt;0.001", mark, "does not know, with films: &lt;script"):
        assert expected in page
    decision = run.files.decision
    decision.write_text(decision.read_text() + " ")
    page = write_report(run.directory).read_text()
    assert "Doubtful labels" not in page
    assert "refit thresholds" not in page
    section_path(run, "doubts").write_text("{}")
    with pytest.raises(CheckpointError, match=r"run 'genre-lightning data doubts .*' again"):
        write_report(run.directory)


def test_a_run_in_use_keeps_its_report(tmp_path, capfd):
    run = make_run(tmp_path / "run")
    with RunDirectory(run).locked():
        assert main(["data", "doubts", str(run)]) == 0
    assert "the report is unchanged: another process is working in" in capfd.readouterr().err
    assert (run / "doubts.csv").is_file()
    assert not (run / "report.html").exists()


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
