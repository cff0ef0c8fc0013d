"""Exports of runs with damaged files: one line that names the file and the fix, and nothing is written."""

import csv
import json
import shutil

import pyarrow.parquet as pq
import pytest
import yaml
from made_runs import refused, without_page
from small_run import SMALL

from genre_lightning.__main__ import main
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.errors import CheckpointError
from genre_lightning.inference.scoring import open_scorer


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    sample = write_sample(place / "sample.csv", films=300, seed=1)
    with pytest.MonkeyPatch.context() as patch:
        without_page(patch)
        patch.setattr("genre_lightning.evaluation.report.write_report", lambda *a, **k: None)
        words = [*SMALL, "--model.pooling=cls", "--trainer.max_epochs=1"]
        shape = "--model.architecture={layers: 1, width: 64, heads: 2, inner_width: 64}"
        assert main(["fit", f"--data.csv={sample}", f"--run_dir={place / 'run'}", *words, shape]) == 0
    return place / "run"


@pytest.fixture
def copy(run, tmp_path):
    return shutil.copytree(run, tmp_path / "run")


def change_json(file, change):
    values = json.loads(file.read_text())
    change(values)
    file.write_text(json.dumps(values))


def change_rows(file, change):
    with file.open(newline="") as lines:
        rows = list(csv.DictReader(lines))
    for row in rows:
        change(row)
    with file.open("w", newline="") as lines:
        writer = csv.DictWriter(lines, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda audit: audit.pop("malformed"), "malformed is missing"),
        (lambda audit: audit.update(malformed="2"), "malformed is '2'"),
        (lambda audit: audit.update(films_used=None), "films_used is None"),
        (lambda audit: audit["splits"].pop("train"), "splits.train is missing"),
        (lambda audit: audit["splits"]["test"].pop("ids_sha256"), "splits.test.ids_sha256 is missing"),
    ],
)
def test_a_damaged_audit(copy, tmp_path, capfd, change, reason):
    change_json(copy / "data_audit.json", change)
    refused(capfd, ["export", copy, tmp_path / "out"], f"data_audit.json is damaged ({reason}", "delete it, then run")
    assert not (tmp_path / "out").exists()


def test_an_audit_that_is_gone_is_left_out(copy, tmp_path):
    (copy / "data_audit.json").unlink()
    assert main(["export", str(copy), str(tmp_path / "out")]) == 0
    assert "its audit was not kept" in (tmp_path / "out" / "README.md").read_text()


def test_predictions_that_are_gone(copy, tmp_path, capfd):
    (copy / "evaluation" / "test" / "predictions.parquet").unlink()
    assert main(["export", str(copy), str(tmp_path / "out")]) == 0  # compared on films of validation
    (copy / "evaluation" / "validation" / "predictions.parquet").unlink()
    capfd.readouterr()
    refused(capfd, ["export", copy, tmp_path / "other"], "predictions.parquet is missing: run 'genre-lightning fit")
    assert not (tmp_path / "other").exists()


def test_predictions_without_films(copy, tmp_path, capfd):
    file = copy / "evaluation" / "test" / "predictions.parquet"
    pq.write_table(pq.read_table(file).slice(0, 0), file)
    refused(capfd, ["export", copy, tmp_path / "out"], "predictions.parquet is damaged (it has no films)", "delete it")


def test_text_in_the_metrics_of_a_genre(copy, tmp_path, capfd):
    change_rows(copy / "evaluation" / "test" / "per_genre.csv", lambda row: row.update(f1_low="low"))
    words = ("per_genre.csv is damaged (f1_low is 'low' in row 2)", "run 'genre-lightning fit")
    refused(capfd, ["export", copy, tmp_path / "out"], *words)
    refused(capfd, ["report", copy], *words)


def test_metrics_without_intervals_are_shown_without(copy, tmp_path):
    def change(row):
        row.pop("f1_low")
        row["decided"] = "not shown"

    change_rows(copy / "evaluation" / "test" / "per_genre.csv", change)
    change_json(copy / "evaluation" / "test" / "metrics.json", lambda metrics: metrics.update(intervals=None))
    assert main(["export", str(copy), str(tmp_path / "out")]) == 0
    card = (tmp_path / "out" / "README.md").read_text()
    metrics = json.loads((copy / "evaluation" / "test" / "metrics.json").read_text())
    assert f"| micro-F1 | {metrics['policies']['fixed_0.5']['f1_micro']:.3f} |" in card
    genres = card.partition("## Each genre")[2].partition("## Limits")[0]
    assert "\n| Drama |" in genres
    assert "[" not in genres


def test_damaged_provenance(copy, tmp_path, capfd):
    change_json(copy / "evaluation" / "test" / "metrics.json", lambda metrics: metrics["made_by"].pop("date"))
    words = ("metrics.json is damaged (made_by.date is missing)", "run 'genre-lightning fit")
    refused(capfd, ["export", copy, tmp_path / "out"], *words)


def test_a_tokenizer_without_its_settings(copy, tmp_path, capfd):
    (copy / "tokenizer" / "tokenizer_config.json").unlink()
    refused(capfd, ["export", copy, tmp_path / "out"], "has no padding, end or unknown token", "copy the run directory")


@pytest.mark.parametrize(
    ("section", "value", "reason"),
    [
        ("trainer", 3, "trainer is not a JSON object"),
        ("seed", "x", "seed is 'x'"),
        ("data", {"csv": "a.csv", "text": ["{overview}"]}, "data.text is"),
        ("data", {"csv": "a.csv", "features": [1]}, "data.features[0] is not a JSON object"),
        ("data", {"csv": "a.csv", "join": "x"}, "data.join is not a list"),
    ],
)
def test_a_damaged_configuration(copy, tmp_path, capfd, section, value, reason):
    settings = yaml.safe_load((copy / "config.yaml").read_text())
    (copy / "config.yaml").write_text(yaml.safe_dump({**settings, section: value}))
    refused(capfd, ["export", copy, tmp_path / "out"], f"config.yaml is damaged ({reason}", "put it back")
    with pytest.raises(CheckpointError, match=r"config.yaml is damaged"):
        open_scorer(copy, "cpu")


def test_a_configuration_without_the_films_is_enough(copy, tmp_path):
    settings = yaml.safe_load((copy / "config.yaml").read_text())
    (copy / "config.yaml").write_text(yaml.safe_dump({**settings, "data": None, "trainer": None}))
    assert main(["export", str(copy), str(tmp_path / "out")]) == 0
    assert "unknown file" in (tmp_path / "out" / "README.md").read_text()


def test_a_missing_tokenizer(copy, tmp_path, capfd):
    shutil.rmtree(copy / "tokenizer")
    refused(capfd, ["export", copy, tmp_path / "out"], "tokenizer is missing: copy the run directory whole")
