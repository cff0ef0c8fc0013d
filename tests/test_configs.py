"""Every file under configs/ is a valid configuration: its data module is made, and its model with a small backbone."""

import csv
from pathlib import Path

import pytest
import yaml

from genre_lightning.config.parser import parse
from genre_lightning.data.sample.generate import write_sample
from genre_lightning.models.distilbert import DistilBertClassifier
from genre_lightning.models.layers.fusion import FusionHead
from genre_lightning.training.loggers.tensorboard import RunTensorBoardLogger
from genre_lightning.training.loggers.wandb_run import RunWandbLogger, WandbOptions
from genre_lightning.training.setup import build_trainer, check_setup

CONFIGS = Path(__file__).parent.parent / "configs"
ENCODERS = sorted(
    path
    for path in CONFIGS.glob("*.yaml")
    if "DistilBert" in yaml.safe_load(path.read_text()).get("model", {}).get("class_path", "")
)


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    path = write_sample(tmp_path_factory.mktemp("sample") / "sample.csv", films=150, seed=0)
    with path.open(newline="", encoding="utf-8") as file:
        ids = [row["id"] for row in csv.DictReader(file)]
    rows = "".join(f"{film},\"['heist', 'bank']\"\n" for film in ids)
    (path.parent / "keywords.csv").write_text(f"id,keywords\n{rows}")
    return path


def test_there_are_configurations():
    names = {path.stem for path in ENCODERS}
    assert names >= {
        "quickstart",
        "distilbert",
        "distilbert_lora",
        "minilm",
        "distilbert_rich",
        "multilingual",
        "bert",
        "paper_distilbert",
    }


@pytest.mark.parametrize("path", ENCODERS, ids=lambda path: path.stem)
def test_the_configuration_builds(path, sample, tmp_path):
    small = ["--model.backbone=small", "--model.lora=null", "--trainer.accelerator=cpu"]
    words = ["--config", str(path), "--data.csv", str(sample), "--run_dir", str(tmp_path / "run"), *small]
    config, parser = parse("fit", words)
    setup = check_setup(config, parser)
    data = setup.data.prepare()
    assert sum(len(split.films) for split in data.splits.values()) >= 150
    assert isinstance(setup.model, DistilBertClassifier)
    setup.model.bind(data.spec)
    setup.model.configure_model()
    head = setup.model.head
    linear = head.text if isinstance(head, FusionHead) else head[1]
    assert linear.out_features == len(data.vocabulary)
    assert isinstance(head, FusionHead) == (path.stem in ("distilbert_rich", "multilingual"))


@pytest.mark.parametrize("path", ENCODERS, ids=lambda path: path.stem)
def test_the_configuration_names_its_command(path):
    first_lines = path.read_text().splitlines()[:5]
    assert any(line.startswith("# genre-lightning") and path.name in line for line in first_lines)


def test_the_papers_settings():
    paper = yaml.safe_load((CONFIGS / "paper_distilbert.yaml").read_text())
    assert paper["data"]["split"] == [0.8, 0.2]
    assert paper["data"]["max_tokens"] == 256
    assert paper["data"]["global_batch_size"] == 16
    assert paper["model"]["init_args"]["lr"] == 1e-5
    assert paper["model"]["init_args"]["pos_weight"] == "full"
    assert paper["trainer"]["max_epochs"] == 5


@pytest.mark.parametrize("path", sorted((CONFIGS / "logger").glob("*.yaml")), ids=lambda path: path.stem)
def test_a_logger_is_laid_over_any_configuration(path, sample, tmp_path):
    run_dir = tmp_path / "run"
    words = ["--config", str(CONFIGS / "quickstart.yaml"), "--config", str(path), f"--run_dir={run_dir}"]
    config, parser = parse("fit", [*words, "--data.csv", str(sample)])
    trainer, _ = build_trainer(check_setup(config, parser))
    assert trainer.loggers[0].name == "curves"
    added = trainer.loggers[1]
    if path.stem == "wandb":
        assert isinstance(added, RunWandbLogger)
        assert added.options == WandbOptions(project="genre_lightning")
    else:
        assert isinstance(added, RunTensorBoardLogger)
        assert added.log_dir == str(run_dir / "tensorboard")
    assert any(path.name in line for line in path.read_text().splitlines()[:3])
