"""Runs as jobs of a real SLURM cluster of two nodes: ended, cut off by limits, signals and failures, and refused."""

import csv
import json
import re

import pytest
import torch
import yaml
from conftest import HERE
from small_run import SMALL

from genre_lightning.data.sample import write_sample

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(300)]

RUN = [*SMALL, "--trainer.log_every_n_steps=1"]
STEPS = 18  # 131 films of training in steps of 16, twice


@pytest.fixture(scope="module")
def sample(cluster):
    return write_sample(cluster.place / "the films.csv", films=165, seed=1)


def options(sample, strategy="ddp"):
    return [f"--data.csv={sample}", *RUN, f"--trainer.strategy={strategy}"]


def losses(run_dir):
    with (run_dir / "curves.csv").open(newline="") as file:
        return [(int(row["step"]), row["train/loss"]) for row in csv.DictReader(file) if row["train/loss"]]


def weights(run_dir):
    return {
        name: torch.load(run_dir / f"checkpoints/{name}.ckpt", weights_only=True)["state_dict"]
        for name in ("last", "best")
    }


def assert_same_training(expected, got):
    assert [step for step, _ in losses(got)] == list(range(STEPS))
    assert losses(got) == losses(expected)
    for name, state in weights(expected).items():
        other = weights(got)[name]
        assert state.keys() == other.keys()
        for key, value in state.items():
            assert torch.equal(value, other[key]), f"{name} {key}"


@pytest.fixture(scope="module", params=["ddp", "fsdp"])
def unbroken(request, cluster, sample):
    """A run on two nodes to its end: its strategy, job and directory."""
    run_dir = cluster.place / f"an unbroken {request.param} run"
    job = cluster.submit(run_dir, "--nodes=2", "--time=10", *options(sample, request.param))
    assert cluster.end_of(job)["JobState"] == "COMPLETED"
    return request.param, job, run_dir


def test_a_run_on_two_nodes_comes_to_its_end(cluster, unbroken):
    strategy, job, run_dir = unbroken
    found = json.loads(cluster.genre_lightning("status", run_dir, "--json"))
    assert (found["state"], found["job"], found["slurm"]["state"]) == ("finished", job, "COMPLETED")
    assert (found["step"], found["steps"], found["restarts"]) == (STEPS, STEPS, 0)
    log = (run_dir / "slurm" / f"{job}.log").read_text()
    assert f"job {job}, start 1, on n[1-2]" in log
    # one rank speaks, and the ranks were two
    assert "0: model" in log
    assert "1: model" not in log
    stored = yaml.safe_load((run_dir / "config.yaml").read_text())
    assert (stored["trainer"]["devices"], stored["trainer"]["num_nodes"]) == ("auto", 1)
    assert (run_dir / "report.html").is_file()


def test_a_time_limit_that_strikes_twice_changes_nothing(cluster, sample, unbroken):
    strategy, _, expected = unbroken
    run_dir = cluster.place / f"a limited {strategy} run"
    limit = ("--time=1", "--sbatch=signal=USR1@15")
    job = cluster.submit(run_dir, "--nodes=2", *limit, *options(sample, strategy), HOLD="5 12")
    facts = cluster.end_of(job)
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "2")
    log = (run_dir / "slurm" / f"{job}.log").read_text()
    assert log.count("stopped by SIGUSR1 after optimizer step") >= 2
    assert log.count("the run has saved its state; queued again") == 2
    assert [int(start) for start in re.findall(r"start (\d), on", log)] == [1, 2, 3]
    assert log.count("resuming") == 2
    assert_same_training(expected, run_dir)
    assert json.loads(cluster.genre_lightning("status", run_dir, "--json"))["restarts"] == 2
    print(log)
