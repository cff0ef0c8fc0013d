"""Runs as jobs of a real SLURM cluster of two nodes: ended, cut off by limits, signals and failures, and refused."""

import csv
import json
import re

import pytest
import torch
import yaml
from conftest import HERE
from small_run import SMALL

from genre_lightning.data.sample.generate import write_sample
from genre_lightning.training.loggers.wandb_files import read_records

pytestmark = [pytest.mark.slurm, pytest.mark.timeout(600)]

RUN = [*SMALL, "--trainer.log_every_n_steps=1"]
STEPS = 18  # 131 films of training in steps of 16, twice
REQUEUES = 24  # in a training of three epochs


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


def assert_same_training(expected, got, steps=STEPS):
    assert [step for step, _ in losses(got)] == list(range(steps))
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
    _, job, run_dir = unbroken
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


def assert_one_tracked_run(run_dir, starts):
    """One run in W&B, written by all starts and by one rank of each, that has each loss of the curves once."""
    files = sorted((run_dir / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len(files) == starts
    assert len({file.name for file in files}) == 1
    tracked = [
        (record.history.step.num, float(json.loads(item.value_json)))
        for file in files
        for record in read_records(file)
        if record.HasField("history")
        for item in record.history.item
        if "train/loss" in (item.key, "/".join(item.nested_key))
    ]
    print([file.parent.name for file in files], [step for step, _ in tracked])
    assert tracked == [(step, pytest.approx(float(loss))) for step, loss in losses(run_dir)]


def test_a_time_limit_that_strikes_twice_changes_nothing(cluster, sample, unbroken):
    strategy, _, expected = unbroken
    run_dir = cluster.place / f"a limited {strategy} run"
    limit = ("--time=10", "--sbatch=signal=USR1@15")
    tracked = ("--wandb.project=films", "--wandb.mode=offline")
    job = cluster.submit(run_dir, "--nodes=2", *limit, *options(sample, strategy), *tracked, HOLD="5 12")
    for restarts, step in (("1", 5), ("2", 12)):
        # both ranks hold there, however long their start took; the limit is of whole minutes
        cluster.said(run_dir / "slurm" / f"{job}.log", f"held in step {step}", times=2)
        hours, minutes, seconds = map(int, cluster.job(job)["RunTime"].split(":"))
        soon = (60 * (60 * hours + minutes) + seconds + 20) // 60 + 1
        cluster.call("scontrol", "update", f"JobId={job}", f"TimeLimit={soon}")
        cluster.wait(f"requeue {restarts}", lambda restarts=restarts: cluster.job(job)["Restarts"] == restarts)
        cluster.call("scontrol", "update", f"JobId={job}", "TimeLimit=10")
    facts = cluster.end_of(job)
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "2")
    log = (run_dir / "slurm" / f"{job}.log").read_text()
    assert log.count("the run has saved its state; queued again") == 2
    assert [int(start) for start in re.findall(r"start (\d), on", log)] == [1, 2, 3]
    assert log.count("resuming") == 2
    assert_same_training(expected, run_dir)
    assert json.loads(cluster.genre_lightning("status", run_dir, "--json"))["restarts"] == 2
    assert_one_tracked_run(run_dir, starts=3)
    print(log)  # shown by -s


def test_a_signal_by_hand_and_a_more_urgent_job_change_nothing(cluster, sample, unbroken):
    strategy, _, expected = unbroken
    run_dir = cluster.place / f"a signalled {strategy} run"
    job = cluster.submit(run_dir, "--nodes=2", "--time=10", *options(sample, strategy), HOLD="7 11")
    log = run_dir / "slurm" / f"{job}.log"
    cluster.said(log, "held in step 7", times=2)
    found = json.loads(cluster.genre_lightning("status", run_dir, "--json"))
    assert (found["state"], found["slurm"]["state"]) == ("running", "RUNNING")
    assert 4 <= found["step"] <= 7  # the curves are written now and then
    cluster.call("scancel", "--signal=USR1", job)
    cluster.said(log, "held in step 11", times=2)
    # by SLURM's preemption: a signal, time to save, and a requeue
    more_urgent = ("--partition=urgent", "--nodes=2", "--output=/dev/null", "--wrap=true")
    urgent = cluster.call("sbatch", "--parsable", *more_urgent)
    facts = cluster.end_of(job)
    assert cluster.job(urgent.strip())["JobState"] == "COMPLETED"
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "2")
    assert "stopped by SIGUSR1 after optimizer step 8" in log.read_text()
    assert "stopped by SIGTERM after optimizer step 12" in log.read_text()
    assert_same_training(expected, run_dir)


@pytest.mark.thorough
@pytest.mark.timeout(3600)
def test_many_requeues_in_a_row_change_nothing(cluster, sample):
    epochs, steps = "--trainer.max_epochs=3", 3 * STEPS // 2
    expected = cluster.place / "a long unbroken run"
    job = cluster.submit(expected, "--nodes=2", "--time=30", *options(sample), epochs)
    assert cluster.end_of(job)["JobState"] == "COMPLETED"
    run_dir = cluster.place / "a run that is queued again and again"
    hold = " ".join(map(str, range(1, REQUEUES + 1)))
    job = cluster.submit(run_dir, "--nodes=2", "--time=30", *options(sample), epochs, HOLD=hold)
    log = run_dir / "slurm" / f"{job}.log"
    for requeue in range(1, REQUEUES + 1):
        cluster.said(log, f"held in step {requeue}\n", times=2)
        cluster.call("scancel", "--signal=USR1", job)
        cluster.wait(f"requeue {requeue}", lambda requeue=requeue: cluster.job(job)["Restarts"] == str(requeue))
    facts = cluster.end_of(job)
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", str(REQUEUES))
    assert_same_training(expected, run_dir, steps)


def test_a_node_that_dies_has_the_job_started_again(cluster, sample):
    run_dir = cluster.place / "a run on a dying node"
    job = cluster.submit(run_dir, "--nodes=2", "--time=10", *options(sample), HOLD="7")
    log = run_dir / "slurm" / f"{job}.log"
    cluster.said(log, "held in step 7", times=2)
    state = cluster.environment["SLURM_TEST_CLUSTER"]
    cluster.call("sh", "-c", f"kill -9 $(cat {state}/n2.pid)")
    cluster.wait("the requeue", lambda: cluster.job(job)["Restarts"] == "1")
    cluster.call(HERE / "cluster.sh", "slurmd", "n2")
    facts = cluster.end_of(job)
    assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "1")
    assert "resuming" in log.read_text()
    assert [step for step, _ in losses(run_dir)] == list(range(STEPS))


def test_an_array_of_four_seeds(cluster, sample):
    folder = cluster.place / "a sweep"
    said = cluster.call(
        "sbatch", "--parsable", "--gpus-per-node=0", "--array=1-4", f"--output={folder}-%a.log",
        "slurm/sweep.sbatch", folder, *options(sample, "auto"),
    )  # fmt: skip
    for seed in range(1, 5):
        facts = cluster.end_of(f"{said.strip()}_{seed}")
        assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "0")
        assert yaml.safe_load((folder / f"seed_{seed}" / "config.yaml").read_text())["seed"] == seed
        found = json.loads(cluster.genre_lightning("status", folder / f"seed_{seed}", "--json"))
        assert (found["state"], found["job"]) == ("finished", f"{said.strip()}_{seed}")
    assert len({str(losses(folder / f"seed_{seed}")) for seed in range(1, 5)}) == 4


def test_the_second_job_in_a_run_directory_is_refused(cluster, sample):
    run_dir = cluster.place / "a wanted run"
    first = cluster.submit(run_dir, "--time=10", "--no-requeue", *options(sample, "auto"), HOLD="7")
    log = run_dir / "slurm" / f"{first}.log"
    cluster.said(log, "held in step 7")
    second = cluster.submit(run_dir, "--time=10", *options(sample, "auto"))
    facts = cluster.end_of(second)
    assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("FAILED", "2:0", "0")
    said = (run_dir / "slurm" / f"{second}.log").read_text()
    assert "another process is working in" in said
    assert "is not queued again" in said
    cluster.call("scancel", "--signal=TERM", first)
    facts = cluster.end_of(first)
    assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("FAILED", "75:0", "0")
    assert "after 0 of 0 requeues it is not queued again" in log.read_text()


def test_a_broken_configuration_fails_once(cluster, sample):
    config = cluster.place / "broken config.yaml"
    config.write_text(f"data: {{csv: {sample}}}\nmodel: {{init_args: {{backbone: small, dropout: 2.0}}}}\n")
    run_dir = cluster.place / "a broken run"
    log = cluster.place / "broken.log"
    job = cluster.call(
        "sbatch", "--parsable", "--gpus-per-node=0", "--nodes=2", f"--output={log}",
        "slurm/train.sbatch", "--config", config, "--run_dir", run_dir,
    ).strip()  # fmt: skip
    facts = cluster.end_of(job)
    assert (facts["JobState"], facts["ExitCode"], facts["Restarts"]) == ("FAILED", "2:0", "0")
    assert "model.dropout is 2.0" in log.read_text()
    assert not run_dir.exists()
    # submit names it before there is a job
    cluster.genre_lightning("submit", "--config", config, "--run_dir", run_dir, "--gpus-per-node=0", status=2)


def test_a_cancelled_job_stays_cancelled(cluster, sample):
    run_dir = cluster.place / "a cancelled run"
    job = cluster.submit(run_dir, "--time=10", *options(sample, "auto"), HOLD="7")
    cluster.said(run_dir / "slurm" / f"{job}.log", "held in step 7")
    cluster.call("scancel", job)
    facts = cluster.end_of(job)
    assert (facts["JobState"], facts["Restarts"]) == ("CANCELLED", "0")


def test_a_study_survives_a_node_that_dies(cluster, sample):
    study, space = cluster.place / "a study", cluster.place / "space.yaml"
    space.write_text("model.lr: {low: 1e-4, high: 1e-2, log: true}\nmodel.dropout: {low: 0.0, high: 0.3}\n")
    said = cluster.genre_lightning(
        "submit", "--workers=2", "--gpus-per-node=0", "--time=10", "--sbatch=exclusive", "tune", f"--study={study}",
        f"--space={space}", "--trials=4", "--pruning=median", *options(sample, "auto"), HOLD="7",
    )  # fmt: skip
    job = re.match(r"job (\d+) is queued: 2 workers", said)[1]
    for task in (0, 1):
        cluster.said(study / "slurm" / f"{job}_{task}.log", "held in step 7")
    lost = next(task for task in (0, 1) if cluster.job(f"{job}_{task}")["NodeList"] == "n2")
    state = cluster.environment["SLURM_TEST_CLUSTER"]
    cluster.call("sh", "-c", f"kill -9 $(cat {state}/n2.pid)")
    cluster.wait("the requeue", lambda: cluster.job(f"{job}_{lost}")["Restarts"] == "1")
    cluster.call(HERE / "cluster.sh", "slurmd", "n2")
    cluster.call("scancel", "--signal=USR1", f"{job}_{1 - lost}")
    for task in (0, 1):
        facts = cluster.end_of(f"{job}_{task}")
        assert (facts["JobState"], facts["Restarts"]) == ("COMPLETED", "1")
    with (study / "trials.csv").open(newline="") as file:
        states = [row["state"] for row in csv.DictReader(file)]
    assert len(states) == 4
    assert set(states) <= {"complete", "pruned"}
