"""`ensemble` as its user runs it: a run directory like any other, or one line that says why not."""

import json

import numpy as np
import pytest
import yaml
from made_runs import everything_under, make_run, refused

from genre_lightning.__main__ import main
from genre_lightning.evaluation.predictions import read_stored_predictions


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    return [make_run(place / "one", 2.0, seed=1), make_run(place / "two", 2.0, seed=2)]


@pytest.fixture(scope="module")
def both(runs, tmp_path_factory):
    place = tmp_path_factory.mktemp("ensembles") / "both"
    assert main(["ensemble", *map(str, runs), "--run_dir", str(place), "--json"]) == 0
    return place


def test_it_is_a_run_like_any_other(both, runs, capfd):
    for name in ("config.yaml", "data_audit.json", "decision.json", "report.html", "run_state.json"):
        assert (both / name).is_file()
    assert json.loads((both / "run_state.json").read_text())["status"] == "finished"
    metrics = json.loads((both / "evaluation" / "test" / "metrics.json").read_text())
    assert (metrics["seconds"], metrics["trainable_parameters"]) == (25.0, 45_400_000)
    assert metrics["decision"]["fitted_on"] == "validation"
    assert main(["compare", *map(str, runs), str(both)]) == 0
    assert "both" in capfd.readouterr().out


def test_probabilities_are_the_weighted_mean(both, runs):
    weights = yaml.safe_load((both / "config.yaml").read_text())["ensemble"]["weights"]
    assert sum(weights.values()) == pytest.approx(1)
    parts = [read_stored_predictions(run / "evaluation" / "test" / "predictions.parquet") for run in runs]
    mean = sum(weights[str(run)] * part.probabilities for run, part in zip(runs, parts, strict=True))
    logits = read_stored_predictions(both / "evaluation" / "test" / "predictions.parquet").predictions.logits
    np.testing.assert_allclose(1 / (1 + np.exp(-logits.astype(float))), mean, atol=1e-5)


def test_it_can_be_made_again_but_never_over_another_run(both, runs, capfd):
    metrics = json.loads((both / "evaluation" / "test" / "metrics.json").read_text())
    assert main(["ensemble", *map(str, runs), "--run_dir", str(both), "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["test"]["n"] == 80
    again = json.loads((both / "evaluation" / "test" / "metrics.json").read_text())
    assert {**again, "made_by": None} == {**metrics, "made_by": None}
    before = everything_under(runs[1])
    refused(capfd, ["ensemble", runs[0], both, "--run_dir", runs[1]], "holds another run", "--run_dir")
    refused(capfd, ["ensemble", *runs, "--run_dir", runs[1]], "--run_dir")
    assert everything_under(runs[1]) == before


def test_bad_input_is_refused_and_nothing_written(runs, tmp_path, capfd):
    place = tmp_path / "new"
    refused(capfd, ["ensemble", runs[0], "--run_dir", place], "at least two")
    refused(capfd, ["ensemble", *runs], "--run_dir", "--help")
    other = make_run(tmp_path / "unfinished", status="evaluating")
    refused(capfd, ["ensemble", runs[0], other, "--run_dir", place], "has not finished")
    other = make_run(tmp_path / "elsewhere", first_id=9)
    refused(capfd, ["ensemble", runs[0], other, "--run_dir", place], "different splits")
    other = make_run(tmp_path / "other", genres=("Comedy", "Drama", "Horror", "Western"))
    refused(capfd, ["ensemble", runs[0], other, "--run_dir", place], "another vocabulary")
    assert not place.exists()
