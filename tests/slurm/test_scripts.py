"""The batch scripts without a cluster: executables stand for SLURM's commands, bash runs them."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent.parent / "slurm"
DIRECTIVE = re.compile(r"^#SBATCH --([a-z-]+)=?(.*)$", re.MULTILINE)


@pytest.fixture
def job(tmp_path):
    """Runs a script as a job whose srun ends with a status; gives the script's status, and what was called."""
    folder = tmp_path / "stand ins"
    folder.mkdir()
    for name in ("srun", "scontrol"):
        keep = f'printf "%s\\n" "$@" > "{folder}/{name}.args"'
        (folder / name).write_text(f'#!/bin/bash\n{keep}\nexit "${{{name}:-0}}"\n')
        (folder / name).chmod(0o755)

    def run(script, *arguments, srun=0, **variables):
        environment = {
            "PATH": f"{folder}:{os.environ['PATH']}", "srun": str(srun), "GENRE_LIGHTNING_PYTHON": "/the python",
            "SLURM_JOB_ID": "7", "SLURM_JOB_NODELIST": "n1", "SLURM_NTASKS_PER_NODE": "1",
            "SLURM_SUBMIT_DIR": str(SCRIPTS.parent), **variables,
        }  # fmt: skip
        command = ["bash", str(SCRIPTS / script), *arguments]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        called = {file.stem: file.read_text().splitlines() for file in folder.glob("*.args")}
        return done, called

    return run


def test_shellcheck_finds_nothing():
    if shutil.which("shellcheck") is None:
        pytest.skip("shellcheck is not installed")
    files = [*SCRIPTS.glob("*.sbatch"), *SCRIPTS.glob("*.sh"), Path(__file__).with_name("cluster.sh")]
    assert len(files) == 4
    subprocess.run(["shellcheck", "-x", *files], cwd=SCRIPTS.parent, check=True)


def test_the_ranks_get_the_arguments_as_they_are(job):
    words = ["--config", "a config.yaml", "--run_dir", "runs/it's one"]
    done, called = job("train.sbatch", *words)
    assert done.returncode == 0, done.stderr
    place = called["srun"].index("/the python")
    assert called["srun"][place:] == ["/the python", "-m", "genre_lightning", "fit", *words]
    assert "scontrol" not in called


@pytest.mark.parametrize(
    ("variables", "name"),
    [({}, "7"), ({"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "4"}, "7_4"), ({"SLURM_RESTART_COUNT": "49"}, "7")],
)
def test_a_run_that_saved_its_state_is_queued_again(job, variables, name):
    done, called = job("train.sbatch", srun=75, **variables)
    assert called["scontrol"] == ["requeue", name]
    assert "queued again" in done.stdout


@pytest.mark.parametrize("status", [1, 2, 130, 137, 138])
def test_a_run_that_failed_is_not(job, status):
    done, called = job("train.sbatch", srun=status)
    assert done.returncode == status
    assert "scontrol" not in called
    assert f"failed with status {status}" in done.stderr


@pytest.mark.parametrize(
    "variables",
    [
        {"SLURM_RESTART_COUNT": "50"},
        {"SLURM_RESTART_COUNT": "2", "GENRE_LIGHTNING_MAX_REQUEUES": "2"},
        {"GENRE_LIGHTNING_MAX_REQUEUES": "0"},
    ],
)
def test_requeues_have_a_limit(job, variables):
    done, called = job("train.sbatch", srun=75, **variables)
    assert done.returncode == 75
    assert "scontrol" not in called
    assert "not queued again" in done.stderr


def test_tasks_must_be_as_many_as_gpus(job):
    done, called = job("train.sbatch", SLURM_GPUS_ON_NODE="8", SLURM_NTASKS_PER_NODE="1")
    assert (done.returncode, called) == (2, {})
    assert "1 ranks on a node with 8 GPUs" in done.stderr
    assert job("train.sbatch", SLURM_GPUS_ON_NODE="8", SLURM_NTASKS_PER_NODE="8")[0].returncode == 0


def test_a_task_may_start_ranks_on_the_gpus_of_its_node(job):
    given = {"SLURM_GPUS_ON_NODE": "4", "SLURM_NTASKS_PER_NODE": "1", "GENRE_LIGHTNING_RANKS_PER_TASK": "4"}
    assert job("train.sbatch", **given)[0].returncode == 0
    assert job("train.sbatch", **given | {"SLURM_NTASKS_PER_NODE": "4"})[0].returncode == 2


@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        ({}, "1"),
        ({"SLURM_CPUS_PER_TASK": "8"}, "8"),
        ({"SLURM_CPUS_PER_TASK": "32", "ranks_per_task": "4"}, "8"),
        ({"SLURM_CPUS_PER_TASK": "2", "ranks_per_task": "4"}, "1"),
        ({"SLURM_CPUS_PER_TASK": "32", "OMP_NUM_THREADS": "3"}, "3"),
    ],
)
def test_ranks_of_a_task_divide_its_cpus(variables, threads):
    done = subprocess.run(
        ["bash", "-euc", f"source {SCRIPTS}/env.sh; echo $OMP_NUM_THREADS"],
        env={"PATH": os.environ["PATH"], "SLURM_SUBMIT_DIR": "/project", **variables},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == threads


def test_a_sweep_over_seeds(job):
    array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "3"}
    done, called = job("sweep.sbatch", "runs/the seeds", "--config", "a b.yaml", **array)
    assert done.returncode == 0, done.stderr
    expected = ["fit", "--config", "a b.yaml", "--seed", "3", "--run_dir", "runs/the seeds/seed_3"]
    assert called["srun"][-len(expected) :] == expected


def test_a_sweep_over_configurations(job):
    array = {"SLURM_ARRAY_JOB_ID": "7", "SLURM_ARRAY_TASK_ID": "1"}
    words = ("sweep.sbatch", "runs", "configs/a.yaml", "my configs/b c.yaml", "--seed", "4")
    done, called = job(*words, **array)
    assert done.returncode == 0, done.stderr
    expected = ["fit", "--config", "my configs/b c.yaml", "--seed", "4", "--run_dir", "runs/b c"]
    assert called["srun"][-len(expected) :] == expected
    done, _ = job(*words, **{**array, "SLURM_ARRAY_TASK_ID": "2"})
    assert done.returncode == 2
    assert "give --array=0-1" in done.stderr


def test_a_sweep_asks_for_what_a_training_does():
    train, sweep = (dict(DIRECTIVE.findall((SCRIPTS / name).read_text())) for name in ("train.sbatch", "sweep.sbatch"))
    assert {name: value for name, value in sweep.items() if name not in ("array", "output")} == {
        name: value for name, value in train.items() if name != "output"
    }
