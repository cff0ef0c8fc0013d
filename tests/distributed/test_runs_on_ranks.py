"""Whole runs on 1, 2 and 3 ranks, by DDP and FSDP: one training, stopped, killed and moved between numbers of ranks."""

import csv
import resource
import subprocess
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from small_run import SMALL
from starts import start_by_lightning, start_ranks  # tests are not a package

from genre_lightning.data.sample.generate import write_sample
from genre_lightning.distributed.checkpoint.io import read_checkpoint

OPTIONS = [*SMALL, "--trainer.log_every_n_steps=1", "--checkpoint.every_steps=6"]


@pytest.fixture(scope="module")
def sample(tmp_path_factory):
    # 131 films of training, which no number of ranks and no batch divides
    return write_sample(tmp_path_factory.mktemp("sample") / "sample.csv", films=165, seed=1)


def start(sample, run_dir, ranks, strategy, *more, fault="", by_lightning=False):
    """One start of the command; returns its status and what it said.

    Ranks are forked as torchrun's, which is quick, or started by Lightning as from a shell.
    """
    words = ["fit", f"--data.csv={sample}", f"--run_dir={run_dir}", *OPTIONS, *more, f"--trainer.strategy={strategy}"]
    log, environment = run_dir.with_suffix(".log"), {"FAULT": fault, "OMP_NUM_THREADS": "1"}
    if by_lightning:
        ended = start_by_lightning([*words, f"--trainer.devices={ranks}"], log, environment, seconds=300)
    else:
        ended = start_ranks(words, ranks, log, environment, seconds=300)
    return ended.status, ended.said


@pytest.fixture(scope="module")
def one_rank(sample, tmp_path_factory):
    place = tmp_path_factory.mktemp("runs") / "one"
    status, said = start(sample, place, 1, "auto", "--model.dropout=0")
    assert status == 0, said
    return place


def same_training(expected, got):
    curves = []
    for run in (expected, got):
        with (run / "curves.csv").open(newline="") as file:
            curves.append({row["step"]: float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]})
    assert curves[0].keys() == curves[1].keys()
    for step, loss in curves[0].items():
        assert curves[1][step] == pytest.approx(loss, rel=1e-5), f"step {step}"
    for name in ("last", "best"):
        a, b = (read_checkpoint(run / f"checkpoints/{name}.ckpt")["state_dict"] for run in (expected, got))
        for key, value in a.items():
            torch.testing.assert_close(b[key], value, rtol=0, atol=1e-4, msg=key)
    for split in ("validation", "test"):
        a, b = (pq.read_table(run / f"evaluation/{split}/predictions.parquet").to_pandas() for run in (expected, got))
        assert list(a["id"]) == list(b["id"])
        assert b["id"].is_unique
        np.testing.assert_allclose(np.stack(b["logits"]), np.stack(a["logits"]), atol=1e-4)


@pytest.mark.parametrize(
    ("ranks", "strategy"),
    [
        (2, "ddp"),
        (2, "fsdp"),
        pytest.param(3, "ddp", marks=pytest.mark.thorough),
        pytest.param(3, "fsdp", marks=pytest.mark.slow),
    ],
)
def test_a_run_is_the_same_on_any_number_of_ranks(sample, one_rank, tmp_path, ranks, strategy):
    status, said = start(sample, tmp_path / "run", ranks, strategy, "--model.dropout=0")
    assert status == 0, said
    same_training(one_rank, tmp_path / "run")


@pytest.mark.slow
def test_a_run_moves_between_numbers_of_ranks(sample, one_rank, tmp_path):
    sharded = "--checkpoint.sharded=true"
    starts = [(2, "fsdp", 8, sharded), (1, "auto", 9, ""), (3, "fsdp", 5, sharded), (2, "ddp", None, "")]
    for ranks, strategy, stop, form in starts:
        fault = f"between steps:{stop}:SIGTERM" if stop else ""
        more = [word for word in ("--model.dropout=0", form) if word]
        status, said = start(sample, tmp_path / "run", ranks, strategy, *more, fault=fault)
        assert status == (75 if stop else 0), said
        assert (tmp_path / "run" / "checkpoints" / "last.ckpt").is_dir() == bool(form)
    same_training(one_rank, tmp_path / "run")


def test_a_run_with_sharded_checkpoints_is_evaluated_and_exact(sample, one_rank, tmp_path):
    run = tmp_path / "run"
    status, said = start(sample, run, 2, "fsdp", "--model.dropout=0", "--checkpoint.sharded=true")
    assert status == 0, said
    assert (run / "checkpoints" / "best.ckpt").is_dir()
    same_training(one_rank, run)


@pytest.mark.slow
@pytest.mark.parametrize("dead", [0, 1])
def test_a_rank_that_is_killed_ends_the_run_and_the_next_start_continues(sample, one_rank, tmp_path, dead):
    fault = f"in a step:20:SIGKILL:{dead}"
    status, said = start(sample, tmp_path / "run", 2, "ddp", "--model.dropout=0", fault=fault, by_lightning=True)
    assert status not in (0, 2, 75)
    if dead:
        assert "rank 1 was killed by SIGKILL" in said
    status, said = start(sample, tmp_path / "run", 2, "ddp", "--model.dropout=0")
    assert status == 0, said
    assert "resuming" in said
    same_training(one_rank, tmp_path / "run")


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_a_full_disk_is_one_line_of_all_ranks_and_the_next_start_continues(sample, one_rank, tmp_path, strategy):
    words = ["fit", f"--data.csv={sample}", f"--run_dir={tmp_path / 'run'}", *OPTIONS, "--model.dropout=0"]
    started = [sys.executable, "-m", "genre_lightning", *words, "--trainer.devices=2", f"--trainer.strategy={strategy}"]

    def no_large_files():  # stands for a full disk: a checkpoint has 400 kB, all other files less than a quarter of it
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))

    ended = subprocess.run(
        started, stderr=subprocess.PIPE, text=True, timeout=300, check=False, preexec_fn=no_large_files
    )
    [line] = [line for line in ended.stderr.splitlines() if line.startswith("genre-lightning:")]
    assert ended.returncode == 1
    assert "last.ckpt could not be written" in line
    status, said = start(sample, tmp_path / "run", 2, strategy, "--model.dropout=0")
    assert status == 0, said
    same_training(one_rank, tmp_path / "run")
