"""What srun's variables say, and what the configuration may say beside them."""

import pytest

from genre_lightning.distributed.launch import check_launch
from genre_lightning.distributed.slurm import (
    PlannedStep,
    SlurmStep,
    current_step,
    job_id,
    leave_step,
    lock_patience,
    planned_accelerator,
    shape_problems,
)
from genre_lightning.errors import ConfigError

# as srun sets them in a job of 4 nodes with 8 tasks each
STEP = {
    "SLURM_JOB_ID": "71", "SLURM_JOB_NAME": "a run", "SLURM_STEP_ID": "0", "SLURM_STEP_NUM_NODES": "4",
    "SLURM_STEP_NUM_TASKS": "32", "SLURM_NTASKS_PER_NODE": "8", "SLURM_PROCID": "9",
}  # fmt: skip


def test_a_step_is_read():
    step = current_step(STEP)
    assert step == SlurmStep(4, 32)
    assert step.tasks_per_node == 8


@pytest.mark.parametrize(
    "environment",
    [{}, {name: value for name, value in STEP.items() if "STEP" not in name}, {**STEP, "SLURM_JOB_NAME": "bash"}],
    ids=["no job", "the batch script itself", "a shell on a node"],
)
def test_elsewhere_there_is_no_step(environment):
    assert current_step(environment) is None


@pytest.mark.parametrize("change", [{"SLURM_STEP_NUM_TASKS": "30"}, {"SLURM_NTASKS_PER_NODE": None}])
def test_nodes_must_have_equally_many_tasks(change):
    environment = {name: value for name, value in {**STEP, **change}.items() if value}
    with pytest.raises(ConfigError, match="--ntasks-per-node"):
        current_step(environment)


def test_a_job_is_named_as_scancel_takes_it():
    assert job_id({}) is None
    assert job_id(STEP) == "71"
    assert job_id({**STEP, "SLURM_ARRAY_JOB_ID": "70", "SLURM_ARRAY_TASK_ID": "3"}) == "70_3"
    assert job_id({"SLURM_JOB_ID": "1", "SLURM_ARRAY_JOB_ID": "3"}) == "1"
    assert job_id({"SLURM_JOB_ID": "abc"}) is None


def test_only_a_job_that_was_here_before_waits_long_for_its_directory():
    assert lock_patience({}) == lock_patience(STEP) == 1
    assert lock_patience({**STEP, "SLURM_RESTART_COUNT": "2"}) > 60


@pytest.mark.parametrize(
    ("devices", "nodes", "problems"),
    [
        ("auto", 1, 0),
        (8, 4, 0),
        (-1, 1, 0),
        ([0, 1, 2, 3, 4, 5, 6, 7], 1, 0),
        ("0,1,2,3,4,5,6,7", 1, 0),
        ("0,1", 1, 1),
        (4, 1, 1),
        ("auto", 2, 1),
        (4, 2, 2),
    ],
)
def test_what_is_reported_twice_must_agree(devices, nodes, problems):
    found = shape_problems(devices, nodes, SlurmStep(4, 32))
    assert len(found) == problems
    assert all("leave trainer." in problem for problem in found)


def test_the_accelerator_of_nodes_that_are_not_here():
    gpus, cpus = PlannedStep(4, 32, "cuda"), PlannedStep(4, 4, "cpu")
    assert [planned_accelerator(name, gpus) for name in ("auto", "gpu", "cuda")] == ["cuda"] * 3
    assert [planned_accelerator(name, cpus) for name in ("auto", "cpu")] == ["cpu"] * 2
    for name, planned in (("cpu", gpus), ("gpu", cpus), ("cuda", cpus), ("mps", cpus)):
        with pytest.raises(ConfigError, match="--gpus-per-node"):
            planned_accelerator(name, planned)


def test_a_process_that_leaves_its_step_stays_in_its_job():
    environment = {**STEP, "SLURM_STEPID": "0", "SLURM_NTASKS": "1", "SLURM_LOCALID": "0", "SLURM_CPUS_PER_TASK": "8"}
    environment |= {"SLURM_RESTART_COUNT": "2", "HOME": "/home/me"}
    leave_step(environment)
    assert environment == {
        "SLURM_JOB_ID": "71", "SLURM_JOB_NAME": "a run", "SLURM_CPUS_PER_TASK": "8", "SLURM_RESTART_COUNT": "2",
        "HOME": "/home/me",
    }  # fmt: skip
    assert current_step(environment) is None
    check_launch(environment)
