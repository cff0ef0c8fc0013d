"""The run directory: its names, its state, and whether a run may be resumed in it."""

import json

import pytest
import yaml

from genre_lightning.config.changes import check_same_training, differences, flatten
from genre_lightning.errors import CheckpointError, ConfigError
from genre_lightning.run_state import FilmsOfRun, RunState
from genre_lightning.runs import RunDirectory


@pytest.fixture
def run(tmp_path):
    return RunDirectory(tmp_path / "runs" / "a")


def test_names_of_the_contract(run):
    names = {
        run.config: "config.yaml",
        run.audit: "data_audit.json",
        run.last: "checkpoints/last.ckpt",
        run.best: "checkpoints/best.ckpt",
        run.curves: "curves.csv",
        run.decision: "decision.json",
        run.evaluation("test").metrics: "evaluation/test/metrics.json",
        run.evaluation("validation").predictions: "evaluation/validation/predictions.parquet",
        run.evaluation("test").per_genre: "evaluation/test/per_genre.csv",
        run.evaluation("test").thresholds: "evaluation/test/thresholds.csv",
        run.evaluation("test").confusion: "evaluation/test/confusion.csv",
        run.evaluation("test").figures: "evaluation/test/figures",
        run.report: "report.html",
    }
    assert {str(path.relative_to(run.path)): name for path, name in names.items()} == {n: n for n in names.values()}


def test_status_and_state(run):
    assert (run.status, run.read_state()) == ("new", RunState())
    run.set_status("training", train_seconds=1.5, data=FilmsOfRun("x"))
    run.set_status("evaluating", train_seconds=2.5)
    assert run.status == "evaluating"
    assert run.read_state() == RunState("evaluating", train_seconds=2.5, data=FilmsOfRun("x"))
    assert json.loads(run.state.read_text()) == {"status": "evaluating", "train_seconds": 2.5, "data": {"films": "x"}}
    run.state.write_text('{"status": "trai')
    with pytest.raises(CheckpointError):
        _ = run.status


def test_flatten():
    assert flatten({"a": {"b": 1, "c": {"d": [1, {"x": 2}]}}, "e": None}) == {
        "a.b": 1,
        "a.c.d": [1, {"x": 2}],
        "e": None,
    }


BEFORE = {
    "seed": 0,
    "run_dir": "runs/a",
    "data": {
        "csv": "a.csv",
        "max_films": None,
        "micro_batch_tokens": 1024,
        "columns": {"id": "id"},
        "split": [0.8, 0.2],
    },
    "model": {"class_path": "genre_lightning.X", "init_args": {"lr": 3e-4, "lora": None}},
    "trainer": {"max_epochs": 3, "devices": 1, "logger": None, "precision": "32-true"},
    "checkpoint": {"monitor": "val/loss", "every_minutes": 10.0},
}


def changed(key, value):
    settings = json.loads(json.dumps(BEFORE))
    *path, name = key.split("/")
    section = settings
    for part in path:
        section = section[part]
    section[name] = value
    return settings


@pytest.mark.parametrize(
    ("key", "value", "line"),
    [
        ("seed", 1, "seed: 0 → 1"),
        ("data/max_films", 9, "data.max_films: null → 9"),
        ("data/columns/id", "nr", 'data.columns.id: "id" → "nr"'),
        ("data/split", [0.8, 0.1, 0.1], "data.split: [0.8, 0.2] → [0.8, 0.1, 0.1]"),
        ("model/class_path", "genre_lightning.Y", 'model.class_path: "genre_lightning.X" → "genre_lightning.Y"'),
        ("model/init_args/lr", 1e-3, "model.lr: 0.0003 → 0.001"),
        ("model/init_args/lora", {"rank": 8}, "model.lora.rank: null → 8"),
        ("trainer/max_epochs", 5, "trainer.max_epochs: 3 → 5"),
        ("trainer/precision", "bf16-mixed", 'trainer.precision: "32-true" → "bf16-mixed"'),
        ("checkpoint/monitor", "val/ece", 'checkpoint.monitor: "val/loss" → "val/ece"'),
    ],
)
def test_what_would_change_the_training(key, value, line):
    assert differences(BEFORE, changed(key, value)) == [line]


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("run_dir", "runs/b"),
        ("data/csv", "/elsewhere/a.csv"),
        ("data/micro_batch_tokens", 4096),
        ("data/num_workers", 4),
        ("data/cache_dir", "/tmp/cache"),
        ("trainer/devices", 8),
        ("trainer/logger", [{"class_path": "lightning.pytorch.loggers.WandbLogger", "init_args": {"name": "x"}}]),
        ("trainer/strategy", {"class_path": "lightning.pytorch.strategies.DDPStrategy"}),
        ("checkpoint/every_minutes", 1.0),
        ("wandb", {"project": "films", "tags": ["x"]}),
        ("tensorboard", True),
        ("json", True),
    ],
)
def test_what_does_not(key, value):
    assert differences(BEFORE, changed(key, value)) == []


def test_differences_are_sorted_and_keys_are_whole_names():
    now = changed("model/init_args/lr", 1e-3)
    now["data"]["csv_dialect"] = "excel"  # not a part of data.csv
    now["seed"] = 5
    assert differences(BEFORE, now) == ['data.csv_dialect: null → "excel"', "model.lr: 0.0003 → 0.001", "seed: 0 → 5"]
    assert differences(BEFORE, now, ["model"]) == ['data.csv_dialect: null → "excel"', "seed: 0 → 5"]


def test_check_same_training(run):
    text = yaml.safe_dump(BEFORE)
    assert check_same_training(run, text, override=False) == []  # nothing there yet
    run.write_config(text)
    assert check_same_training(run, text, override=False) == []
    other = yaml.safe_dump(changed("seed", 3))
    with pytest.raises(ConfigError, match=r"other settings \(seed: 0 → 3\).*--override"):
        check_same_training(run, other, override=False)
    assert check_same_training(run, other, override=True) == ["seed: 0 → 3"]
    assert check_same_training(run, other, override=False, without_effect=["seed"]) == []


@pytest.mark.parametrize("content", [b"", b"a: [", b"- 1", b"\xff\xfe"])
def test_a_damaged_configuration_is_refused(run, content):
    run.path.mkdir(parents=True)
    run.config.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"config\.yaml is damaged"):
        check_same_training(run, yaml.safe_dump(BEFORE), override=False)


def test_places_that_can_be_run_directories(run, tmp_path):
    run.check_writable()
    assert list(tmp_path.iterdir()) == []
    run.path.mkdir(parents=True)
    run.check_writable()
    (run.path / ".lock").touch()  # of a start that was killed
    run.check_writable()
    run.write_config("data: {seed: 0}\n")
    (run.path / "other.txt").touch()
    run.check_writable()


def test_places_that_can_not(run, tmp_path):
    run.path.mkdir(parents=True)
    (run.path / "holiday.jpg").touch()
    with pytest.raises(ConfigError, match="holds other files and no run"):
        run.check_writable()
    with pytest.raises(ConfigError, match="is a file: name another with --run_dir"):
        RunDirectory(run.path / "holiday.jpg" / "run").check_writable()
    with pytest.raises(ConfigError, match="cannot be written"):
        RunDirectory(type(run.path)("/proc/genre_lightning/run")).check_writable()
    with pytest.raises(ConfigError, match="cannot be"):
        RunDirectory(tmp_path / ("x" * 300)).check_writable()


def test_require_run(run):
    with pytest.raises(CheckpointError, match=r"is not a run directory .*genre-lightning fit"):
        run.require_run()
    run.write_config("seed: 0\n")
    run.require_run()


def test_one_process_at_a_time(run):
    lock = run.locked()
    with pytest.raises(ConfigError, match="another process is working in"):
        run.locked()
    lock.release()
    run.locked().release()
