"""A study whose two workers train each trial on two ranks: killed, resumed, equal to one rank, and finished."""

import contextlib
import csv
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_runs import without_page
from small_run import SMALL

from genre_lightning.__main__ import main
from genre_lightning.distributed.checkpoint.manifests import manifest_path
from genre_lightning.evaluation.curves import read_curves
from genre_lightning.runs import RunDirectory
from genre_lightning.tuning.study import StudyDirectory

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]
OPTIONS = [
    *SMALL, "--data.max_tokens=16", "--data.max_films=150", "--data.vocab_size=200",
    "--model.dropout=0",  # ranks draw masks of their own
    "--trainer.max_epochs=3", "--trainer.log_every_n_steps=1", "--checkpoint.every_steps=2",
]  # fmt: skip
WORKERS = ["--parallel=2", "--devices_per_trial=2"]


def until(condition, seconds=600):
    """The first true value of a condition."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("did not come")


def processes_of(folder, word=""):
    """Ids of the running processes whose command lines name a folder and have a word."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            line = file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended
            continue
        if str(folder) in line and word in line:
            found.append(int(file.parent.name))
    return found


@pytest.fixture(scope="module")
def study(sample_csv, tmp_path_factory):
    """A study of two trials whose processes were killed when the first of them had saved its state; read only."""
    place = tmp_path_factory.mktemp("studies")
    folder = StudyDirectory(place / "study")
    (place / "space.yaml").write_text("model.lr: {low: 1e-3, high: 1e-1, log: true}\n")
    words = ["tune", f"--study={folder.path}", f"--space={place / 'space.yaml'}", f"--data.csv={sample_csv}"]
    command = [sys.executable, "-m", "genre_lightning", *words, "--trials=2", *WORKERS, *OPTIONS]
    with (place / "log").open("w") as log:
        tuner = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            saved = [manifest_path(RunDirectory(folder.trial(number)).last) for number in (0, 1)]
            until(lambda: tuner.poll() is not None or any(manifest.is_file() for manifest in saved))
        finally:
            ranks = processes_of(folder.path, "--rank_of")
            # as when a machine is lost; those that start others go first, or they would report a failure
            for process in [tuner.pid, *(set(processes_of(folder.path)) - {*ranks, tuner.pid}), *ranks]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            tuner.wait()
        assert len(ranks) >= 2, (place / "log").read_text()
        until(lambda: not processes_of(folder.path), 60)
        done = subprocess.run(command, stdout=log, stderr=log, check=False)
    assert done.returncode == 0, (place / "log").read_text()
    return folder


def test_every_trial_of_a_killed_study_is_trained_to_its_end(study):
    with study.table.open(newline="") as file:
        assert [(row["state"], row["epochs"]) for row in csv.DictReader(file)] == [("complete", "3")] * 2
    states = [RunDirectory(study.trial(number)).read_state() for number in range(2)]
    assert [state.training["devices"] for state in states] == [2, 2]
    assert any(state.starts == 2 and state.start.step > 0 for state in states)


def test_curve_of_two_ranks_is_that_of_one(study, tmp_path, monkeypatch):
    without_page(monkeypatch)
    words = [f"--config={study.trial(0) / 'config.yaml'}", f"--run_dir={tmp_path / 'run'}", "--trainer.devices=1"]
    assert main(["fit", *words]) == 0
    curves = [values(path) for path in (study.trial(0), tmp_path / "run")]
    assert len(curves[0]) == 3 * 8 + 3 * 4
    assert curves[0] == pytest.approx(curves[1], abs=1e-4)


def values(run_dir):
    """Loss of each step and metrics of each validation."""
    names = ("train/loss", "val/loss", "val/f1_micro_tuned", "val/map_macro", "val/auroc_macro")
    rows = read_curves(run_dir / "curves.csv")[1]
    return {(name, row["step"]): float(row[name]) for row in rows for name in names if row.get(name)}


def test_finalists_are_trained_at_once_and_one_is_evaluated(study, capfd):
    assert main(["tune", f"--study={study.path}", "--finish", *WORKERS, "--finalists=2", "--seeds=2", "--json"]) == 0
    printed, lines = capfd.readouterr()
    workers = {line[:3] for line in lines.splitlines() if "seed 1 " in line}
    assert workers == {"[0]", "[1]"}
    assert sorted(len(seeds) for seeds in study.further_seeds().values()) == [1, 1]
    for number in study.further_seeds():
        assert RunDirectory(study.finalist(number, 1)).read_state().training["devices"] == 2
    evaluated = [n for n in range(2) if RunDirectory(study.trial(n)).evaluation("test").path.exists()]
    assert [str(study.trial(n)) for n in evaluated] == [json.loads(printed.splitlines()[-1])["run_dir"]]
