"""The evaluation as each logger keeps it, read back from the files that the logger wrote."""

import csv
import json

import numpy as np
import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger
from quick_figures import real_figures

from genre_lightning.__main__ import main
from genre_lightning.evaluation.decisions import fit_decision
from genre_lightning.evaluation.evaluate import write_evaluation
from genre_lightning.evaluation.predictions import Predictions
from genre_lightning.runs import EvaluationDirectory
from genre_lightning.training.loggers.curves import CurvesLogger
from genre_lightning.training.loggers.tracking import headline_metrics, log_evaluation

GENRES = ("A|B", "War")


@pytest.fixture(scope="module")
def evaluation(tmp_path_factory):
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(60, 2))
    labels = truth > 0.3
    labels[:, 1] = False
    made = Predictions(GENRES, np.arange(60), ["t"] * 60, ["a text"] * 60, labels, (2 * truth).astype(np.float32))
    place = tmp_path_factory.mktemp("run") / "evaluation" / "test"
    decision = fit_decision(made, "validation", resamples=5)
    with real_figures():
        result = write_evaluation(place, made, decision, split="test", resamples=0)
    return EvaluationDirectory(place), result


def test_headlines_are_flat_and_defined(evaluation):
    _, result = evaluation
    named = headline_metrics(result, "test")
    assert named["test/per_genre/f1_micro"] == result["policies"]["per_genre"]["f1_micro"]
    assert named["test/map_macro"] == result["threshold_free"]["map_macro"]
    assert all(isinstance(value, float) and np.isfinite(value) for value in named.values())
    assert "test/map_macro" not in headline_metrics(
        {"threshold_free": {"map_macro": None}, "policies": {}, "split": "test"}, "test"
    )


def test_tensorboard_holds_metrics_plots_and_tables(evaluation, tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    logger = TensorBoardLogger(tmp_path, name="", version="")
    log_evaluation([logger], *evaluation, step=7)
    logger.finalize("success")
    (file,) = tmp_path.rglob("events.out.tfevents*")
    events = list(loader.EventFileLoader(str(file)).Load())
    values = {value.tag: (event.step, value) for event in events for value in event.summary.value}
    step, f1 = values["test/per_genre/f1_micro"]
    assert step == 7
    assert f1.tensor.float_val[0] == pytest.approx(evaluation[1]["policies"]["per_genre"]["f1_micro"], abs=1e-6)
    figures = sorted(path.stem for path in evaluation[0].figures.glob("*.png"))
    assert len(figures) >= 7
    for name in figures:
        width, height, png = values[f"test/{name}"][1].tensor.string_val[:3]
        assert int(width) > 300
        assert int(height) > 200
        assert png.startswith(b"\x89PNG")
    text = values["test/per_genre/text_summary"][1].tensor.string_val[0].decode()
    assert text.startswith("| genre | policy | support |")
    assert "| A\\|B | per\\_genre |" in text
    assert "| War | per\\_genre | 0 |" in text


def test_wandb_holds_metrics_plots_and_tables(evaluation):
    class Recorded:
        def __init__(self):
            self.logged, self.summary = {}, {}

        def log(self, content):
            self.logged |= content

    class Recording(WandbLogger):
        def __init__(self):
            self.recorded = Recorded()

        @property
        def experiment(self):
            return self.recorded

    logger = Recording()
    log_evaluation([logger], *evaluation, step=7)
    recorded = logger.recorded
    assert recorded.summary["test/global/f1_macro"] == evaluation[1]["policies"]["global"]["f1_macro"]
    assert isinstance(recorded.logged["test/figures/reliability"], wandb.Image)
    table = recorded.logged["test/per_genre"]
    assert table.columns[:3] == ["genre", "policy", "support"]
    assert [row[0] for row in table.data] == list(GENRES)
    assert table.data[1][table.columns.index("f1")] is None
    assert table.data[1][table.columns.index("support")] == 0


# wandb's own start-up opens files and sockets that it leaves to the interpreter's end
@pytest.mark.filterwarnings("ignore")
def test_wandb_offline_writes_a_real_run(evaluation, tmp_path):
    logger = WandbLogger(save_dir=tmp_path, offline=True, project="genres")
    log_evaluation([logger], *evaluation, step=7)
    logger.experiment.finish()
    wandb.teardown()
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    assert next(folder.glob("run-*.wandb")).stat().st_size > 1000
    media = sorted(path.name for path in folder.rglob("media/images/test/figures/*.png"))
    assert len(media) == len(list(evaluation[0].figures.glob("*.png")))
    tables = {path.name.split("_")[0]: json.loads(path.read_text()) for path in folder.rglob("*.table.json")}
    assert [row[0] for row in tables["per"]["data"]] == list(GENRES)


def test_other_loggers_get_the_metrics_and_the_curves_stay(evaluation, tmp_path):
    plain = CSVLogger(tmp_path, name="", version="")
    curves = CurvesLogger(tmp_path / "curves.csv")
    log_evaluation([curves, plain], *evaluation, step=7)
    curves.save()
    with (tmp_path / "metrics.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert row["step"] == "7"
    assert float(row["test/ece"]) == pytest.approx(evaluation[1]["threshold_free"]["ece"])
    assert (tmp_path / "curves.csv").read_text().splitlines() == ["epoch,step"]


@pytest.mark.slow
def test_a_logger_named_on_the_command_line_gets_curves_and_evaluation(sample_csv, tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    words = [
        "--model.backbone=small",
        "--model.architecture={layers: 1, width: 16, heads: 1, inner_width: 16}",
        "--data.max_tokens=16",
        "--data.vocab_size=300",
        "--trainer.max_epochs=1",
        "--trainer.accelerator=cpu",
        "--trainer.precision=32-true",
        "--trainer.log_every_n_steps=2",
        "--trainer.logger=TensorBoardLogger",
        f"--trainer.logger.save_dir={tmp_path / 'run' / 'logs'}",
    ]
    assert main(["fit", f"--data.csv={sample_csv}", f"--run_dir={tmp_path / 'run'}", *words]) == 0
    files = (tmp_path / "run" / "logs").rglob("events.out.tfevents*")
    tags = {value.tag for file in files for e in loader.EventFileLoader(str(file)).Load() for value in e.summary.value}
    assert {"val/loss", "test/global/f1_micro", "validation/map_macro", "test/reliability", "test/loss"} <= tags
    metrics = json.loads((tmp_path / "run" / "evaluation" / "test" / "metrics.json").read_text())
    assert metrics["trainable_parameters"] > 1000
    assert metrics["seconds"] > 0
    assert "parameters trained" in (tmp_path / "run" / "report.html").read_text()
