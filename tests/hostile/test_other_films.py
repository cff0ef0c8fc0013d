"""`evaluate`: all films of another labelled file, none of them trained on, in a folder of their own."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
from csv_files import rows_of, written
from made_runs import everything_under, refused, trained_baseline, without_page
from sklearn.metrics import f1_score
from small_run import SMALL

from genre_lightning.__main__ import main
from genre_lightning.data.kept_splits import KeptSplits
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.files import read_json
from genre_lightning.inference.scoring import open_scorer
from genre_lightning.learning.queue import KnownFilms
from genre_lightning.runs import RunDirectory


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return trained_baseline(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def sample(trained):
    return trained.parent / "sample.csv"


@pytest.fixture
def nb(trained, tmp_path, monkeypatch):
    without_page(monkeypatch)
    return shutil.copytree(trained, tmp_path / "nb")


def evaluated(run, file, *more):
    assert main(["evaluate", str(run), f"--data.csv={file}", *more]) == 0


def test_films_that_were_trained_on_are_left_out_and_counted(nb, sample, capfd):
    before = {path: content for path, content in everything_under(nb).items() if path.name != "report.html"}
    evaluated(nb, sample, "--name=all")
    after = everything_under(nb)
    assert {path: after[path] for path in before} == before
    metrics = read_json(nb / "evaluation" / "all" / "metrics.json")
    kept = KeptSplits.read(nb / "splits.parquet")
    counts = {side: list(kept.sides).count(side) for side in ("train", "validation", "test")}
    films = metrics["films"]
    assert films["excluded_trained"] == counts["train"]
    assert (films["from_validation"], films["from_test"]) == (counts["validation"], counts["test"])
    assert f"{counts['test']:,} are test films of the run." in capfd.readouterr().out
    assert metrics["n"] == films["n"] == counts["validation"] + counts["test"]
    assert films["file"] == "sample.csv"
    assert len(films["file_sha256"]) == len(films["ids_sha256"]) == 64
    table = pq.read_table(nb / "evaluation" / "all" / "predictions.parquet")
    trained_on = {name for name, side in zip(kept.ids, kept.sides, strict=True) if side == "train"}
    assert not trained_on & set(map(str, table["id"].to_pylist()))


def test_metrics_are_those_of_the_runs_decision(nb, tmp_path):
    other = write_sample(tmp_path / "other.csv", films=120, seed=9)
    evaluated(nb, other, "--other_ids")
    table = pq.read_table(nb / "evaluation" / "other" / "predictions.parquet").to_pandas()
    scorer = open_scorer(nb)
    logits = scorer.logits([{"overview": text} for text in table["text"]])
    np.testing.assert_allclose(np.stack(table["logits"]), logits, atol=1e-5)
    decided = scorer.decision.decide(scorer.decision.probabilities(logits))
    metrics = read_json(nb / "evaluation" / "other" / "metrics.json")
    expected = f1_score(np.stack(table["labels"]), decided, average="micro")
    assert metrics["policies"]["per_genre"]["f1_micro"] == pytest.approx(expected)


def test_the_text_of_a_film_that_was_trained_on_is_left_out_under_another_id(nb, sample, tmp_path):
    rows = [{**row, "id": f"{row['id']}0000"} for row in rows_of(sample)]
    evaluated(nb, written(tmp_path / "renamed.csv", rows))
    films = read_json(nb / "evaluation" / "renamed" / "metrics.json")["films"]
    assert films["excluded_trained"] == list(KeptSplits.read(nb / "splits.parquet").sides).count("train")
    assert films["excluded_by_id_alone"] == 0


def test_ids_of_another_file_can_be_reported_apart(nb, sample, tmp_path, capfd):
    texts = rows_of(write_sample(tmp_path / "texts.csv", films=200, seed=9))
    ids = [row["id"] for row in rows_of(sample)]
    other = written(tmp_path / "other.csv", [{**row, "id": name} for row, name in zip(texts, ids, strict=False)])
    evaluated(nb, other)
    assert "add --other_ids" in capfd.readouterr().out
    films = read_json(nb / "evaluation" / "other" / "metrics.json")["films"]
    assert films["excluded_by_id_alone"] == films["excluded_trained"] > 0
    evaluated(nb, other, "--other_ids")
    again = read_json(nb / "evaluation" / "other" / "metrics.json")["films"]
    assert again["excluded_trained"] == 0
    assert again["n"] == films["n"] + films["excluded_trained"]


def test_rows_of_a_file_without_ids_are_other_films(nb, sample, tmp_path, monkeypatch):
    monkeypatch.setattr("genre_lightning.data.kept_splits.KeptSplits.on_side", by_number(KeptSplits.on_side))
    rows = [{k: v for k, v in row.items() if k != "id"} for row in rows_of(sample)]
    evaluated(nb, written(tmp_path / "unnumbered.csv", rows), "--name=other")
    films = read_json(nb / "evaluation" / "other" / "metrics.json")["films"]
    assert films["excluded_trained"] > 0
    assert films["excluded_by_id_alone"] == 0


def test_rows_of_a_training_file_without_ids_are_other_films(tmp_path, monkeypatch):
    without_page(monkeypatch)
    rows = rows_of(write_sample(tmp_path / "sample.csv", films=150, seed=3))
    bare = written(tmp_path / "bare.csv", [{k: v for k, v in row.items() if k != "id"} for row in rows])
    assert main(["baseline", "tfidf_nb", f"--data.csv={bare}", f"--run_dir={tmp_path / 'nb'}"]) == 0
    texts = rows_of(write_sample(tmp_path / "texts.csv", films=150, seed=9))
    other = written(tmp_path / "other.csv", [{**row, "id": n} for n, row in enumerate(texts, 1)])
    evaluated(tmp_path / "nb", other)
    films = read_json(tmp_path / "nb/evaluation/other/metrics.json")["films"]
    assert films["excluded_by_id_alone"] == films["excluded_trained"] == 0
    known = KnownFilms().of_run(RunDirectory(tmp_path / "nb"), same_ids=True)
    assert (len(known.ids), len(known.digests) > 100) == (0, True)


def by_number(on_side):
    """The run's films as if their ids were the numbers from 1 on."""

    def numbered(kept, *arguments):
        return on_side(replace(kept, ids=[str(n) for n in range(1, len(kept.ids) + 1)]), *arguments)

    return numbered


def test_another_encoding_than_the_training_file_has(nb, sample, tmp_path, capfd):
    rows = [{**row, "title": "Caf\u00e9"} for row in rows_of(sample)]
    file = written(tmp_path / "latin.csv", rows)
    file.write_bytes(file.read_text(encoding="utf-8").encode("windows-1252", "replace"))
    for command in (["evaluate", nb], ["predict", nb, f"--out={tmp_path / 'out.csv'}"]):
        refused(capfd, [*command, f"--data.csv={file}"], "--data.encoding, such as windows-1252")
        refused(capfd, [*command, f"--data.csv={file}", "--data.encoding=klingon"], "data.encoding is 'klingon'")
        assert main([*map(str, command), f"--data.csv={file}", "--data.encoding=windows-1252"]) == 0
        capfd.readouterr()
    assert {row["title"] for row in rows_of(tmp_path / "out.csv")} == {"Caf\u00e9"}


def test_genres_that_the_run_does_not_know_are_reported(nb, tmp_path, capfd):
    rows = rows_of(write_sample(tmp_path / "other.csv", films=60, seed=9))
    for row in rows[:5]:
        row["genres"] = "[{'id': 1, 'name': 'Opera'}]"
    evaluated(nb, written(tmp_path / "other.csv", rows), "--other_ids")
    out = capfd.readouterr().out
    assert "Opera" in out
    films = read_json(nb / "evaluation" / "other" / "metrics.json")["films"]
    assert films["unknown_genres"]["Opera"] <= 5
    assert films["films_without_known_genres"] >= films["unknown_genres"]["Opera"] > 0


def test_columns_of_other_names(nb, tmp_path):
    rows = rows_of(write_sample(tmp_path / "other.csv", films=60, seed=9))
    renamed = [{"nr": r["id"], "plot": r["overview"], "kinds": r["genres"], "name": r["title"]} for r in rows]
    evaluated(nb, tmp_path / "other.csv", "--other_ids")
    columns = [f"--data.columns.{c}={v}" for c, v in
               {"id": "nr", "overview": "plot", "genres": "kinds", "title": "name"}.items()]  # fmt: skip
    evaluated(nb, written(tmp_path / "renamed.csv", renamed), "--other_ids", *columns)
    ours, theirs = (read_json(nb / "evaluation" / name / "metrics.json") for name in ("renamed", "other"))
    assert ours["policies"] == theirs["policies"]
    assert ours["n"] == theirs["n"]


def test_a_run_of_fit_and_an_ensemble(sample, trained, tmp_path, monkeypatch, capfd):
    without_page(monkeypatch)
    encoder, both = tmp_path / "encoder", tmp_path / "both"
    options = [*SMALL, "--trainer.max_epochs=1"]
    assert main(["fit", f"--data.csv={sample}", f"--run_dir={encoder}", *options]) == 0
    assert main(["ensemble", str(trained), str(encoder), f"--run_dir={both}"]) == 0
    capfd.readouterr()
    results = []
    for run in (encoder, both):
        assert main(["evaluate", str(run), f"--data.csv={sample}", "--json", "--name=x"]) == 0
        results.append(json.loads(capfd.readouterr().out)["x"]["films"])
    assert results[0] == results[1]


def test_a_run_of_a_version_that_kept_no_sides(nb, sample, tmp_path, capfd):
    evaluated(nb, sample, "--name=kept")
    (nb / "splits.parquet").unlink()
    evaluated(nb, sample, "--name=drawn")
    ours, theirs = (read_json(nb / "evaluation" / name / "metrics.json")["films"] for name in ("kept", "drawn"))
    assert ours == theirs
    config = nb / "config.yaml"
    config.write_text(config.read_text().replace(str(sample), str(tmp_path / "gone.csv")))
    capfd.readouterr()
    refused(capfd, ["evaluate", nb, "--data.csv", sample], "does not record which films", "put the movies file back")
    config.write_text(config.read_text().replace(str(tmp_path / "gone.csv"), str(sample)).replace("seed: 0", "seed: 3"))
    refused(capfd, ["evaluate", nb, "--data.csv", sample], "does not record which films")


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--name", "test"], ["--name is 'test'"]),
        (["--name", "../x"], ["--name is '../x'"]),
        (["--name", ".x"], ["--name is '.x'"]),
        (["--data.columns.overview", "plot"], ["no column 'plot'"]),
        (["--data.csv", "nosuch.csv"], ["nosuch.csv"]),
        (["--override"], ["--override", "--help"]),
    ],
)
def test_bad_use_is_refused_and_nothing_written(trained, sample, capfd, more, words):
    before = everything_under(trained)
    refused(capfd, ["evaluate", trained, "--data.csv", sample, *more], *words)
    assert everything_under(trained) == before


def test_nothing_left_to_evaluate_and_another_files_place(nb, sample, tmp_path, capfd):
    kept = KeptSplits.read(nb / "splits.parquet")
    trained_on = {name for name, side in zip(kept.ids, kept.sides, strict=True) if side == "train"}
    only = written(tmp_path / "only.csv", [row for row in rows_of(sample) if row["id"] in trained_on])
    before = everything_under(nb)
    refused(capfd, ["evaluate", nb, "--data.csv", only], "was trained on every one of them")
    rows = [{**row, "genres": "[{'id': 1, 'name': 'Opera'}]"} for row in rows_of(sample)]
    opera = written(tmp_path / "opera.csv", rows)
    assert main(["evaluate", str(nb), "--data.csv", str(opera)]) == 2
    assert "has a genre that the run knows" in capfd.readouterr().err
    assert everything_under(nb) == before
    evaluated(nb, sample, "--name=x")
    capfd.readouterr()
    refused(capfd, ["evaluate", nb, "--data.csv", opera, "--name", "x"], "is the evaluation of", "--name")


def test_a_file_named_like_a_split_never_touches_it(nb, sample, tmp_path):
    before = everything_under(nb / "evaluation" / "test")
    evaluated(nb, shutil.copy(sample, tmp_path / "test.csv"))
    assert everything_under(nb / "evaluation" / "test") == before
    assert (nb / "evaluation" / "test_file" / "metrics.json").is_file()


def test_the_report_says_which_films(trained, sample, tmp_path):
    run = shutil.copytree(trained, tmp_path / "nb")
    evaluated(run, sample, "--name=everything")
    page = (run / "report.html").read_text()
    digest = read_json(run / "evaluation" / "test" / "metrics.json")["films"]["ids_sha256"]
    assert f"films of the test split of sample.csv, none of them trained on (SHA-256 of ids {digest[:16]})" in page
    assert "Films of other files" in page
    assert "everything" in page
    assert "films that it was trained on were left out" in page
