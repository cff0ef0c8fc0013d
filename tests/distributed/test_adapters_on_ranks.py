"""Adapters over frozen bases on 1, 2 and 3 ranks, by DDP and FSDP: one training, and each film predicted once."""

import csv

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from ranks import run_command_on_ranks
from test_runs_on_ranks import same_training
from transformers import DistilBertConfig, DistilBertModel

from genre_lightning.data.sample.generate import write_sample

pytestmark = pytest.mark.slow

OPTIONS = [
    "--data.tokenizer=wordpiece",
    "--data.vocab_size=600",
    "--data.max_tokens=48",
    "--data.global_batch_size=16",
    "--data.micro_batch_tokens=256",
    "--trainer.max_epochs=1",
    "--trainer.accelerator=cpu",
    "--trainer.precision=32-true",
    "--trainer.log_every_n_steps=1",
    "--trainer.enable_progress_bar=false",
    "--model.lr=1e-2",
]

SMALL_FILES = (1, 2, 7)
"""Films: fewer than ranks, and more than three ranks share evenly."""


def rows_of(curves, column):
    with curves.open(newline="") as file:
        return {row["step"]: float(row[column]) for row in csv.DictReader(file) if row[column]}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A movies file of 93 films, which no number of ranks and no batch divides, and files of a few."""
    place = tmp_path_factory.mktemp("films")
    files = {93: write_sample(place / "93.csv", films=93, seed=1)}
    with files[93].open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if len(row["overview"]) > 60]
    for count in SMALL_FILES:
        files[count] = place / f"{count}.csv"
        with files[count].open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows[:count])
    return files


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    place = tmp_path_factory.mktemp("encoder")
    torch.manual_seed(0)
    config = DistilBertConfig(vocab_size=600, dim=32, n_layers=2, n_heads=2, hidden_dim=64, max_position_embeddings=48)
    DistilBertModel(config).save_pretrained(place)
    return place


def distilbert_lora(encoder):
    return ["--model=genre_lightning.models.distilbert.DistilBertClassifier", f"--model.backbone={encoder}",
            "--model.lora={rank: 4, dropout: 0}", "--model.dropout=0"]  # fmt: skip


def llama_qlora(encoder):
    return ["--model=genre_lightning.models.llama_qlora.LlamaQLoraClassifier", "--model.backbone=random",
            "--model.architecture={layers: 3, width: 64, heads: 4, kv_heads: 2, inner_width: 96}",
            "--model.quantization=nf4", "--model.packing=true", "--model.activation_checkpointing=true",
            "--model.lora={rank: 4, dropout: 0}"]  # fmt: skip


@pytest.fixture(scope="module", params=[distilbert_lora, llama_qlora], ids=lambda model: model.__name__)
def trained(request, files, encoder, tmp_path_factory):
    """The run on one rank, and what starts the same on others."""
    model = request.param(encoder)

    def fit(place, ranks, strategy, *more):
        words = ["fit", f"--data.csv={files[93]}", f"--run_dir={place}", *OPTIONS, *model, *more]
        run_command_on_ranks(ranks, [*words, f"--trainer.devices={ranks}", f"--trainer.strategy={strategy}"])
        return place

    return fit(tmp_path_factory.mktemp("runs") / "one", 1, "auto"), fit


@pytest.mark.parametrize(
    ("ranks", "strategy"),
    [
        pytest.param(2, "ddp", marks=pytest.mark.thorough),
        (3, "ddp"),
        pytest.param(2, "fsdp", marks=pytest.mark.thorough),
        (3, "fsdp"),
    ],
)
def test_a_run_of_adapters_is_the_same_on_any_number_of_ranks(trained, tmp_path, ranks, strategy):
    one, fit = trained
    run = fit(tmp_path / "run", ranks, strategy)
    same_training(one, run)
    for column in ("val/loss", "val/f1_micro_tuned", "val/map_macro"):
        expected, got = rows_of(one / "curves.csv", column), rows_of(run / "curves.csv", column)
        assert got == pytest.approx(expected, rel=1e-5)


@pytest.fixture(scope="module")
def predict(files, tmp_path_factory):
    """What gives the table of each small file, by ranks that a strategy joins."""

    def run(one, ranks, *more):
        place = tmp_path_factory.mktemp("predictions")
        words = ["predict", f"--run_dir={one}", *more]
        commands = [[*words, f"--data.csv={files[count]}", f"--out={place}/{count}.parquet"] for count in SMALL_FILES]
        run_command_on_ranks(ranks, *commands)
        return {count: pq.read_table(place / f"{count}.parquet").to_pandas() for count in SMALL_FILES}

    return run


@pytest.fixture(scope="module")
def predicted(trained, predict):
    return predict(trained[0], 1)


@pytest.mark.parametrize("strategy", [pytest.param("ddp", marks=pytest.mark.thorough), "fsdp"])
def test_each_film_is_predicted_once_also_where_films_are_fewer_than_ranks(trained, predict, predicted, strategy):
    got = predict(trained[0], 3, "--trainer.devices=3", f"--trainer.strategy={strategy}")
    for count, expected in predicted.items():
        assert len(got[count]) == count
        assert list(got[count]["id"]) == list(expected["id"])
        np.testing.assert_allclose(np.stack(got[count]["logits"]), np.stack(expected["logits"]), atol=1e-5)
