"""`status` over files that are damaged: one line names the file."""

import pytest

from genre_lightning.__main__ import main
from genre_lightning.commands.run_status import read_status
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
    with pytest.raises(CheckpointError, match=r"job\.json is damaged .*delete it"):
        read_status(run)


@pytest.mark.parametrize(
    "changes", [{"start": 7}, {"start": {"step": "x", "time": None, "job": {}}}, {"starts": "many"}, {"steps": "9"}]
)
def test_a_damaged_state_is_one_line(run, changes, capsys):
    run.set_status("training", **changes)
    assert main(["status", str(run.path), "--json"]) == 2
    assert "run_state.json is damaged" in capsys.readouterr().err


@pytest.mark.parametrize("row", ["0,7,abc\n", "0,7,0.25,1,2,3\n", "x,y,z\n"])
def test_damaged_curves_are_one_line(run, row, capsys):
    with run.curves.open("a") as file:
        file.write(row)
    assert main(["status", str(run.path)]) == 2
    assert "curves.csv is damaged" in capsys.readouterr().err
