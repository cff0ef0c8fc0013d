"""The ablations: suites that can be run, paired differences, results of changed experiments, and a small suite."""

import json
import os
import shutil
import sys
from argparse import Namespace
from pathlib import Path

import experiments
import measured
import numpy as np
import pytest
import run as ablations
from ablation_page import difference, table, write_page
from experiments import Experiment, Suite, names, read_suite
from measured import METRICS, read_results, result_file
from sklearn.metrics import f1_score

from genre_lightning.config.packaged import with_packaged
from genre_lightning.config.parser import parse, parse_baseline
from genre_lightning.evaluation.runs import open_run
from genre_lightning.models.tfidf import BASELINES

SMALL = """
title: Small
about: Two baselines.
experiments:
  overview: {command: baseline tfidf_nb, options: {data.text: "{overview}"}}
  titles: {title: "+ title", from: overview, inputs: [title], against: overview}
  constant: {command: constant, members: [overview], against: overview}
  both: {command: ensemble, members: [overview, titles], against: overview}
inputs:
  title: {features: [{column: title, kind: tags, min_films: 1}]}
"""


QUICKLY = """
import sys
from quick_figures import write_pixels
from genre_lightning.__main__ import main
from genre_lightning.evaluation.plots import figures
figures.write_figures = write_pixels
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def folders(tmp_path, monkeypatch):
    """A folder of suites and one of results; commands whose plots are one pixel."""
    monkeypatch.setattr(ablations, "COMMAND", [sys.executable, "-c", QUICKLY])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(sys.path))
    monkeypatch.setattr(experiments, "FOLDER", tmp_path / "suites")
    for module in (measured, ablations):
        monkeypatch.setattr(module, "FOLDER", tmp_path / "results" / "ablations")
    (tmp_path / "suites").mkdir()
    return tmp_path


def runner(csv, work, encoder=None):
    work.mkdir(exist_ok=True)
    return ablations.Runner(Namespace(csv=csv, work=work, encoder=encoder, decoder=encoder, threads=1))


@pytest.mark.parametrize("name", names())
def test_options_of_a_suite_exist(name, sample_csv, tmp_path):
    for made in ("keywords.csv", "ratings.parquet"):
        (tmp_path / made).touch()
    made_by = runner(sample_csv, tmp_path, encoder=tmp_path)
    for experiment in read_suite(name).experiments:
        if experiment.command in (("constant",), ("ensemble",)):
            continue
        words = [
            *made_by.options(experiment, tmp_path / f"{experiment.name}-seed0"),
            "--run_dir",
            str(tmp_path / "run"),
        ]
        if (baseline := experiment.command[-1]) in BASELINES:
            parse_baseline(baseline, BASELINES[baseline], with_packaged(words))
        else:
            command = "fit" if experiment.command == ("folds",) else experiment.command[0]
            parse(command, with_packaged(words))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("bad: {option: 1}", "'option' is not one of"),
        ("bad: {inputs: [poster]}", "there is no input 'poster'; there are title"),
        ("bad: {against: nothing}", "there is no experiment 'nothing'"),
    ],
)
def test_a_suite_with_a_fault_is_refused(folders, line, said):
    (folders / "suites" / "small.yaml").write_text(SMALL.replace("inputs:\n  title", f"  {line}\ninputs:\n  title"))
    with pytest.raises(SystemExit, match=said):
        read_suite("small")


def made_suite(*made):
    return Suite("made", "Made", "Of the test.", ("macro-F1",), made)


def result_of(values, seed=0, films="a"):
    return {
        "films": {"train": 10}, "test_sha256": films, "trained_parameters": 5, "cpu_seconds": 1, "peak_gib": 0.1,
        "date": "2026-01-01", "seed": seed, "metrics": {name: list(values) for name in METRICS},
    }  # fmt: skip


def test_difference_is_paired_and_averaged_over_seeds():
    draws = np.random.default_rng(0).normal(0.5, 0.01, size=(2, 2, 401))
    first = Experiment("first", "first", ("fit",), {}, {}, seeds=2)
    second = Experiment("second", "second", ("fit",), {}, {}, seeds=2, against="first")
    suite = made_suite(first, second)
    results = {(e.name, seed): result_of(draws[n, seed]) for n, e in enumerate((first, second)) for seed in range(2)}
    found = difference(results, suite, second, "mAP")
    expected = draws[1].mean(0) - draws[0].mean(0)
    assert found["difference"] == pytest.approx(expected[0])
    assert [found["low"], found["high"]] == pytest.approx(np.quantile(expected[1:], [0.025, 0.975]))
    del results["first", 1]  # seeds that one side lacks do not count
    only = difference(results, suite, second, "mAP")
    assert only["seeds"] == 1
    assert only["difference"] == pytest.approx(draws[1, 0, 0] - draws[0, 0, 0])
    results["first", 0]["test_sha256"] = "b"
    with pytest.raises(SystemExit, match="have other test films"):
        difference(results, suite, second, "mAP")


@pytest.mark.slow
def test_small_suite(folders, sample_csv):
    (folders / "suites" / "small.yaml").write_text(SMALL)
    csv = folders / "sample.csv"
    shutil.copy(sample_csv, csv)
    suite = read_suite("small")
    made_by = runner(csv, folders / "runs")
    for experiment in suite.experiments:
        path = result_file(suite, experiment.name, 0)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(made_by.run(suite, experiment, 0)))
    results = read_results(suite)
    assert len(results) == 4
    # the metric of all films is scikit-learn's
    stored = open_run(folders / "runs/small/titles-seed0", "test").predictions("test")
    truth = f1_score(stored.predictions.labels, stored.decided, average="micro")
    assert results["titles", 0]["metrics"]["micro-F1"][0] == pytest.approx(truth, abs=1e-5)
    assert results["titles", 0]["cpu_seconds"] > 0
    constant = results["constant", 0]["metrics"]
    assert constant["mAP"][0] == pytest.approx(stored.predictions.labels.mean(), abs=0.02)
    shown = table(suite, results)
    assert shown.count("\n") == 5
    assert "| + title |" in shown
    page, picture = write_page(suite, folders)
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert shown in page.read_text()
    # another experiment of the same name has no result yet
    (folders / "suites" / "small.yaml").write_text(SMALL.replace("min_films: 1", "min_films: 2"))
    assert {name for name, _ in read_results(read_suite("small"))} == {"overview", "constant", "both"}


def test_failed_run_names_its_output(folders, sample_csv):
    (folders / "suites" / "small.yaml").write_text(SMALL.replace("{overview}", "{plot}"))
    suite = read_suite("small")
    with pytest.raises(SystemExit, match=r"overview failed: .*plot.*\n.*overview-seed0\.log") as raised:
        runner(sample_csv, folders / "runs").run(suite, suite["overview"], 0)
    assert Path(str(raised.value).rpartition(" ")[2]).is_file()
    with pytest.raises(SystemExit, match=r"missing\.csv is missing"):
        runner(sample_csv, folders / "runs").provide("missing.csv")
