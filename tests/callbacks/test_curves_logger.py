"""curves.csv: readable by csv at any moment, and without a row twice after a run was resumed."""

import csv

import pytest

from genre_lightning.training.loggers.curves import CurvesLogger


def rows_of(path):
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def log(logger, *rows):
    for step, metrics in rows:
        logger.log_metrics(metrics, step)
        logger.save()


@pytest.fixture
def path(tmp_path):
    return tmp_path / "run" / "curves.csv"


def test_rows_and_columns(path):
    logger = CurvesLogger(path)
    log(logger, (9, {"train/loss": 0.5, "epoch": 0}), (19, {"train/loss": 0.25, "epoch": 0}))
    assert rows_of(path) == [
        {"epoch": "0", "step": "9", "train/loss": "0.5"},
        {"epoch": "0", "step": "19", "train/loss": "0.25"},
    ]
    log(logger, (19, {"val/loss": 0.3, "epoch": 0}), (29, {"train/loss": 0.125, "epoch": 1}))
    assert [(row["step"], row["train/loss"], row["val/loss"]) for row in rows_of(path)] == [
        ("9", "0.5", ""),
        ("19", "0.25", ""),
        ("19", "", "0.3"),
        ("29", "0.125", ""),
    ]
    assert path.read_text().splitlines()[0] == "epoch,step,train/loss,val/loss"
    logger.finalize("success")
    assert len(rows_of(path)) == 4
    assert [file.name for file in path.parent.iterdir()] == ["curves.csv"]


def test_metrics_of_one_step_share_a_row_until_it_is_written(path):
    logger = CurvesLogger(path)
    logger.log_metrics({"a": 1.0, "epoch": 0}, 5)
    logger.log_metrics({"b": 2.0, "epoch": 0}, 5)
    logger.log_metrics({"b": 3.0, "epoch": 0}, 5)  # a second value of one metric is a row of its own
    logger.log_metrics({"a": 4.0, "epoch": 0}, 6)
    logger.save()
    assert [(row["step"], row["a"], row["b"]) for row in rows_of(path)] == [
        ("5", "1.0", "2.0"),
        ("5", "", "3.0"),
        ("6", "4.0", ""),
    ]


def test_a_resumed_run_drops_what_it_will_log_again(path):
    log(CurvesLogger(path), *((step, {"train/loss": step / 10, "epoch": 0}) for step in (9, 19, 29, 39)))
    resumed = CurvesLogger(path)
    resumed.resume_at(30)  # steps 0 to 29 are done
    assert [row["step"] for row in rows_of(path)] == ["9", "19", "29"]
    log(resumed, (39, {"train/loss": 9.0, "epoch": 1}), (39, {"val/loss": 7.0, "epoch": 1}))
    assert [(row["epoch"], row["step"], row["train/loss"], row["val/loss"]) for row in rows_of(path)] == [
        ("0", "9", "0.9", ""),
        ("0", "19", "1.9", ""),
        ("0", "29", "2.9", ""),
        ("1", "39", "9.0", ""),
        ("1", "39", "", "7.0"),
    ]


def test_half_a_line_of_a_killed_process_is_dropped(path):
    log(CurvesLogger(path), (9, {"train/loss": 0.5, "epoch": 0}))
    with path.open("a") as file:
        file.write("0,1")  # was to become 0,199,0.25
    resumed = CurvesLogger(path)
    resumed.resume_at(150)
    log(resumed, (159, {"train/loss": 0.1, "epoch": 0}))
    assert [row["step"] for row in rows_of(path)] == ["9", "159"]


@pytest.mark.parametrize("content", ["", "\n", "epoch,step\n", "nonsense\n1,2,3\n", "epoch,step,a\n0,x,1\n0,1,2,3,4\n"])
def test_a_strange_file_does_not_stop_a_run(path, content):
    path.parent.mkdir()
    path.write_text(content)
    logger = CurvesLogger(path)
    logger.resume_at(100)
    log(logger, (109, {"a": 0.5, "epoch": 0}))
    assert rows_of(path)[-1]["step"] == "109"


def test_without_a_file_there_is_nothing_to_resume(path):
    logger = CurvesLogger(path)
    logger.resume_at(5)
    assert not path.exists()
    logger.finalize("success")
    assert not path.exists()
    assert (logger.name, logger.version, logger.log_dir) == ("curves", "", str(path.parent))


def test_restarted_run_replaces_the_file(path):
    log(CurvesLogger(path), (9, {"train/loss": 0.5, "epoch": 0}))
    log(CurvesLogger(path), (4, {"train/loss": 0.7, "epoch": 0}))
    assert [row["step"] for row in rows_of(path)] == ["4"]
