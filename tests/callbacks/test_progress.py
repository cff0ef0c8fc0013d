"""Progress if there is no terminal: few lines, each whole."""

from types import SimpleNamespace

import pytest
import torch
from rich.text import Text

from genre_lightning.progress import clock, task_progress
from genre_lightning.training.callbacks import progress
from genre_lightning.training.callbacks.progress import LogFileProgress, TerminalProgress, progress_bar


def test_a_long_task_in_a_log_file_says_how_far_it_is(monkeypatch, capsys):
    now = iter([0.0, 20.0, 40.0, 60.0, 80.0, 90.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(now))
    with task_progress("Splitting", 5000) as count:
        for _ in range(4):
            count(1000)
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "Splitting: 2,000 of 5,000, 1:00 left",
        "Splitting: 4,000 of 5,000, 0:20 left",
        "Splitting: 4,000 done in 90.0 s",
    ]


def trainer(**changes):
    values = {
        "num_training_batches": 200,
        "accumulate_grad_batches": 2,
        "global_step": 0,
        "current_epoch": 1,
        "max_epochs": 3,
        "estimated_stepping_batches": 300,
        "num_val_batches": [4],
        "num_predict_batches": [4],
        "callback_metrics": {"train/loss": torch.tensor(0.25)},
        "sanity_checking": False,
    }
    return SimpleNamespace(**{**values, **changes})


def test_epochs_are_counted_up_to_their_number_if_there_is_one():
    assert progress.epoch_of(trainer()) == "epoch 2/3"
    assert progress.epoch_of(trainer(max_epochs=-1)) == "epoch 2"  # max_steps ends it
    assert progress.epoch_of(trainer(max_epochs=None)) == "epoch 2"


def test_a_task_in_a_log_file(monkeypatch, capsys):
    monkeypatch.setattr("genre_lightning.progress._WORTH_A_LINE", 0.0)
    with task_progress("Tokenising", 2000) as count:
        count(1000)
        count(1000)
    assert capsys.readouterr().err.startswith("Tokenising: 2,000 done in ")
    with task_progress("Tokenising", 2000):
        pass
    assert capsys.readouterr().err == ""


def test_a_long_task_in_a_log_file_says_how_much_is_left(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with task_progress("Explaining", 10) as count:
        for _ in range(10):
            now += 12.0
            count(1)
    assert capsys.readouterr().err.splitlines() == [
        "Explaining: 3 of 10, 1:24 left",
        "Explaining: 6 of 10, 0:48 left",
        "Explaining: 9 of 10, 0:12 left",
        "Explaining: 10 done in 120.0 s",
    ]


def test_ten_lines_an_epoch_at_most(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    bar, run = LogFileProgress(), trainer(global_step=100)
    bar.on_train_start(run, None)
    for batch in range(200):
        now += 3.0
        run.global_step += batch % 2
        bar.on_train_batch_end(run, None, None, None, batch)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 10
    assert lines[0] == "epoch 2/3  step 10/100  loss 0.2500  0.17 steps/s  19:00 left"
    assert lines[-1] == "epoch 2/3  step 100/100  loss 0.2500  0.17 steps/s  10:00 left"


def test_fast_epochs_say_little(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    bar, run = LogFileProgress(), trainer()
    bar.on_train_start(run, None)
    for batch in range(200):
        now += 0.01
        run.global_step += batch % 2
        bar.on_train_batch_end(run, None, None, None, batch)
    assert capsys.readouterr().err == ""


def test_validation(capsys):
    bar = LogFileProgress()
    metrics = {"val/loss": torch.tensor(0.5), "val/f1_micro_tuned": torch.tensor(0.25), "train/loss": torch.tensor(1.0)}
    run = trainer(callback_metrics=metrics)
    bar.on_validation_end(run, None)
    assert capsys.readouterr().err == "epoch 2/3  validation  loss 0.5000  f1_micro_tuned 0.2500\n"
    bar.disable()
    bar.on_validation_end(run, None)
    assert capsys.readouterr().err == ""
    bar.enable()
    bar.on_validation_end(trainer(sanity_checking=True), None)
    assert capsys.readouterr().err == ""


def test_a_long_validation_and_long_predictions_in_a_log_file(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    bar, run = LogFileProgress(), trainer(callback_metrics={})
    for start, batch_end, end in (
        (bar.on_validation_start, bar.on_validation_batch_end, bar.on_validation_end),
        (bar.on_predict_start, bar.on_predict_batch_end, bar.on_predict_end),
    ):
        start(run, None)
        for batch in range(4):
            now += 20.0
            batch_end(run, None, None, None, batch)
        end(run, None)
    assert capsys.readouterr().err.splitlines() == [
        "epoch 2/3  validation, in batches: 2 of 4, 0:40 left",
        "epoch 2/3  validation  ",
        "predicting, in batches: 2 of 4, 0:40 left",
    ]
    bar.disable()
    bar.on_predict_start(run, None)
    now += 90.0
    bar.on_predict_batch_end(run, None, None, None, 0)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("seconds", "shown"), [(0, "0:00"), (59.6, "1:00"), (3599, "59:59"), (3661, "1:01:01")])
def test_clock(seconds, shown):
    assert clock(seconds) == shown


def test_the_bar_that_fits(monkeypatch):
    assert isinstance(progress_bar(), LogFileProgress)
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich takes it for a terminal
    assert isinstance(progress_bar(), TerminalProgress)


def test_one_line_of_a_terminal(monkeypatch, capsys):
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    for name, value in {"FORCE_COLOR": "1", "TERM": "xterm", "COLUMNS": "80"}.items():
        monkeypatch.setenv(name, value)
    # the longest line: five-digit steps, an hour left
    run = trainer(num_training_batches=24_690, global_step=0, current_epoch=0, estimated_stepping_batches=37_035)
    bar = TerminalProgress()
    bar.on_train_start(run, None)
    for batch in range(400):
        now += 3.0
        run.global_step += batch % 2
        bar.on_train_batch_end(run, None, None, None, batch)
    bar._bar.refresh()
    shown = Text.from_ansi(capsys.readouterr().err.split("\r")[-1]).plain.splitlines()
    assert len(shown) == 1
    assert len(shown[0]) <= 80
    assert shown[0].startswith("epoch 1/3  step 200/12,345 ")
    assert shown[0].rstrip().endswith("loss 0.2500  0.17 steps/s  61:23:30 left")
    bar.on_validation_start(run, None)
    bar.on_validation_batch_end(run, None, None, None, 1)
    bar._bar.refresh()
    shown = Text.from_ansi(capsys.readouterr().err.split("\r")[-1]).plain.splitlines()
    assert shown[0].startswith("epoch 1/3  validation ")
    assert shown[0].rstrip().endswith("batch 2/4")
    bar.on_validation_end(run, None)
    bar.on_train_end(run, None)


def test_a_failed_training_leaves_the_terminal_unchanged(monkeypatch, capsys):
    monkeypatch.setenv("FORCE_COLOR", "1")
    bar = TerminalProgress()
    bar.on_train_start(trainer(), None)
    bar.on_exception(trainer(), None, KeyboardInterrupt())
    shown = capsys.readouterr().err
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is there again
    assert bar._bar is None
