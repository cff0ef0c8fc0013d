"""Metrics by language: those of each language's films alone, and the rest together."""

import json
from dataclasses import replace

import numpy as np
import pytest
from made_predictions import GENRES, default_decision, make_predictions
from sklearn.metrics import f1_score

from genre_lightning.evaluation.evaluate import evaluate, write_evaluation
from genre_lightning.evaluation.languages import language_rows
from genre_lightning.evaluation.predictions import read_stored_predictions
from genre_lightning.evaluation.scored import ScoredSplit
from genre_lightning.evaluation.stored import read_metrics

LANGUAGES = ["en"] * 150 + ["fr"] * 100 + [""] * 31 + ["de"] * 10 + ["ja"] * 9


@pytest.fixture(scope="module")
def predictions():
    return replace(make_predictions(films=300, noise=2.0), languages=LANGUAGES)


def test_a_language_has_the_metrics_of_its_films(predictions):
    scored = ScoredSplit(predictions, default_decision(GENRES))
    rows = language_rows(scored, resamples=200)
    assert [(row["language"], row["languages"], row["films"]) for row in rows] == [
        ("en", 1, 150), ("fr", 1, 100), ("(none)", 1, 31), ("other", 2, 19),
    ]  # fmt: skip
    names = np.array(LANGUAGES)
    for row, mine in zip(rows, (names == "en", names == "fr", names == "", np.isin(names, ["de", "ja"])), strict=True):
        decided = scored.decided["per_genre"][mine]
        assert row["f1_micro"] == pytest.approx(f1_score(predictions.labels[mine], decided, average="micro"))
        alone = evaluate(ScoredSplit(_films(predictions, mine), scored.decision), resamples=200)
        assert row["map_macro"] == pytest.approx(alone["threshold_free"]["map_macro"])
        interval = alone["intervals"]["policies"]["per_genre"]["f1_micro"]
        assert [row["f1_low"], row["f1_high"]] == pytest.approx(interval)


def _films(predictions, mine):
    rows = np.flatnonzero(mine)
    return replace(
        predictions,
        ids=predictions.ids[rows],
        titles=[predictions.titles[row] for row in rows],
        texts=[predictions.texts[row] for row in rows],
        labels=predictions.labels[rows],
        logits=predictions.logits[rows],
        languages=None,
    )


def test_one_language_needs_no_table(predictions):
    decision = default_decision(GENRES)
    assert language_rows(ScoredSplit(replace(predictions, languages=["en"] * 300), decision)) == []
    assert language_rows(ScoredSplit(replace(predictions, languages=None), decision)) == []
    assert "languages" not in evaluate(ScoredSplit(replace(predictions, languages=None), decision), resamples=0)


def test_languages_are_stored_and_read_back(predictions, tmp_path):
    decision = default_decision(GENRES)
    write_evaluation(tmp_path / "test", predictions, decision, split="test", figures=False, resamples=50)
    assert read_stored_predictions(tmp_path / "test" / "predictions.parquet").predictions.languages == LANGUAGES
    found = read_metrics(tmp_path / "test" / "metrics.json")["languages"]
    assert [row["language"] for row in found] == ["en", "fr", "(none)", "other"]
    assert json.loads((tmp_path / "test" / "metrics.json").read_text())["languages"] == found
