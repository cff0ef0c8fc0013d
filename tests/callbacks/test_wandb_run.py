"""A run that is cut off and started again, as W&B has it: read from the run files that the real package wrote."""

import base64
import csv
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import wandb
import yaml
from power_cuts import power_cut
from small_run import SMALL
from wandb_double import wandb_double

from genre_lightning.__main__ import main
from genre_lightning.run_state import FilmsOfRun
from genre_lightning.runs import RunDirectory
from genre_lightning.training.loggers.wandb_files import next_step, read_records

# wandb's own start-up opens files and sockets that it leaves to the interpreter's end
pytestmark = pytest.mark.filterwarnings("ignore")

OPTIONS = [
    *SMALL,
    "--config=configs/logger/wandb.yaml",
    "--trainer.log_every_n_steps=1",
    "--checkpoint.every_steps=7",
    "--wandb.group=seeds",
    "--wandb.tags=[small, test]",
    "--wandb.notes=what for",
]
KEY = "0123456789abcdef" * 2 + "feedbeef"


def fit(sample, run_dir, *more, cut_at=None):
    """One start of the command; with `cut_at` it breaks off in that step."""
    words = ["fit", f"--data.csv={sample}", f"--run_dir={run_dir}", *OPTIONS, *more]
    if cut_at is None:
        assert main(words) == 0
        wandb.teardown()  # the end of a process waits for W&B's own, which writes the last rows when it ends
        return
    with power_cut(cut_at):
        main(words)
    wandb.teardown()


def run_files(run_dir):
    """The files of all starts, in their order."""
    return sorted((run_dir / "wandb").glob("*run-*/run-*.wandb"))


def history(path):
    """Each row of a file: its step and its metrics."""
    rows = [record.history for record in read_records(path) if record.HasField("history")]
    return [
        (row.step.num, {item.key or "/".join(item.nested_key): json.loads(item.value_json) for item in row.item})
        for row in rows
    ]


def kept(run_dir, kind):
    """What all starts said of the configuration or of the summary, the last word of each name."""
    values = {}
    for path in run_files(run_dir):
        for record in read_records(path):
            message = getattr(record, kind)
            if record.HasField("run") and kind == "config":
                message = record.run.config
            for item in message.update:
                values[item.key or "/".join(item.nested_key)] = json.loads(item.value_json)
    return values


def losses_of(run_dir):
    with (run_dir / "curves.csv").open(newline="") as file:
        return {int(row["step"]): float(row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]}


def same_curves(run_dir):
    """Every step of curves.csv stands once in W&B's files, in order, with the same loss."""
    rows = [row for path in run_files(run_dir) for row in history(path)]
    steps = [step for step, _ in rows]
    assert steps == sorted(set(steps))
    losses = {step: values["train/loss"] for step, values in rows if "train/loss" in values}
    assert list(losses) == list(range(len(losses)))
    assert losses == pytest.approx(losses_of(run_dir), rel=1e-12)
    return dict(rows)


@pytest.fixture(scope="module")
def interrupted(sample_csv, tmp_path_factory):
    """Cut off at step 10 (saved: 7) and at step 18 (saved: 15, the epoch's end), then run to its end."""
    place = tmp_path_factory.mktemp("runs") / "a run"
    fit(sample_csv, place, "--wandb.log_model=true", "--tensorboard", cut_at=10)
    known = json.loads((place / "run_state.json").read_text())["wandb_id"]
    fit(sample_csv, place, "--wandb.log_model=true", "--tensorboard", cut_at=18)
    fit(sample_csv, place, "--wandb.log_model=true", "--tensorboard")
    assert json.loads((place / "run_state.json").read_text())["wandb_id"] == known
    return place


def test_one_run_with_every_step_once(interrupted):
    run_id = json.loads((interrupted / "run_state.json").read_text())["wandb_id"]
    files = run_files(interrupted)
    assert len(files) == 3
    for path in files:
        runs = [record.run for record in read_records(path) if record.HasField("run")]
        assert [run.run_id for run in runs] == [run_id]
        assert (runs[0].project, runs[0].run_group, list(runs[0].tags)) == (
            "genre_lightning", "seeds", ["small", "test"],
        )  # fmt: skip
        assert (runs[0].display_name, runs[0].notes) == ("a run", "what for")
    same_curves(interrupted)
    spans = [(rows[0][0], rows[-1][0]) for rows in map(history, files)]
    assert spans[0] == (0, 9)
    assert spans[1] == (10, 17)  # steps 7 to 9 were done again, and not logged again
    assert spans[2][0] == 18


def test_what_a_row_holds(interrupted):
    rows = same_curves(interrupted)
    for name in (
        "lr/backbone", "lr/head", "train/gradient_norm", "throughput/tokens_per_second", "throughput/films_per_second",
        "throughput/padding", "memory/host_peak_gib",
    ):  # fmt: skip
        assert all(name in values for values in rows.values() if "train/loss" in values), name
    assert any("checkpoint/seconds" in values for values in rows.values())
    validations = [values for values in rows.values() if "val/loss" in values]
    assert len(validations) == 2
    for values in validations:
        assert {"val/f1_micro", "val/f1_macro", "train/loss_epoch", "val_f1/Drama", "val_ap/Drama"} <= set(values)


def test_configuration_audit_commit_and_summary(interrupted):
    config = kept(interrupted, "config")
    stored = yaml.safe_load((interrupted / "config.yaml").read_text())
    assert config["model"] == stored["model"]
    assert config["trainer"]["max_epochs"] == 2
    assert config["data_audit"] == json.loads((interrupted / "data_audit.json").read_text())
    assert "git_commit" in config
    summary = kept(interrupted, "summary")
    metrics = json.loads((interrupted / "evaluation/test/metrics.json").read_text())
    assert summary["test/global/f1_micro"] == pytest.approx(metrics["policies"]["global"]["f1_micro"])
    assert summary["validation/map_macro"] == pytest.approx(
        json.loads((interrupted / "evaluation/validation/metrics.json").read_text())["threshold_free"]["map_macro"]
    )


def test_tables_plots_and_the_best_checkpoint(interrupted):
    folder = run_files(interrupted)[-1].parent
    for split in ("validation", "test"):
        assert len(list(folder.rglob(f"media/images/{split}/figures/*.png"))) >= 7
        assert list(folder.rglob(f"media/table/{split}/per_genre_*.table.json"))
    artifacts = [record.artifact for record in read_records(run_files(interrupted)[-1]) if record.HasField("artifact")]
    (best,) = [artifact for artifact in artifacts if artifact.type == "model"]
    names = {entry.path for entry in best.manifest.contents}
    assert {"best.ckpt", "best.ckpt.manifest.json", "config.yaml", "decision.json"} <= names
    assert "best" in best.aliases


def test_tensorboard_has_the_curves_of_the_csv(interrupted):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(interrupted / "tensorboard"), size_guidance={"scalars": 0})
    events.Reload()
    with (interrupted / "curves.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("train/loss", "lr/head", "val/loss", "val_ap/Drama", "train/loss_epoch"):
        logged = [(event.step, event.value) for event in events.Scalars(name)]
        expected = [(int(row["step"]), float(row[name])) for row in rows if row[name]]
        assert [step for step, _ in logged] == [step for step, _ in expected], name
        assert [value for _, value in logged] == pytest.approx([value for _, value in expected], rel=1e-6), name


@pytest.mark.slow
def test_a_finished_run_is_left_alone_and_validate_adds_behind_it(sample_csv, interrupted):
    before = len(run_files(interrupted))
    fit(sample_csv, interrupted)
    assert len(run_files(interrupted)) == before
    assert main(["validate", "--run_dir", str(interrupted)]) == 0
    assert len(run_files(interrupted)) == before + 1
    same_curves(interrupted)


@pytest.mark.parametrize("left", [7, 0.6])
def test_what_a_killed_process_did_not_write_is_sent_at_the_next_start(sample_csv, tmp_path, left):
    run = tmp_path / "run"
    fit(sample_csv, run, cut_at=13)
    (path,) = run_files(run)
    content = path.read_bytes()
    # W&B's process writes in blocks, and those it has not written die with it
    path.write_bytes(content[: left if left > 1 else int(left * len(content))])
    done = len(history(path))
    assert done < 13
    fit(sample_csv, run, cut_at=14)
    assert history(run_files(run)[1])[0][0] == done
    same_curves_up_to(run, 14)


def same_curves_up_to(run_dir, steps):
    rows = [row for path in run_files(run_dir) for row in history(path)]
    assert [step for step, _ in rows] == list(range(steps))
    losses = {step: values["train/loss"] for step, values in rows}
    expected = losses_of(run_dir)
    assert {step: losses[step] for step in expected} == pytest.approx(expected, rel=1e-12)


def test_turned_on_in_the_middle_of_a_run(sample_csv, tmp_path):
    fit(sample_csv, tmp_path / "run", "--wandb=null", cut_at=10)
    assert not (tmp_path / "run" / "wandb").exists()
    fit(sample_csv, tmp_path / "run", cut_at=12)
    same_curves_up_to(tmp_path / "run", 12)


def test_no_key_or_no_server_is_reported_in_one_line_and_the_key_is_nowhere(sample_csv, tmp_path, monkeypatch, capfd):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        server = f"http://127.0.0.1:{closed.getsockname()[1]}"
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_BASE_URL", server)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("NETRC", raising=False)
    wandb.teardown()  # it keeps what it has read of the environment
    run = tmp_path / "run"
    fit(sample_csv, run, cut_at=2)
    said = [line for line in capfd.readouterr().err.splitlines() if "W&B" in line or "wandb" in line]
    run_id = json.loads((run / "run_state.json").read_text())["wandb_id"]
    sync = f"send the run later with 'wandb sync {run}/wandb/offline-run-*-{run_id}*'"
    assert said == [f"W&B is offline (no key in WANDB_API_KEY or ~/.netrc): {sync}"]

    monkeypatch.setenv("WANDB_API_KEY", KEY)
    wandb.teardown()
    fit(sample_csv, run)
    captured = capfd.readouterr()
    said = [line for line in captured.err.splitlines() if "W&B" in line or "wandb" in line]
    assert len(said) == 1
    assert said[0].startswith(f"W&B is offline ({server} cannot be reached: ")
    assert said[0].endswith(sync)
    assert KEY not in captured.out + captured.err
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 40
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []
    same_curves(run)
    wandb.teardown()


def test_disabled_is_not_a_logger(sample_csv, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    fit(sample_csv, tmp_path / "run", cut_at=2)
    assert not (tmp_path / "run" / "wandb").exists()


def test_training_resumes_when_wandbs_process_dies(sample_csv, tmp_path, monkeypatch, capfd):
    from genre_lightning.training.loggers import wandb_run

    original = wandb_run.RunWandbLogger.log_metrics

    def dying(self, metrics, step=None):
        if step == 5 and self._experiment is not None:
            monkeypatch.setattr(
                self._experiment, "log", lambda *a, **k: (_ for _ in ()).throw(ConnectionResetError("gone"))
            )
        original(self, metrics, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(wandb_run.RunWandbLogger, "log_metrics", dying)
        fit(sample_csv, tmp_path / "run", cut_at=10)
    assert "W&B has failed (gone)" in capfd.readouterr().err
    wandb.teardown()
    fit(sample_csv, tmp_path / "run", cut_at=12)
    same_curves_up_to(tmp_path / "run", 12)


def test_a_file_that_is_none_has_no_rows(tmp_path):
    folder = tmp_path / "wandb" / "offline-run-20260101_000000-abc"
    folder.mkdir(parents=True)
    for content in (b"", b"nonsense", b":W&B\xe1\xbe\x00", b":W&B\xe1\xbe\x00" + os.urandom(3000)):
        (folder / "run-abc.wandb").write_bytes(content)
        assert next_step(tmp_path / "wandb", "abc") == 0
    assert next_step(tmp_path / "nowhere", "abc") == 0


def test_two_starts_in_one_second_are_both_read(interrupted, tmp_path):
    run_id = json.loads((interrupted / "run_state.json").read_text())["wandb_id"]
    for path, suffix in zip(run_files(interrupted)[:2], ("", "-1"), strict=True):
        folder = tmp_path / f"offline-run-20260101_000000-{run_id}{suffix}"
        folder.mkdir()
        shutil.copy(path, folder)
    assert next_step(tmp_path, run_id) == 18


def test_the_id_is_made_once(tmp_path):
    from genre_lightning.training.loggers.wandb_run import wandb_run_id

    run = RunDirectory(Path(tmp_path))
    run.set_status("training", data=FilmsOfRun("x"))
    made = wandb_run_id(run)
    assert len(made) == 10
    assert wandb_run_id(run) == made
    assert run.read_state().data == FilmsOfRun("x")
    assert run.status == "training"


@pytest.mark.slow
def test_online_the_server_has_every_step_once(sample_csv, tmp_path, monkeypatch, capfd):
    run = tmp_path / "run"
    monkeypatch.delenv("WANDB_MODE")
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    monkeypatch.setattr("genre_lightning.training.loggers.wandb_run._FINISH_SECONDS", 2.0)
    with wandb_double() as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        wandb.teardown()  # it keeps what it has read of the environment
        fit(sample_csv, run, cut_at=10)
        assert f"W&B     {server.url}/me/genre_lightning/runs/" in capfd.readouterr().err
        assert [row["_step"] for row in server.rows()] == list(range(10))
        # the checkpoint is of step 7: what was logged past it is not sent again
        fit(sample_csv, run, cut_at=12)
        assert [row["_step"] for row in server.rows()] == list(range(12))
        # a server that takes no more ends nothing, and gets the rest when it does again
        server.refusing = True
        fit(sample_csv, run, cut_at=17)
        assert len(server.rows()) == 12
        server.refusing = False
        fit(sample_csv, run, "--wandb.mode=offline", cut_at=20)
        fit(sample_csv, run, cut_at=22)
    rows = server.rows()
    assert [row["_step"] for row in rows] == list(range(22))
    losses = losses_of(run)
    assert {row["_step"]: row["train/loss"] for row in rows if row["_step"] in losses} == pytest.approx(losses)
    assert server.ids == {json.loads((run / "run_state.json").read_text())["wandb_id"]}
    assert json.loads(server.config)["model"]["value"]["init_args"]["backbone"] == "small"
    assert server.authorizations == {"Basic " + base64.b64encode(f"api:{KEY}".encode()).decode()}
    files = [path for path in run.rglob("*") if path.is_file()]
    assert [path for path in files if KEY.encode() in path.read_bytes()] == []


@pytest.mark.slow
def test_on_two_ranks_one_of_them_talks_and_the_run_resumes_on_one(sample_csv, tmp_path):
    worker = Path(__file__).parents[2] / "tools" / "faults" / "worker.py"
    run = tmp_path / "run"
    words = ["fit", f"--data.csv={sample_csv}", f"--run_dir={run}", *OPTIONS]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    environment |= {"FAULT": "between steps:9:SIGTERM", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(worker), *words, "--trainer.devices=2", "--trainer.strategy=ddp"],
        env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 75, done.stderr
    assert done.stderr.count("W&B is offline") == 1
    (path,) = run_files(run)
    assert any(record.HasField("preempting") for record in read_records(path))
    steps = len(history(path))
    assert 3 < steps < 10
    fit(sample_csv, run, cut_at=12)
    assert [step for step, _ in history(run_files(run)[1])] == list(range(steps, 12))
    same_curves_up_to(run, 12)
