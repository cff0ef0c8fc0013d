"""Recipes that change what is trained, averaged or kept: resumed and moved between ranks, it is one training."""

import csv

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import f1_score
from small_run import SMALL
from starts import start_ranks  # tests are not a package
from test_adapters_on_ranks import OPTIONS as ADAPTER_OPTIONS
from test_adapters_on_ranks import encoder  # noqa: F401  # a fixture
from test_runs_on_ranks import same_training, start

from genre_lightning.data.sample.generate import write_sample
from genre_lightning.distributed.checkpoint.io import read_checkpoint

pytestmark = pytest.mark.slow

RECIPES = {
    "encoder": ["--model.lora={rank: 4, dropout: 0.1, targets: all-linear, init: pissa, lr_ratio_b: 4}",
                "--model.ema_decay=0.8", "--model.layer_lr_decay=0.7", "--model.label_smoothing=0.1",
                "--model.unfreeze=1", "--model.r_drop=0.5", "--model.fgm=0.5"],
    "llama": ["--model=genre_lightning.models.llama_qlora.LlamaQLoraClassifier", "--model.backbone=random",
              "--model.architecture={layers: 3, width: 64, heads: 4, kv_heads: 2, inner_width: 96}",
              "--model.lora={rank: 4, dropout: 0, init: olora}", "--model.ema_decay=0.8",
              "--model.attention=full", "--model.pooling=mean", "--model.loss=zlpr"],
    "eva": ["--model=genre_lightning.models.llama_qlora.LlamaQLoraClassifier", "--model.backbone=random",
            "--model.architecture={layers: 3, width: 64, heads: 4, kv_heads: 2, inner_width: 96}",
            "--model.lora={rank: 4, dropout: 0, init: eva}", "--model.ema_decay=0.8"],
}  # fmt: skip


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    return write_sample(tmp_path_factory.mktemp("sample") / "sample.csv", films=93, seed=1)


@pytest.fixture(scope="module", params=RECIPES)
def recipe(request, sample, encoder, tmp_path_factory):  # noqa: F811
    """The options of a recipe, and its run on one rank."""
    options = [f"--model.backbone={encoder}"] if request.param == "encoder" else []
    options += [*ADAPTER_OPTIONS, "--trainer.max_epochs=2", *RECIPES[request.param]]
    place = tmp_path_factory.mktemp("runs") / "one"
    status, said = start(sample, place, 1, "auto", *options)
    assert status == 0, said
    assert "the moving average of the weights (ema_decay 0.8)" in said
    return options, place


@pytest.mark.parametrize(("ranks", "strategy"), [(1, "auto"), (2, "ddp")])
@pytest.mark.parametrize("recipe", ["encoder"], indirect=True)
def test_a_resumed_run_is_bit_identical(sample, recipe, ranks, strategy, tmp_path):
    options, one = recipe
    if ranks > 1:  # each rank draws its dropout
        one = tmp_path / "unbroken"
        status, said = start(sample, one, ranks, strategy, *options)
        assert status == 0, said
    for fault, expected in (("between steps:7:SIGTERM", 75), ("", 0)):
        status, said = start(sample, tmp_path / "run", ranks, strategy, *options, fault=fault)
        assert status == expected, said
    for name in ("last", "best"):
        a, b = (read_checkpoint(run / f"checkpoints/{name}.ckpt") for run in (one, tmp_path / "run"))
        assert all(torch.equal(a["state_dict"][key], b["state_dict"][key]) for key in a["state_dict"])
        states = [content["optimizer_states"][0]["state"] for content in (a, b)]
        for index, values in states[0].items():
            assert all(torch.equal(torch.as_tensor(v), torch.as_tensor(states[1][index][k])) for k, v in values.items())


@pytest.mark.parametrize("recipe", ["llama", "eva"], indirect=True)
def test_a_run_moves_between_ranks_and_strategies(sample, recipe, tmp_path):
    """It is stopped after the validation of the first epoch, in which sharded weights are exchanged for the average."""
    options, one = recipe
    for strategy, form, stop, expected in (("fsdp", "true", 7, 75), ("ddp", "false", None, 0)):
        fault = f"between steps:{stop}:SIGTERM" if stop else ""
        more = [*options, f"--checkpoint.sharded={form}"]
        status, said = start(sample, tmp_path / "run", 2, strategy, *more, fault=fault)
        assert status == expected, said
    same_training(one, tmp_path / "run")


TRAININGS = {
    "pretrain": ["pretrain"],
    "fgm": ["fit", "--model.fgm=0.5"],
    "r-drop": ["fit", "--model.r_drop=0.5", "--model.dropout=1e-9"],  # no mask of which ever drops a number
    "hybrid": ["fit", "--model.lora={rank: 4, dropout: 0, lr_ratio_b: 4}", "--model.unfreeze=1",
               "--model.layer_lr_decay=0.7", "--model.label_smoothing=0.1"],
    "adapter": ["fit", "--model.adapter={method: IA3}", "--model.lr=0.01"],
}  # fmt: skip


@pytest.mark.parametrize("command", TRAININGS.values(), ids=TRAININGS)
def test_a_training_is_the_same_on_two_ranks(sample, encoder, tmp_path, command):  # noqa: F811
    name, *options = command
    words = [name, f"--data.csv={sample}", *SMALL, "--trainer.log_every_n_steps=1", "--model.dropout=0", *options]
    if any(word.startswith(("--model.lora", "--model.adapter")) for word in command):
        words += [f"--model.backbone={encoder}", "--data.tokenizer=wordpiece"]
    curves = []
    for ranks in (1, 2):
        place = tmp_path / f"ranks-{ranks}"
        started = [*words, f"--run_dir={place}"]
        ended = start_ranks(started, ranks, tmp_path / "log", {"OMP_NUM_THREADS": "1"}, seconds=300)
        assert ended.status == 0, ended.said
        with (place / "curves.csv").open(newline="") as file:
            curves.append([float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]])
    assert len(curves[0]) > 8
    assert curves[1] == pytest.approx(curves[0], rel=1e-4)


def test_what_is_evaluated_is_what_is_kept(recipe):
    """The metrics of validation during the training are those of the best checkpoint's weights."""
    _, one = recipe
    with (one / "curves.csv").open(newline="") as file:
        logged = {float(row["val/f1_micro"]) for row in csv.DictReader(file) if row["val/f1_micro"]}
    table = pq.read_table(one / "evaluation/validation/predictions.parquet")
    logits, labels = (np.stack(table[name].to_numpy()) for name in ("logits", "labels"))
    found = f1_score(labels, logits >= 0, average="micro", zero_division=0)
    assert any(found == pytest.approx(value, abs=1e-6) for value in logged)
