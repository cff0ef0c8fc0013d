"""compare, ensemble and the paper's tables, over small run directories."""

import csv
import io
import json
import re
from dataclasses import replace

import numpy as np
import pytest
from made_predictions import GENRES, make_predictions
from sklearn.metrics import f1_score, log_loss

from genre_lightning.errors import CheckpointError, ConfigError, DataError
from genre_lightning.evaluation.comparison import (
    PAPER_NAME,
    compare_runs,
    print_comparison,
    require_same_films,
    write_comparison,
)
from genre_lightning.evaluation.decisions import fit_decision, write_decision
from genre_lightning.evaluation.ensemble import fit_weights, write_ensemble
from genre_lightning.evaluation.evaluate import write_evaluation
from genre_lightning.evaluation.paper import paper_tables, write_paper_report
from genre_lightning.evaluation.predictions import Predictions, StoredPredictions, read_stored_predictions
from genre_lightning.evaluation.report import write_report


def noisy(made, noise, seed, order=None):
    """The same films as another model sees them, maybe in another order."""
    rng = np.random.default_rng(seed)
    logits = made.logits + noise * rng.normal(size=made.logits.shape)
    rows = np.arange(len(made)) if order is None else order
    titles, texts = [made.titles[i] for i in rows], [made.texts[i] for i in rows]
    return Predictions(GENRES, made.ids[rows], titles, texts, made.labels[rows], logits[rows])


def make_run(directory, noise, seed, shuffle=False, split_sha256="same", films=200, **metadata):
    validation, test = make_predictions(1, films=films), make_predictions(2, films=films)
    order = np.random.default_rng(seed).permutation(films) if shuffle else None
    decision = fit_decision(noisy(validation, noise, seed, order), "validation")
    write_decision(decision, directory / "decision.json")
    for split, made in (("validation", validation), ("test", test)):
        write_evaluation(
            directory / "evaluation" / split,
            noisy(made, noise, seed + 10, order),
            decision,
            split=split,
            figures=False,
            resamples=0,
            metadata={"split_sha256": split_sha256, **metadata},
        )
    return directory


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    return [
        make_run(place / "weak", 4, 3, seconds=12),
        make_run(place / "st|rong", 0.1, 4, shuffle=True, trainable_parameters=66000000),
    ]


def test_comparison_orders_runs_and_pairs_films_in_any_order(runs, tmp_path):
    comparison = compare_runs(runs, resamples=200, paper=True)
    assert [row["run"] for row in comparison.rows] == ["st|rong", "weak"]
    strong, weak = comparison.rows
    for run, row in ((runs[1], strong), (runs[0], weak)):
        stored = read_stored_predictions(run / "evaluation" / "test" / "predictions.parquet")
        expected = f1_score(stored.predictions.labels, stored.decided, average="micro")
        assert row["f1_micro"] == pytest.approx(expected, abs=1e-6)
        assert row["f1_micro_low"] <= expected <= row["f1_micro_high"]
    assert strong["f1_micro_p"] is None
    assert weak["f1_micro_p"] == pytest.approx(2 / 201)
    paths = write_comparison(comparison, tmp_path)
    with paths["csv"].open(newline="") as handle:
        table = list(csv.DictReader(handle))
    assert [row["run"] for row in table] == ["st|rong", "weak", PAPER_NAME]
    assert table[2]["f1_micro"] == "0.5687"
    assert table[1]["seconds"] == "12"
    lines = paths["md"].read_text().splitlines()
    assert lines[2].startswith("| st\\|rong | ")
    assert "66,000,000" in lines[2]
    assert "another split" in lines[4]
    assert "https:" not in paths["html"].read_text()


def test_a_copy_of_a_run_in_another_order_does_not_differ(runs, tmp_path):
    first, second = make_run(tmp_path / "a", 1, 5), make_run(tmp_path / "b", 1, 5)
    comparison = compare_runs([first, second], resamples=50)
    assert comparison.rows[1]["f1_macro_p"] == 1


def test_ids_that_are_texts_and_numbers_are_of_different_splits():
    made = make_predictions(1, films=20)
    texts = replace(made, ids=np.array([f"tt{n}" if n % 2 else str(n) for n in made.ids.tolist()], dtype=object))
    first, second = (
        StoredPredictions(one, np.zeros(one.logits.shape, np.float32), one.labels) for one in (made, texts)
    )
    shared = sum(n % 2 == 0 for n in made.ids.tolist())
    with pytest.raises(DataError, match=rf"different splits \(20 and 20 films, {shared} in both\)"):
        require_same_films(first, second, "a", "b")


@pytest.mark.parametrize("columns", [80, 120])
def test_a_terminal_shows_every_run_and_interval_whole(runs, monkeypatch, columns):
    monkeypatch.setenv("COLUMNS", str(columns))
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    shown = io.StringIO()
    print_comparison(compare_runs(runs, resamples=200), file=shown)
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", shown.getvalue())
    table = [line for line in text.splitlines() if line.startswith(("|", "+"))]
    assert max(map(len, table)) <= columns
    assert "\u2026" not in text
    assert [row for row in ("weak", "st|rong") if f"| {row} " in text] == ["weak", "st|rong"]
    assert text.count("[") == text.count("]") >= 8


def test_runs_that_cannot_be_compared_are_refused(runs, tmp_path):
    with pytest.raises(ConfigError, match="two different run directories"):
        compare_runs([runs[0]])
    with pytest.raises(ConfigError, match="two different run directories"):
        compare_runs([runs[0], runs[0]])
    with pytest.raises(DataError, match=r"different splits .*200 in both"):
        compare_runs([runs[0], make_run(tmp_path / "other", 1, 6, split_sha256="other")])
    with pytest.raises(DataError, match="100 films, 100 in both"):
        compare_runs([runs[0], make_run(tmp_path / "less", 1, 6, films=100)])
    (tmp_path / "new" / "evaluation").mkdir(parents=True)
    with pytest.raises(CheckpointError, match="no finished evaluation on test"):
        compare_runs([runs[0], tmp_path / "new"])


def test_ensemble_weights_have_the_least_log_loss():
    made = make_predictions(3, films=400)
    sets = [1 / (1 + np.exp(-noisy(made, noise, seed).logits / 2)) for noise, seed in ((3, 1), (2, 2))]
    weights = fit_weights(sets, made.labels)
    assert weights.sum() == pytest.approx(1)
    grid = np.linspace(0.001, 0.999, 999)
    losses = [log_loss(made.labels.ravel(), (w * sets[0] + (1 - w) * sets[1]).ravel()) for w in grid]
    assert weights[0] == pytest.approx(grid[int(np.argmin(losses))], abs=0.002)
    assert weights[1] > weights[0]


def test_ensemble_is_a_run_like_any_other(runs, tmp_path):
    named = write_ensemble(tmp_path / "both", runs, figures=False, resamples=20)
    assert sum(named.values()) == pytest.approx(1)
    metrics = json.loads((tmp_path / "both" / "evaluation" / "test" / "metrics.json").read_text())
    assert metrics["split_sha256"] == "same"
    stored = read_stored_predictions(tmp_path / "both" / "evaluation" / "test" / "predictions.parquet")
    parts = {str(run): read_stored_predictions(run / "evaluation" / "test" / "predictions.parquet") for run in runs}
    film = int(stored.predictions.ids[7])
    mean = sum(
        named[name] * part.probabilities[int(np.flatnonzero(part.predictions.ids == film)[0])]
        for name, part in parts.items()
    )
    np.testing.assert_allclose(1 / (1 + np.exp(-stored.predictions.logits[7])), mean, atol=1e-5)
    assert write_report(tmp_path / "both").is_file()
    assert compare_runs([*runs, tmp_path / "both"], resamples=20).n == 200
    with pytest.raises(ConfigError, match="its own directory"):
        write_ensemble(runs[0], runs)


def test_paper_tables_mark_the_optimistic_protocol(runs):
    tables = paper_tables(runs[0])
    assert tables["optimistic"]["f1"] == max(row["f1"] for row in tables["grid"])
    assert tables["held_out"]["threshold"] != tables["optimistic"]["threshold"]
    assert paper_tables(runs[0], "validation")["held_out"] is None
    page = write_paper_report(runs[0]).read_text(encoding="utf-8")
    assert "optimistic" in page
    assert "0.5687" in page
    assert f"{tables['held_out']['f1']:.4f}" in page
