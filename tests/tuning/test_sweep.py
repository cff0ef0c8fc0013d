"""Sweeps of Weights & Biases: their configuration, and a trial in the environment of an agent."""

import os
import subprocess
import sys

import pytest
import yaml
from made_runs import refused
from small_run import SMALL

from genre_lightning.__main__ import main
from genre_lightning.runs import RunDirectory
from genre_lightning.training.loggers.wandb_files import read_records


@pytest.fixture
def space(tmp_path):
    file = tmp_path / "space.yaml"
    file.write_text(
        "model.lr: {low: 1e-5, high: 1e-3, log: true}\n"
        "model.dropout: {low: 0.0, high: 0.3, step: 0.1}\n"
        "model.label_smoothing: {low: 0.0, high: 0.1}\n"
        "trainer.max_epochs: {low: 1, high: 4}\n"
        "data.vocab_size: {low: 100, high: 3000, log: true}\n"
        "trainer.gradient_clip_val: {low: 0.25, high: 1.0, step: 0.25}\n"
        "model.pooling: [mean, cls]\n"
    )
    return file


def test_a_space_becomes_a_sweep(space, sample_csv, tmp_path, capfd):
    out, words = tmp_path / "sweep.yaml", [f"--data.csv={sample_csv}", "--model.backbone=small"]
    assert main(["sweep-config", f"--space={space}", f"--out={out}", "--early_epochs=1", *words]) == 0
    sweep = yaml.safe_load(out.read_text())
    assert sweep["metric"] == {"name": "val/f1_micro_tuned", "goal": "maximize"}
    assert sweep["command"] == ["${env}", "genre-lightning", "fit", *words, "${args}"]
    kinds = {name: entry.get("distribution", entry.get("values")) for name, entry in sweep["parameters"].items()}
    assert kinds == {
        "model.lr": "log_uniform_values", "model.dropout": [0.0, 0.1, 0.2, 0.3], "model.label_smoothing": "uniform",
        "data.vocab_size": "q_log_uniform_values", "trainer.gradient_clip_val": [0.25, 0.5, 0.75, 1.0],
        "trainer.max_epochs": "int_uniform", "model.pooling": ["mean", "cls"],
    }  # fmt: skip
    assert sweep["parameters"]["data.vocab_size"] == {
        "distribution": "q_log_uniform_values", "q": 1, "min": 100, "max": 3000,
    }  # fmt: skip
    assert sweep["early_terminate"] == {"type": "hyperband", "min_iter": 1}


def test_conditions_are_refused(sample_csv, tmp_path, capfd):
    (tmp_path / "space.yaml").write_text(
        "model.pooling: [mean, cls]\nmodel.dropout: {low: 0.0, high: 0.3, when: {model.pooling: mean}}\n"
    )
    refused(capfd, ["sweep-config", "--space", tmp_path / "space.yaml", f"--data.csv={sample_csv}"], "condition")


@pytest.mark.slow
def test_a_trial_of_an_agent_is_the_sweeps_run(sample_csv, tmp_path):
    # an agent's process is new, and one that has had a run keeps the settings that it began with
    environment = {**os.environ, "WANDB_SWEEP_ID": "sweep123", "WANDB_RUN_ID": "trial456"}
    # the agent's form: Python's texts of the values
    agent = ["--model.lr=0.0007", "--model.unfreeze=None", "--model.packing=True", "--trainer.max_epochs=1"]
    words = [f"--data.csv={sample_csv}", f"--run_dir={tmp_path / 'sweep'}", *SMALL, "--data.max_films=120"]
    command = [sys.executable, "-m", "genre_lightning", "fit", *words, *agent]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    run = RunDirectory(tmp_path / "sweep" / "trial456")
    assert run.settings()["model"]["init_args"]["lr"] == 0.0007
    assert run.read_state().wandb_id == "trial456"
    assert not run.evaluation("test").path.exists()
    shown = next(line for line in done.stderr.splitlines() if "wandb sync" in line)
    pattern = shown.partition("wandb sync ")[2].rstrip("'")
    folders = list(tmp_path.glob(pattern.removeprefix(f"{tmp_path}/")))
    assert len(folders) == 1
    records = list(read_records(next(folders[0].glob("run-trial456.wandb"))))
    assert any(record.run.sweep_id == "sweep123" for record in records)
    keys = {item.key or "/".join(item.nested_key) for record in records for item in record.history.item}
    assert "val/f1_micro_tuned" in keys
