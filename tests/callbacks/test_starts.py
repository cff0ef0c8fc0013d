"""What each start of a training leaves in the run's state."""

import time
from types import SimpleNamespace

import pytest

from genre_lightning.runs import RunDirectory
from genre_lightning.training.callbacks.starts import NoteStart


def start(run, step, job, *, first_rank=True):
    trainer = SimpleNamespace(is_global_zero=first_rank, global_step=step, estimated_stepping_batches=40)
    NoteStart(run, {"job": job}).on_train_start(trainer, None)


def test_starts_are_counted_and_the_last_one_is_kept(tmp_path):
    run = RunDirectory(tmp_path)
    run.set_status("training", data={"films": "x"})
    start(run, 0, "7")
    start(run, 12, "8")
    start(run, 12, "8", first_rank=False)
    facts = run.facts()
    assert (facts["starts"], facts["steps"], facts["data"]) == (2, 40, {"films": "x"})
    assert (facts["start"]["step"], facts["start"]["job"]) == (12, "8")
    assert facts["start"]["time"] == pytest.approx(time.time(), abs=600)
