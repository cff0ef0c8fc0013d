"""`baseline` as its user runs it: a run directory like that of `fit`, on the same films, and the same refusals."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import yaml
from filelock import FileLock
from made_runs import everything_under, refused, without_page
from quick_figures import real_figures
from sklearn.metrics import f1_score

from genre_lightning.__main__ import main
from genre_lightning.commands.checked import parse_checked_baseline
from genre_lightning.config.guard import instantiate
from genre_lightning.data.datamodule import MovieDataModule
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.evaluation.predictions import read_stored_predictions
from genre_lightning.files import write_json
from genre_lightning.models.tfidf import BASELINES, read_baseline
from genre_lightning.runs import RunDirectory

CONFIGS = Path(__file__).parent.parent.parent / "configs"


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("sample") / "sample.csv", films=500, seed=2)


def words(sample, place, *more):
    return ["baseline", "tfidf_nb", f"--data.csv={sample}", f"--run_dir={place}", *more]


@pytest.fixture(scope="module")
def run(sample, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "nb"
    with real_figures():
        assert main(words(sample, place)) == 0
    return place


def test_the_run_directory_is_the_contracts(run):
    for name in ("config.yaml", "data_audit.json", "decision.json", "model.safetensors", "report.html"):
        assert (run / name).is_file(), name
    for split in ("validation", "test"):
        for name in ("metrics.json", "predictions.parquet", "per_genre.csv", "thresholds.csv", "confusion.csv"):
            assert (run / "evaluation" / split / name).is_file(), name
        assert (run / "evaluation" / split / "figures" / "reliability.png").is_file()
    assert json.loads((run / "run_state.json").read_text())["status"] == "finished"
    assert yaml.safe_load((run / "config.yaml").read_text())["baseline"] == "tfidf_nb"
    assert not [path for path in run.rglob("*") if path.suffix in (".pkl", ".joblib")]


def test_the_run_ends_with_its_headline_beside_the_trivial_baseline(run, sample, capfd):
    capfd.readouterr()
    assert main(words(sample, run)) == 0
    *_, headline, trivial, last = capfd.readouterr().out.splitlines()
    metrics = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    assert headline.startswith(f"test micro-F1 {metrics['policies']['per_genre']['f1_micro']:.3f} [")
    assert trivial.startswith(f"trivial baseline {metrics['trivial_baseline']['f1_micro']:.3f}: ")
    assert last.startswith("results in ")


def test_the_decision_is_bound_to_the_model_file(run):
    decision = json.loads((run / "decision.json").read_text())
    digest = hashlib.sha256((run / "model.safetensors").read_bytes()).hexdigest()
    assert decision["checkpoint_sha256"] == digest
    assert decision["fitted_on"] == "validation"
    stored = read_stored_predictions(run / "evaluation" / "test" / "predictions.parquet")
    model = read_baseline(run / "model.safetensors", decision["checkpoint_sha256"])
    np.testing.assert_array_equal(model.logits(stored.predictions.texts), stored.predictions.logits)


def test_films_figures_and_cost_are_those_of_the_run(run, sample):
    films = MovieDataModule(sample).prepare_films()
    test = films.splits["test"]
    stored = read_stored_predictions(run / "evaluation" / "test" / "predictions.parquet")
    np.testing.assert_array_equal(stored.predictions.ids, films.films.ids[films.rows[test.films]])
    np.testing.assert_array_equal(stored.predictions.labels, test.labels)
    metrics = json.loads((run / "evaluation" / "test" / "metrics.json").read_text())
    assert metrics["split_sha256"] == test.sha256
    assert metrics["trainable_parameters"] == read_baseline(run / "model.safetensors").parameters
    assert metrics["seconds"] >= 0
    expected = f1_score(test.labels, stored.decided, average="micro")
    assert metrics["policies"]["per_genre"]["f1_micro"] == pytest.approx(expected, abs=1e-9)
    # far above deciding every genre of every film
    assert expected > 1.5 * f1_score(test.labels, np.ones_like(test.labels), average="micro")


def test_again_it_is_done_and_nothing_changes(run, sample, capfd):
    before = everything_under(run)
    assert main(["baseline", "tfidf_nb", "--run_dir", str(run)]) == 0
    assert main(words(sample, run, "--json", "--data.max_tokens", "99")) == 0
    out, err = capfd.readouterr()
    assert err.count("is finished: all is done") == 2
    assert json.loads(out.splitlines()[-1])["test"]["n"] > 0
    assert everything_under(run) == before


def test_other_settings_and_other_films_are_refused(run, sample, tmp_path, capfd):
    before = everything_under(run)
    refused(capfd, words(sample, run, "--model.smoothing", "0.7"), "model.smoothing: 0.1 → 0.7", "--override")
    refused(capfd, words(sample, run, "--data.seed", "4"), "data.seed: 0 → 4")
    other = write_sample(tmp_path / "other.csv", films=500, seed=9)
    refused(capfd, words(other, run), "other films", "genre-lightning evaluate")
    refused(capfd, words(other, run, "--override"), "other films", "genre-lightning evaluate")
    with FileLock(run / ".lock"):
        refused(capfd, words(sample, run), "another process is working")
    assert everything_under(run) == before


def test_commands_for_other_kinds_of_runs_name_the_right_one(run, sample, capfd):
    before = everything_under(run)
    for command in (["fit"], ["test"], ["validate"], ["baseline", "tfidf_logreg"]):
        refused(capfd, [*command, "--run_dir", run], "a run of 'genre-lightning baseline tfidf_nb'", "--run_dir")
    refused(capfd, ["fit", "--config", CONFIGS / "quickstart.yaml", "--run_dir", run], "baseline tfidf_nb")
    assert everything_under(run) == before


def test_override_trains_again_and_is_not_kept(run, sample, tmp_path, capfd):
    place = tmp_path / "nb"
    shutil.copytree(run, place)
    before = (place / "decision.json").read_text()
    assert main(words(sample, place, "--model.smoothing", "0.7", "--override")) == 0
    assert "overriding model.smoothing" in capfd.readouterr().err
    assert (place / "decision.json").read_text() != before
    kept = yaml.safe_load((place / "config.yaml").read_text())
    assert (kept["model"]["smoothing"], kept["override"]) == (0.7, False)
    refused(capfd, words(sample, place, "--model.smoothing", "0.6"), "model.smoothing: 0.7 → 0.6")


def test_other_decision_options_fit_it_again(run, sample, tmp_path, capfd):
    place = tmp_path / "nb"
    shutil.copytree(run, place)
    model, before = (place / "model.safetensors").read_bytes(), json.loads((place / "decision.json").read_text())
    assert main(words(sample, place, "--decision.shrinkage", "50")) == 0
    assert "fitting the decision again (decision.shrinkage: 2.0 → 50.0)" in capfd.readouterr().err
    now = json.loads((place / "decision.json").read_text())
    assert now["thresholds"]["per_genre"] != before["thresholds"]["per_genre"]
    assert (place / "model.safetensors").read_bytes() == model
    assert main(["baseline", "tfidf_nb", f"--run_dir={place}"]) == 0
    assert "all is done" in capfd.readouterr().err


def test_a_late_rank_finds_a_run_directory_at_every_moment(sample, tmp_path, capfd, monkeypatch):
    without_page(monkeypatch)
    seen = []

    def write(path, content):
        write_json(path, content)
        RunDirectory(tmp_path / "run").check_writable()
        seen.append(path.name)

    monkeypatch.setattr("genre_lightning.training.resume.write_json", write)
    assert main(words(sample, tmp_path / "run")) == 0, capfd.readouterr().err
    assert seen == ["data_audit.json"]


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (["--model.smoothing", "0"], ["model.smoothing is 0", "above 0"]),
        (["--model.smoothing", "much"], ["model.smoothing"]),
        (["--model.inverse_penalty", "1"], ["inverse_penalty", "--help"]),
        (["--data.max_films", "8"], ["data.max_films", "data.split"]),
        (["--data.csv", "nosuch.csv"], ["nosuch.csv"]),
        (["--config", "nosuch.yaml"], ["no such configuration file"]),
        (["--config", str(CONFIGS / "baseline_tfidf_logreg.yaml")], ["tfidf_logreg"]),
        (["--model.min_films", "100000"], ["leave no term", "min_films"]),
    ],
)
def test_bad_use_is_refused_and_nothing_evaluated(sample, tmp_path, capfd, more, expected):
    refused(capfd, words(sample, tmp_path / "run", *more), *expected)
    assert not (tmp_path / "run" / "decision.json").exists()


def test_all_problems_are_named_at_once(sample, tmp_path, capfd):
    line = refused(capfd, words(sample, tmp_path / "run", "--model.evidence", "-1", "--data.split", "[0.5, 0.6]"))
    assert "model.evidence" in line
    assert "data.split" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["tfidf_nb", "tfidf_logreg"])
@pytest.mark.parametrize("kind", ["baseline", "paper"])
def test_the_configuration_loads(kind, name, sample, tmp_path):
    path = CONFIGS / f"{kind}_{name}.yaml"
    words = ["--config", str(path), f"--data.csv={sample}"]
    made = instantiate(*reversed(parse_checked_baseline(name, BASELINES[name], words, tmp_path / "run")))
    assert made.model.name == name
    # the tuned settings are the defaults too
    assert made.model == type(made.model)()
    assert made.data.is_paper_protocol is (kind == "paper")
    assert any(line.startswith("# genre-lightning") and path.name in line for line in path.read_text().splitlines())


def test_help_lists_the_options(capfd):
    with pytest.raises(SystemExit) as leaving:
        main(["baseline", "tfidf_logreg", "--help"])
    assert leaving.value.code == 0
    out = capfd.readouterr().out
    for option in ("--run_dir", "--data.csv", "--model.inverse_penalty", "--override"):
        assert option in out


@pytest.mark.real_data
@pytest.mark.parametrize(("name", "least"), [("tfidf_nb", 0.59), ("tfidf_logreg", 0.60)])
def test_the_baselines_are_no_straw_men(name, least, movies_csv, tmp_path):
    assert main(["baseline", name, f"--data.csv={movies_csv}", f"--run_dir={tmp_path / name}"]) == 0
    metrics = json.loads((tmp_path / name / "evaluation" / "test" / "metrics.json").read_text())
    assert metrics["policies"]["global"]["f1_micro"] > least
    assert metrics["policies"]["per_genre"]["f1_macro"] > metrics["policies"]["global"]["f1_macro"]
