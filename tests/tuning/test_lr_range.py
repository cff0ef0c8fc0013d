"""The learning-rate range test, and how many trials fit a time."""

import csv
import json
from types import SimpleNamespace

import pytest
import torch
from made_runs import refused
from small_run import SMALL

from genre_lightning.__main__ import main
from genre_lightning.tuning.budget import pruned_epochs, trials_in
from genre_lightning.tuning.lr_range import LrRange, _Rising, smooth, write_range


@pytest.mark.slow
def test_range_test_ends_where_the_loss_rises(sample_csv, tmp_path, capfd):
    words = [f"--data.csv={sample_csv}", *SMALL, "--data.global_batch_size=8", f"--out={tmp_path / 'out'}"]
    assert main(["lr-range", "--low=1e-4", "--high=100", "--json", *words]) == 0
    found = json.loads(capfd.readouterr().out)
    with (tmp_path / "out" / "lr_range.csv").open(newline="") as file:
        points = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert found["diverged"]
    assert found["steps"] == len(points) < 29
    assert points[0]["lr"] == pytest.approx(1e-4)
    assert points[0]["lr"] < found["steepest"] <= found["lowest"] < points[-1]["lr"]
    assert points[-1]["smoothed"] > 2 * min(point["smoothed"] for point in points)
    assert (tmp_path / "out" / "lr_range.png").is_file()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--low=1", "--high=0.1"], "not below"),
        (["--data.global_batch_size=64"], "needs 10 steps"),
        (["--out=FILE/out"], "is a file"),
        (["--trainer.devices=2"], "trainer.devices is 2"),
        (["--continue_from=PARENT"], "--continue_from: lr-range trains from the backbone"),
    ],
)
def test_range_test_that_cannot_be_is_refused(sample_csv, tmp_path, capfd, monkeypatch, options, words):
    # a parent that is there and fits
    monkeypatch.setattr("genre_lightning.commands.checked.leave_out_missing", lambda *arguments: None)
    monkeypatch.setattr("genre_lightning.commands.checked.require_parent", lambda path: None)
    monkeypatch.setattr("genre_lightning.commands.checked.check_same_model", lambda *arguments: None)
    given = [word.replace("FILE", str(sample_csv)).replace("PARENT", str(tmp_path / "old")) for word in options]
    assert main(["lr-range", f"--data.csv={sample_csv}", *SMALL, f"--out={tmp_path / 'out'}", *given]) == 2
    assert words in capfd.readouterr().err
    assert not (tmp_path / "out").exists()


def test_steepest_is_before_the_lowest():
    losses = [0.7, 0.7, 0.69, 0.5, 0.31, 0.3, 0.6]
    found = LrRange([10.0**n for n in range(7)], losses, losses, False)
    assert (found.steepest, found.lowest) == (1e3, 1e5)


@pytest.mark.parametrize(
    "losses",
    [
        [0.7] * 40,  # never falls
        [0.7 + 0.01 * n for n in range(40)],  # lowest at the first point
        [0.9, 0.5, 0.3, *[0.31 + 0.001 * n for n in range(37)]],  # the noise of the first steps
    ],
)
def test_without_a_fall_nothing_is_suggested(losses, tmp_path):
    found = LrRange([1e-7 * 1.4**n for n in range(40)], losses, losses, False)
    assert found.steepest is None
    write_range(found, tmp_path)
    assert (tmp_path / "lr_range.png").is_file()


def test_noise_of_the_first_steps_is_left_out():
    losses = [2.0, 0.7, 0.7, 0.7, *[0.7 - 0.01 * n for n in range(30)], 0.1, 0.5, 0.9, 2.0, 3.0, 4.0]
    found = LrRange([1e-7 * 1.4**n for n in range(40)], losses, losses, False)
    assert found.steepest >= found.lrs[33]


def test_command_reports_that_no_fall_was_found(sample_csv, tmp_path, capfd, monkeypatch):
    flat = LrRange([1e-5, 1e-4], [0.7, 0.7], [0.7, 0.7], False)
    monkeypatch.setattr("genre_lightning.tuning.lr_range.run_range", lambda setup, **options: flat)
    words = ["lr-range", f"--data.csv={sample_csv}", *SMALL, f"--out={tmp_path / 'out'}"]
    assert main(words) == 0
    assert "no fall of the loss was found from 1e-05 to 0.0001" in capfd.readouterr().out
    assert main([*words, "--json"]) == 0
    assert json.loads(capfd.readouterr().out)["steepest"] is None


def test_average_is_corrected_for_its_start():
    assert smooth([2.0, 2.0, 2.0]) == pytest.approx([2.0, 2.0, 2.0])


def test_trials_that_fit_a_budget():
    found = trials_in(3600, 100, epochs=3, workers=2)
    # ASHA: epoch 1 of all, epochs 2 and 3 of a third
    assert pruned_epochs(3) == pytest.approx(1 + 2 / 3)
    assert (found.trials, found.trials_asha) == (72, 128)


@pytest.mark.slow
def test_plan_reports_the_trials_of_a_space(sample_csv, tmp_path, capfd):
    (tmp_path / "space.yaml").write_text("model.lr: {low: 1e-5, high: 1e-3, log: true}\n")
    words = ["plan", f"--space={tmp_path / 'space.yaml'}", f"--data.csv={sample_csv}", *SMALL]
    assert main([*words, "--trainer.accelerator=cpu", "--budget=1:00:00", "--json"]) == 0
    found = json.loads(capfd.readouterr().out)
    assert found["trials"]["trials"] == 3600 // found["time"]["seconds"]
    refused(capfd, [*words, "--budget=soon"], "--budget soon")


def test_the_rate_is_that_of_model_lr_whatever_part_comes_first():
    rates = [0.002, 0.01, 0.05]  # embeddings, the block below the head, the head
    optimizer = torch.optim.SGD([{"params": [torch.nn.Parameter(torch.ones(1))], "lr": rate} for rate in rates])
    trainer, model = (
        SimpleNamespace(optimizers=[optimizer], global_step=1),
        SimpleNamespace(learning_rates=lambda: (0.01, 0.05)),
    )
    rising = _Rising([1e-4, 1e-3])
    rising.on_train_start(trainer, model)
    rising.on_train_batch_start(trainer, model, None, 0)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([2e-4, 1e-3, 5e-3])
