"""`compare` as its user runs it: one table on the screen and in three files, or one line that says why not."""

import csv
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from made_runs import everything_under, make_run, refused
from sklearn.metrics import f1_score

from genre_lightning.__main__ import main
from genre_lightning.evaluation.differing import over_seeds, readable
from genre_lightning.evaluation.predictions import read_stored_predictions


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    place = tmp_path_factory.mktemp("runs")
    return [make_run(place / "blurred", 3.0), make_run(place / "clear", 0.5, seed=1)]


def test_the_table_is_printed_and_written(runs, tmp_path, capfd):
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "plain")]) == 0
    assert "paper" not in capfd.readouterr().out
    assert len((tmp_path / "plain" / "comparison.csv").read_text().splitlines()) == 3
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "out"), "--paper"]) == 0
    out, _ = capfd.readouterr()
    assert out.index("clear") < out.index("blurred") < out.index("paper, as")
    assert max(map(len, out.split("paired bootstrap")[0].splitlines())) <= 100
    assert "23M weights" in out
    rows = list(csv.DictReader((tmp_path / "out" / "comparison.csv").read_text().splitlines()))
    assert [row["run"] for row in rows] == ["clear", "blurred", rows[2]["run"]]
    assert "another split" in rows[2]["run"]
    assert rows[2]["f1_micro"] == "0.5687"
    for row, place in zip(rows, (runs[1], runs[0]), strict=False):
        stored = read_stored_predictions(place / "evaluation" / "test" / "predictions.parquet")
        expected = f1_score(stored.predictions.labels, stored.decided, average="micro")
        assert float(row["f1_micro"]) == pytest.approx(expected, abs=1e-9)
        assert float(row["f1_micro_low"]) < float(row["f1_micro"]) < float(row["f1_micro_high"])
        assert float(row["seconds"]) == 12.5
        assert float(row["trainable_parameters"]) == 22_700_000
    assert rows[0]["f1_micro_p"] == ""
    assert float(rows[1]["f1_micro_p"]) < 0.05
    assert "12 s" in (tmp_path / "out" / "comparison.html").read_text()
    assert (tmp_path / "out" / "comparison.md").read_text().startswith("| run |")


def test_json_holds_the_same(runs, tmp_path, capfd):
    assert main(["compare", *map(str, runs), "--json", "--split", "validation", "--out", str(tmp_path)]) == 0
    result = json.loads(capfd.readouterr().out)
    assert (result["n"], result["split"], result["best"], result["optimistic"]) == (80, "validation", "clear", True)
    assert [row["run"] for row in result["rows"]] == ["clear", "blurred"]


def test_the_default_place_is_beside_the_first_run(runs, capfd):
    assert main(["compare", *map(str, runs)]) == 0
    assert (runs[0].parent / "comparison" / "comparison.html").is_file()


@pytest.mark.parametrize(
    ("second", "options", "words"),
    [
        ({"first_id": 50}, [], ["different splits", "same data settings"]),
        ({"genres": ("Comedy", "Drama", "Horror", "Western")}, [], ["another vocabulary", "Western"]),
        ({"splits": ("validation",)}, [], ["no finished evaluation on test"]),
        ({"status": "training"}, [], ["has not finished", "training"]),
        ({}, ["--splt", "test"], ["--splt", "--help"]),
    ],
)
def test_runs_that_cannot_be_compared_are_refused(runs, tmp_path, capfd, second, options, words):
    other = make_run(tmp_path / "other", **second)
    refused(capfd, ["compare", runs[0], other, "--out", tmp_path / "out", *options], *words)
    assert not (tmp_path / "out").exists()


def test_bad_directories_are_refused(runs, tmp_path, capfd):
    refused(capfd, ["compare", runs[0]], "at least two")
    refused(capfd, ["compare", runs[0], runs[0]], "at least two different")
    refused(capfd, ["compare", runs[0], tmp_path / "none"], "there is no directory", "--run_dir")
    refused(capfd, ["compare", runs[0], tmp_path], "is not a run directory")
    refused(capfd, ["compare"], "RUN", "--help")


@pytest.mark.parametrize(
    ("column", "words"),
    [("probabilities", ["probabilities that are NaN", "again"]), ("logits", ["NaN or infinite", "film id 1003"])],
)
def test_nan_is_refused(runs, tmp_path, capfd, column, words):
    other = make_run(tmp_path / "other")
    path = other / "evaluation" / "test" / "predictions.parquet"
    table = pq.read_table(path)
    rows = table[column].to_pylist()
    rows[3][1] = float("nan")
    place = table.column_names.index(column)
    values = pa.array(rows, table.schema.field(column).type)
    pq.write_table(table.set_column(place, table.schema.field(column), values), path)
    refused(capfd, ["compare", runs[0], other, "--out", tmp_path / "out"], *words)
    refused(capfd, ["report", other], *words)
    assert not (tmp_path / "out").exists()
    assert not (other / "report.html").exists()


def test_a_damaged_table_is_refused(runs, tmp_path, capfd):
    other = make_run(tmp_path / "other")
    table = other / "evaluation" / "test" / "predictions.parquet"
    table.write_bytes(table.read_bytes()[:200])
    before = everything_under(tmp_path)
    refused(capfd, ["compare", runs[0], other, "--out", tmp_path / "out"], "is damaged", "again")
    assert everything_under(tmp_path) == before


def test_runs_of_a_sweep_are_compared_over_seeds(tmp_path, capfd):
    for lr in (0.1, 0.2):
        for seed in (0, 1):
            run = make_run(tmp_path / f"lr-{lr}-seed-{seed}", 20 * lr, seed=seed)
            (run / "config.yaml").write_text(
                f"seed: {seed}\nrun_dir: {run}\nmodel:\n  class_path: some.Encoder\n  init_args:\n    lr: {lr}\n"
            )
    pattern = tmp_path / "lr-{model.lr}-seed-{seed}"
    assert main(["compare", str(pattern), "--json", "--out", str(tmp_path / "out")]) == 0
    result = json.loads(capfd.readouterr().out)
    assert result["settings"]["lr-0.2-seed-1"] == {"model.lr": 0.2, "seed": 1}
    assert [(row["model.lr"], row["seeds"]) for row in result["over_seeds"]] == [(0.1, 2), (0.2, 2)]
    values = [row["f1_micro"] for row in result["rows"] if row["run"].startswith("lr-0.2")]
    assert result["over_seeds"][1]["f1_micro"] == pytest.approx(sum(values) / 2)
    assert result["over_seeds"][1]["f1_micro_std"] == pytest.approx(abs(values[0] - values[1]) / 2**0.5)
    assert "over seeds" in (tmp_path / "out" / "comparison.html").read_text()


def test_runs_without_a_test_evaluation_are_compared_on_validation(tmp_path, capfd):
    runs = [make_run(tmp_path / name, noise, status="evaluating", splits=("validation",))
            for name, noise in (("a", 1.0), ("b", 2.0))]  # fmt: skip
    assert main(["compare", *map(str, runs), "--split", "validation", "--json", "--out", str(tmp_path / "out")]) == 0
    assert json.loads(capfd.readouterr().out)["best"] == "a"
    assert main(["compare", *map(str, runs), "--out", str(tmp_path / "out")]) == 2


def test_models_that_differ_in_many_settings_are_not_averaged():
    rows = [{"run": f"run-{number}", "f1_micro": 0.4 + number / 10} for number in range(3)]
    unlike = {f"run-{n}": {"seed": n, **{f"model.option_{i}": n * i for i in range(1, 14)}} for n in range(3)}
    assert over_seeds(rows, unlike, ["f1_micro"]) == []
    alike = {**unlike, "run-1": {**unlike["run-0"], "seed": 1}}
    (found,) = over_seeds(rows, alike, ["f1_micro"])
    assert (found["such as"], found["seeds"], found["f1_micro"]) == ("run-0", 2, pytest.approx(0.45))
    assert readable(unlike) == {f"run-{n}": {"seed": n} for n in range(3)}
