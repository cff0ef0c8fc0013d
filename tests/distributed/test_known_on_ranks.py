"""Labels that are not known, on two ranks as on one."""

import csv

import numpy as np
import pyarrow.parquet as pq
import torch
from small_run import SMALL
from starts import start_ranks  # tests are not a package

from genre_lightning.data.sample.generate import write_sample
from genre_lightning.distributed.checkpoint.io import read_checkpoint


def test_two_ranks_train_and_evaluate_as_one(tmp_path):
    sample = write_sample(tmp_path / "sample.csv", films=120, seed=1)
    options = [*SMALL, "--model.dropout=0", "--trainer.max_epochs=1", "--trainer.log_every_n_steps=1"]
    options += ["--data.label_since={Comedy: 1995, Drama: 2000}"]
    found = []
    for ranks in (1, 2):
        run = tmp_path / f"on {ranks}"
        words = ["fit", f"--data.csv={sample}", f"--run_dir={run}", *options]
        words += [] if ranks == 1 else ["--trainer.strategy=ddp"]
        ended = start_ranks(words, ranks, tmp_path / f"{ranks}.log", {"OMP_NUM_THREADS": "1"}, seconds=300)
        assert ended.status == 0, ended.said
        with (run / "curves.csv").open(newline="") as file:
            rows = list(csv.DictReader(file))
        losses = [float(row["train/loss"]) for row in rows if row["train/loss"]]
        metrics = {
            name: float(value) for row in rows for name, value in row.items() if value and name.startswith("val")
        }
        table = pq.read_table(run / "evaluation/test/predictions.parquet").to_pandas()
        found.append((losses, metrics, read_checkpoint(run / "checkpoints/best.ckpt")["state_dict"], table))
    (losses, metrics, weights, table), (other_losses, other_metrics, other_weights, other_table) = found
    np.testing.assert_allclose(other_losses, losses, rtol=1e-5)
    assert metrics.keys() == other_metrics.keys()
    np.testing.assert_allclose(list(other_metrics.values()), list(metrics.values()), rtol=1e-4)
    for name, value in weights.items():
        torch.testing.assert_close(other_weights[name], value, rtol=0, atol=1e-4, msg=name)
    known = np.stack(table["known"])
    assert 0 < known.mean() < 1
    np.testing.assert_array_equal(np.stack(other_table["known"]), known)
