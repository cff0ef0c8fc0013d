"""`status` from made run directories, with executables that stand for SLURM's commands."""

import json
import os

import pytest

from genre_lightning.__main__ import main
from genre_lightning.files import write_json
from genre_lightning.runs import RunDirectory

CURVES = """epoch,step,train/loss,val/loss,val/f1_micro_tuned
0,4,0.9,,
0,9,0.8,,
0,9,,0.7,0.41
1,14,0.6,,
1,19,0.5"""
"""The last row is being written."""


@pytest.fixture
def run(tmp_path, monkeypatch):
    """A run that was started a second time after step 5, 10 seconds before its last row."""
    monkeypatch.setenv("PATH", str(tmp_path / "commands"))
    (tmp_path / "commands").mkdir()
    run = RunDirectory(tmp_path / "my run")
    run.write_config("seed: 0\n")
    run.set_status("training", starts=2, start={"time": 1000.0, "step": 5, "job": "42"}, steps=40)
    run.curves.write_text(CURVES)
    os.utime(run.curves, (1010.0, 1010.0))
    write_json(run.checkpoints / "last.ckpt.manifest.json", {"global_step": 12, "sha256": "0"})
    return run


def squeue(run, line):
    path = run.path.parent / "commands" / "squeue"
    path.write_text(f"#!/bin/sh\nprintf '{line}\\n'\n")
    path.chmod(0o755)


def read(run, capfd):
    assert main(["status", str(run.path), "--json"]) == 0
    return json.loads(capfd.readouterr().out)


def test_the_run_directory_alone_is_enough(run, capfd):
    found = read(run, capfd)
    assert found["state"] == "stopped"
    assert (found["step"], found["steps"], found["saved_step"], found["restarts"]) == (15, 40, 12, 1)
    # ten steps in ten seconds
    assert found["steps_per_second"] == 1.0
    assert found["seconds_left"] is None
    assert found["metrics"] == {"train/loss": 0.6, "val/loss": 0.7, "val/f1_micro_tuned": 0.41}


def test_a_process_at_work_is_seen_by_its_lock(run, capfd):
    with run.locked():
        found = read(run, capfd)
        assert (found["state"], found["seconds_left"]) == ("running", 25.0)
        run.set_status("evaluating")
        assert read(run, capfd)["state"] == "evaluating"
    run.set_status("finished")
    assert read(run, capfd)["state"] == "finished"


@pytest.mark.parametrize(
    ("line", "state"),
    [
        ("RUNNING\\tn[1-2]\\tNone\\t1:02:03", "running"),
        ("PENDING\\t\\tBeginTime\\t8:00:00", "queued"),
        ("TIMEOUT\\tn1\\tNone\\t0:00", "timeout"),
        ("COMPLETED\\tn1\\tNone\\t0:00", "stopped"),
    ],
)
def test_slurm_says_where_the_job_is(run, capfd, line, state):
    squeue(run, line)
    assert read(run, capfd)["state"] == state


def test_the_table_is_for_people(run, capfd):
    squeue(run, "RUNNING\\tn[1-2]\\tNone\\t1:02:03")
    assert main(["status", str(run.path)]) == 0
    lines = [line.strip() for line in capfd.readouterr().out.splitlines()]
    for expected in (
        "job       42, running, on n[1-2], 1:02:03 to its time limit",
        "step      15 of 40 (38%)",
        "saved     after step 12",
        "rate      1.00 steps/s",
        "left      0:00:25 of training",
        "restarts  1",
        "metrics   train/loss 0.6000  val/loss 0.7000  val/f1_micro_tuned 0.4100",
    ):
        assert expected in lines


def test_a_job_that_waits_has_no_steps(tmp_path, monkeypatch, run, capfd):
    squeue(run, "PENDING\\t\\tResources\\t8:00:00")
    waiting = RunDirectory(tmp_path / "waiting")
    write_json(waiting.batch / "job.json", {"job": "43"})
    found = read(waiting, capfd)
    assert (found["state"], found["job"], found["step"], found["steps"]) == ("queued", "43", 0, None)
    assert main(["status", str(waiting.path)]) == 0
    assert "43, pending (Resources)" in capfd.readouterr().out


@pytest.mark.parametrize(("submitted", "shown"), [("41", "42"), ("43", "43")])
def test_the_later_job_is_shown(run, capfd, submitted, shown):
    write_json(run.batch / "job.json", {"job": submitted})
    assert read(run, capfd)["job"] == shown


def test_a_directory_that_is_no_run_is_refused(tmp_path, capfd):
    assert main(["status", str(tmp_path)]) == 2
    assert "is no run directory" in capfd.readouterr().err
