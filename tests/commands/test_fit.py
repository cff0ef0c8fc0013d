"""A whole run as its user starts it, cuts it off, and starts it again."""

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from made_runs import without_page
from power_cuts import power_cut, weights
from quick_figures import real_figures
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score
from small_run import SMALL

from genre_lightning.__main__ import main
from genre_lightning.data.datamodule import MovieDataModule
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.distributed.checkpoint.io import read_checkpoint
from genre_lightning.evaluation.films import describe_provenance
from genre_lightning.models.base import GenreClassifier
from genre_lightning.runs import RunDirectory


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("sample") / "sample.csv", films=400, seed=1)


def fit(sample, run_dir, *more):
    return main(["fit", f"--data.csv={sample}", f"--run_dir={run_dir}", *SMALL, *more])


@pytest.fixture(scope="module")
def run(sample, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "a run"
    with real_figures():
        assert fit(sample, place) == 0
    return place


def curve_rows(run_dir):
    with (run_dir / "curves.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_run_directory_is_the_contracts(run):
    for name in (
        "config.yaml", "data_audit.json", "curves.csv", "decision.json", "report.html",
        "checkpoints/last.ckpt", "checkpoints/best.ckpt",
        "checkpoints/last.ckpt.manifest.json", "checkpoints/best.ckpt.manifest.json",
        *(f"evaluation/{split}/{file}" for split in ("validation", "test")
          for file in ("metrics.json", "predictions.parquet", "per_genre.csv", "thresholds.csv", "confusion.csv")),
    ):  # fmt: skip
        assert (run / name).is_file(), name
    audit = json.loads((run / "data_audit.json").read_text())
    reasons = ("malformed", "duplicate_id", "missing_overview", "placeholder_overview", "no_genres", "kept")
    assert sum(audit[reason] for reason in reasons) == audit["rows"]
    assert sum(split["films"] for split in audit["splits"].values()) == audit["kept"]
    decision = json.loads((run / "decision.json").read_text())
    manifest = json.loads((run / "checkpoints/best.ckpt.manifest.json").read_text())
    assert decision["checkpoint_sha256"] == manifest["sha256"]
    stored = torch.load(run / "checkpoints/best.ckpt", weights_only=True)["genre_lightning"]["decision"]
    assert stored["thresholds"] == decision["thresholds"]


@pytest.mark.parametrize("split", ["validation", "test"])
def test_metrics_are_scikit_learns_on_the_predictions(run, split):
    folder = run / "evaluation" / split
    table = pq.read_table(folder / "predictions.parquet").to_pandas()
    labels = np.stack(table["labels"]).astype(bool)
    probabilities = np.stack(table["probabilities"])
    assert probabilities.dtype == np.float32
    metrics = json.loads((folder / "metrics.json").read_text())
    threshold = json.loads((run / "decision.json").read_text())["thresholds"]["global"]
    assert metrics["n"] == len(table) == table["id"].nunique()
    for policy, at in (("fixed_0.5", 0.5), ("global", threshold)):
        decided = probabilities.astype(np.float64) >= at
        for name, function in (("f1", f1_score), ("precision", precision_score), ("recall", recall_score)):
            expected = function(labels, decided, average="micro", zero_division=0)
            assert metrics["policies"][policy][f"{name}_micro"] == pytest.approx(expected, abs=1e-6)
        assert metrics["policies"][policy]["subset_accuracy"] == pytest.approx((labels == decided).all(axis=1).mean())
    with_films = labels.any(axis=0)
    expected = average_precision_score(labels[:, with_films], probabilities[:, with_films], average="macro")
    assert metrics["threshold_free"]["map_macro"] == pytest.approx(expected, abs=1e-6)


def test_curves_have_losses_and_learning_rates(run):
    rows = curve_rows(run)
    for column in ("train/loss", "train/loss_epoch", "val/loss", "val/f1_micro", "train/gradient_norm"):
        assert any(row[column] for row in rows), column
    efficiency = [float(row["train/padding_efficiency"]) for row in rows if row["train/padding_efficiency"]]
    assert all(0.3 < value <= 1 for value in efficiency)


def test_a_finished_run_is_reported_and_changes_nothing(sample, run, capfd):
    before = {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file() and file.name != ".lock"}
    assert fit(sample, run) == 0
    assert "all is done" in capfd.readouterr().err
    assert main(["fit", "--run_dir", str(run)]) == 0
    after = {file: file.stat().st_mtime_ns for file in run.rglob("*") if file.is_file() and file.name != ".lock"}
    assert before == after


@pytest.mark.parametrize(
    "cut_at",
    [
        19,
        pytest.param(6, marks=pytest.mark.slow),
        *(pytest.param(step, marks=pytest.mark.thorough) for step in (3, 25)),
    ],
)
def test_a_run_cut_off_and_started_again_is_the_unbroken_one_to_the_bit(sample, run, tmp_path, cut_at):
    with power_cut(cut_at):
        fit(sample, tmp_path / "run")
    assert fit(sample, tmp_path / "run") == 0
    for name in ("last", "best"):
        expected, got = weights(run, name), weights(tmp_path / "run", name)
        assert expected.keys() == got.keys()
        for key in expected:
            assert torch.equal(expected[key], got[key]), f"{name}: {key}"
    curves = [curve_rows(place) for place in (run, tmp_path / "run")]
    losses = [{row["step"]: row["train/loss"] for row in rows if row["train/loss"]} for rows in curves]
    assert losses[0] == losses[1]


def test_a_changed_setting_is_refused_by_name_and_overridden_on_demand(sample, run, tmp_path, capfd):
    assert fit(sample, run, "--model.lr=0.01", "--data.max_tokens=32") == 2
    err = capfd.readouterr().err
    assert "model.lr: null → 0.01" in err
    assert "data.max_tokens: 48 → 32" in err
    assert "--override" in err
    # where and how fast it runs is not part of the training
    assert fit(sample, run, "--data.micro_batch_tokens=128", "--trainer.log_every_n_steps=7") == 0


def test_other_films_are_refused(run, tmp_path, capfd):
    other = write_sample(tmp_path / "other.csv", films=400, seed=2)
    assert main(["fit", f"--run_dir={run}", f"--data.csv={other}"]) == 2
    assert "other films" in capfd.readouterr().err


def decision_of(place):
    kept = yaml.safe_load((place / "config.yaml").read_text())["decision"]
    evaluated = {
        split: json.loads((place / "evaluation" / split / "metrics.json").read_text())["decision"]["calibration"]
        for split in ("validation", "test")
    }
    return kept["calibration"], json.loads((place / "decision.json").read_text())["calibration"], evaluated


def test_other_decision_options_fit_it_again_and_train_nothing(run, tmp_path, capfd, monkeypatch):
    without_page(monkeypatch)
    place = tmp_path / "run"
    shutil.copytree(run, place)
    here = f"--run_dir={place}"
    trained = weights(place, "best")
    assert main(["fit", here, "--decision.calibration=none"]) == 0
    assert "fitting the decision again (decision.calibration: " in capfd.readouterr().err
    assert decision_of(place) == ("none", "none", {"validation": "none", "test": "none"})
    assert all(torch.equal(value, weights(place, "best")[name]) for name, value in trained.items())

    assert main(["test", here, "--decision.calibration=platt"]) == 2
    assert "give them to 'genre-lightning fit'" in capfd.readouterr().err
    assert main(["validate", here, "--decision.calibration=platt"]) == 0
    assert "run 'genre-lightning test" in capfd.readouterr().err
    assert decision_of(place) == ("platt", "platt", {"validation": "platt", "test": "none"})
    assert main(["fit", here]) == 0
    assert "the evaluation of test is of another decision: evaluating" in capfd.readouterr().err
    assert decision_of(place) == ("platt", "platt", {"validation": "platt", "test": "platt"})
    assert main(["fit", here]) == 0
    assert "all is done" in capfd.readouterr().err


@pytest.mark.parametrize(("command", "split"), [("validate", "validation"), ("test", "test")])
def test_validate_and_test_work_from_the_run_directory_alone(run, command, split, capfd):
    before = json.loads((run / "evaluation" / split / "metrics.json").read_text())
    assert main([command, "--run_dir", str(run), "--json"]) == 0
    printed = json.loads(capfd.readouterr().out)
    assert printed["policies"] == before["policies"]
    assert printed["threshold_free"] == before["threshold_free"]


def test_predict_tags_every_film_of_a_file(run, sample, tmp_path):
    out = tmp_path / "tagged.parquet"
    assert main(["predict", "--run_dir", str(run), "--data.csv", str(sample), "--out", str(out)]) == 0
    table = pq.read_table(out).to_pandas()
    with sample.open(newline="", encoding="utf-8") as file:
        assert list(table["id"]) == [row["id"] or None for row in csv.DictReader(file)]
    table = table[table["id"].str.isdigit().fillna(False).astype(bool)].drop_duplicates("id")
    table = table.assign(id=table["id"].astype(int)).set_index("id")
    test = pq.read_table(run / "evaluation/test/predictions.parquet").to_pandas().set_index("id")
    assert len(table) > len(test)
    both = table.loc[test.index]
    # other films share the batch, so padding and the order of sums differ
    np.testing.assert_allclose(np.stack(both["logits"]), np.stack(test["logits"]), atol=1e-5)
    assert list(map(list, both["genres"])) == list(map(list, test["genres"]))


def test_an_unfinished_run_is_not_evaluated(sample, tmp_path, capfd):
    with power_cut(0):
        fit(sample, tmp_path / "run")
    capfd.readouterr()
    assert main(["test", "--run_dir", str(tmp_path / "run")]) == 2
    assert "has not finished training" in capfd.readouterr().err


def test_a_damaged_checkpoint_is_refused(run, tmp_path, capfd):
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    best = copy / "checkpoints/best.ckpt"
    content = bytearray(best.read_bytes())
    content[len(content) // 2] ^= 1
    best.write_bytes(bytes(content))
    assert main(["test", "--run_dir", str(copy)]) == 2
    assert "is damaged" in capfd.readouterr().err


def test_two_processes_in_one_run_directory(sample, run, capfd):
    from filelock import FileLock

    with FileLock(run / ".lock"):
        assert fit(sample, run) == 2
    assert "another process is working" in capfd.readouterr().err


def test_the_saved_configuration_is_resolved(run):
    config = yaml.safe_load((run / "config.yaml").read_text())
    assert Path(config["data"]["csv"]).is_absolute()
    assert config["trainer"]["precision"] == "32-true"
    assert config["model"]["init_args"]["backbone"] == "small"


def test_a_loss_that_is_not_a_number_stops_the_run_and_names_the_films(sample, tmp_path, monkeypatch, capsys):
    seen, model_step = [], GenreClassifier.model_step

    def diverging(self, batch):
        output = model_step(self, batch)
        if self.training and self.trainer.global_step == 6:
            seen.extend(batch["index"][batch["weights"] > 0].tolist())
            output = type(output)(output.logits, output.loss_sum * float("nan"))
        return output

    monkeypatch.setattr(GenreClassifier, "model_step", diverging)
    run_dir = tmp_path / "run"
    assert fit(sample, run_dir) == 1
    said = capsys.readouterr().err.strip().splitlines()[-1]
    assert "the loss or its gradient is not finite from optimizer step 7 on (films with ids" in said
    assert "last.ckpt holds the weights of an earlier step; lower model.lr" in said
    last = read_checkpoint(run_dir / "checkpoints" / "last.ckpt")
    assert last["global_step"] == 4
    assert all(value.isfinite().all() for value in last["state_dict"].values())
    # the films named are those of the step, whatever micro-batch was bad
    data = MovieDataModule(csv=str(sample), global_batch_size=16, max_tokens=48, vocab_size=600)
    train = data.prepare_films().splits["train"].films
    step = data.film_ids_of_step(6)
    assert sorted(step) == sorted(data.prepare_films().films.ids[train[seen]])
    assert ", ".join(map(str, step[:8])) + " and 8 more)" in said


def test_a_checkpoint_of_other_settings_is_refused(sample, tmp_path, capsys, monkeypatch):
    without_page(monkeypatch)
    for name, lr in (("one", "1e-3"), ("two", "2e-3")):
        assert fit(sample, tmp_path / name, f"--model.lr={lr}", "--trainer.max_epochs=1") == 0
    place = tmp_path / "one"
    state = json.loads((place / "run_state.json").read_text())
    (place / "run_state.json").write_text(json.dumps({**state, "status": "training"}))
    for end in ("", ".manifest.json"):
        shutil.copy(tmp_path / f"two/checkpoints/last.ckpt{end}", place / f"checkpoints/last.ckpt{end}")
    assert fit(sample, place, "--model.lr=1e-3", "--trainer.max_epochs=1") == 2
    assert "was trained with other settings than" in capsys.readouterr().err
    assert fit(sample, place, "--model.lr=1e-3", "--trainer.max_epochs=1", "--override") == 0


def test_settings_that_were_overridden_stay_accepted_until_the_next_save(sample, tmp_path, capsys, monkeypatch):
    without_page(monkeypatch)
    place = tmp_path / "run"
    assert fit(sample, place, "--trainer.max_epochs=1", "--model.lr=1e-3") == 0

    def cut_off(self, *args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(GenreClassifier, "training_step", cut_off)
        with pytest.raises(BaseException):  # noqa: B017  # Lightning makes a SystemExit of it
            fit(sample, place, "--trainer.max_epochs=2", "--model.lr=1e-3", "--override")
    assert json.loads((place / "run_state.json").read_text())["status"] == "training"
    assert fit(sample, place, "--trainer.max_epochs=2", "--model.lr=1e-3") == 0
    assert "resuming" in capsys.readouterr().err
    metrics = json.loads((place / "evaluation/test/metrics.json").read_text())
    steps = json.loads((place / "run_state.json").read_text())["steps"]
    note = f"after step {steps // 2}: trainer.max_epochs: 1 → 2"
    assert metrics["training"]["overridden"] == note
    assert ("overridden settings", note) in describe_provenance(metrics)


def test_what_a_late_rank_finds_is_a_run_and_no_finished_one(sample, tmp_path, monkeypatch):
    # a rank looks when it likes: rank 0 may have written any part of this by then
    without_page(monkeypatch)
    place, written = tmp_path / "run", []
    replace = os.replace

    def noted(source, target, **options):
        replace(source, target, **options)
        if Path(target).parent == place:
            state = place / "run_state.json"
            status = json.loads(state.read_text())["status"] if state.is_file() else None
            written.append((Path(target).name, status))

    monkeypatch.setattr(os, "replace", noted)
    assert fit(sample, place, "--trainer.max_epochs=1") == 0
    assert written[0] == ("config.yaml", None)
    written.clear()
    assert fit(sample, place, "--trainer.max_epochs=2", "--override") == 0
    names = [name for name, _ in written]
    assert written[names.index("config.yaml")] == ("config.yaml", "training")


@pytest.mark.filterwarnings(
    "ignore:The PyTorchProfiler failed to export trace",
    "ignore:.*Profiler clears events",
    "ignore:The PyTorch Profiler default",
)
def test_a_training_that_torch_profiles_is_evaluated(sample, tmp_path):
    assert fit(sample, tmp_path / "run", "--data.max_films=120", "--trainer.profiler=pytorch") == 0
    assert RunDirectory(tmp_path / "run").status == "finished"
