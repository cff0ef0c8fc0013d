"""`status` from made run directories, with executables that stand for SLURM's commands."""

import json
import os
from pathlib import Path

import pytest
from made_runs import make_run

from genre_lightning.__main__ import main
from genre_lightning.commands.run_status import read_status
from genre_lightning.evaluation.decisions import read_decision
from genre_lightning.files import json_value, write_json
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
        "left      25 s of training",
        "restarts  1",
        "metrics   train/loss 0.6000  val/loss 0.7000  val/f1_micro_tuned 0.4100",
    ):
        assert expected in lines


def test_a_job_that_waits_has_no_steps(tmp_path, run, capfd):
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


def test_a_directory_that_is_not_a_run_is_refused(tmp_path, capfd):
    assert main(["status", str(tmp_path)]) == 2
    assert "is not a run directory" in capfd.readouterr().err


@pytest.fixture
def several(tmp_path, run):
    """What `runs/*` may be: a run being trained, an evaluated one, a damaged one, a folder and a file."""
    run.write_config("trainer: {max_epochs: 4}\ncheckpoint: {monitor: val/loss}\n")
    run.curves.write_text(CURVES + ",0.9,\n2,19,,0.5,\n2,19,,nan,\n")
    os.utime(run.curves, (2e9, 2e9))
    made = Path(make_run(tmp_path / ("evaluated" * 5)))
    broken = Path(make_run(tmp_path / "broken", splits=()))
    (broken / "run_state.json").write_text("{")
    (tmp_path / "comparison").mkdir()
    (tmp_path / "notes.txt").write_text("")
    return [run.path, made, broken, tmp_path / "comparison", tmp_path / "notes.txt"]


def test_several_runs_are_a_row_each_in_80_columns(several, capfd):
    assert main(["status", *map(str, several)]) == 0
    out = capfd.readouterr().out.splitlines()
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in out if line.count("|") == 7}
    assert all(len(line) <= 80 for line in out if line.startswith(("|", "+")))
    cells = [cell.strip() for cell in rows["my run"]]
    assert cells[:4] == ["stopped", "3/4", "20/40", "loss 0.500"]
    assert [cell.strip() for cell in rows["broken"]] == ["damaged", "", "", "", ""]
    assert sum("finished" in line for line in out) == 1
    assert sum("run_state.json is damaged" in line for line in out) == 1
    assert out[-1] == "not run directories: 2 of the 5 paths given"


def test_several_runs_in_json_are_a_list(several, capfd):
    assert main(["status", *map(str, several), "--json"]) == 0
    training, evaluated, broken = json.loads(capfd.readouterr().out)
    alone = json_value(read_status(RunDirectory(several[0])).__dict__)
    assert {name: training[name] for name in alone} == alone
    assert (training["epoch"], training["epochs"], training["best"]) == (3, 4, {"name": "val/loss", "value": 0.5})
    assert training["updated"].startswith("2033-05-1")
    # a run without curves has what its decision was fitted with
    scores = read_decision(several[1] / "decision.json").scores
    assert evaluated["best"] == {"name": "val/f1_micro_tuned", "value": scores["global"]["f1_micro"]}
    assert (broken["state"], "is damaged" in broken["error"]) == ("damaged", True)


@pytest.mark.parametrize(
    ("paths", "part"), [(["a", "b"], "none of the 2 paths"), (["a", "c"], "there is no directory")]
)
def test_several_paths_without_a_run_are_refused(tmp_path, paths, part, capfd):
    for name in "ab":
        (tmp_path / name).mkdir()
    assert main(["status", *(str(tmp_path / path) for path in paths)]) == 2
    out, err = capfd.readouterr()
    assert (out, err.count("\n")) == ("", 1)
    assert part in err
