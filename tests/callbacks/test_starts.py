"""What each start of a training leaves in the run's state."""

import time
from types import SimpleNamespace

import pytest

from genre_lightning.run_state import FilmsOfRun
from genre_lightning.runs import RunDirectory
from genre_lightning.training.callbacks.starts import NoteStart


def start(run, step, job, *, first_rank=True):
    trainer = SimpleNamespace(is_global_zero=first_rank, global_step=step, estimated_stepping_batches=40)
    NoteStart(run, job).on_train_start(trainer, None)


def test_starts_are_counted_and_the_last_one_is_kept(tmp_path):
    run = RunDirectory(tmp_path)
    run.set_status("training", data=FilmsOfRun("x"))
    start(run, 0, "7")
    start(run, 12, "8")
    start(run, 12, "8", first_rank=False)
    state = run.read_state()
    assert (state.starts, state.steps, state.data) == (2, 40, FilmsOfRun("x"))
    assert (state.start.step, state.start.job) == (12, "8")
    assert state.start.time == pytest.approx(time.time(), abs=600)
