"""`status` over files that are damaged: what can be read is shown, or one line names the file."""

import json

import pytest

from genre_lightning.__main__ import main
from genre_lightning.commands.status import read_status
from genre_lightning.errors import CheckpointError
from genre_lightning.files import write_json
from genre_lightning.runs import RunDirectory


@pytest.fixture
def run(tmp_path):
    run = RunDirectory(tmp_path / "run")
    run.write_config("seed: 0\n")
    run.set_status("training", starts=2, start={"step": 0, "time": 1.0, "job": "71"}, steps=10)
    run.curves.write_text("epoch,step,train/loss\n0,4,0.5\n")
    return run


@pytest.mark.parametrize("content", [{}, {"job": 7}, {"job": "seven"}, {"job": "7;rm"}, {"job": None}])
def test_a_job_that_is_none_is_one_line(run, content):
    write_json(run.batch / "job.json", content)
    with pytest.raises(CheckpointError, match=r"job\.json names no job: delete it"):
        read_status(run)


@pytest.mark.parametrize(
    "facts",
    [
        {"start": 7},
        {"start": {"step": "x", "time": None, "job": {}}},
        {"start": None, "starts": "many"},
        {"steps": "9"},
    ],
)
def test_a_damaged_state_is_read_as_far_as_it_goes(run, facts, capsys):
    run.set_status("training", **facts)
    assert main(["status", str(run.path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["step"] == 5


@pytest.mark.parametrize(
    ("row", "loss"),
    [("0,7,abc\n", 0.5), ("0,7,0.25,1,2,3\n", 0.25), ("0,7\n", 0.5), ("x,y,z\n", 0.5), ("0,7,nan\n", None)],
)
def test_damaged_curves_are_read_as_far_as_they_go(run, row, loss, capsys):
    with run.curves.open("a") as file:
        file.write(row)
    assert main(["status", str(run.path)]) == 0
    capsys.readouterr()
    assert main(["status", str(run.path), "--json"]) == 0
    out = capsys.readouterr().out
    assert "NaN" not in out
    assert json.loads(out)["metrics"]["train/loss"] == loss
