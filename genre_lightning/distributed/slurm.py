"""Where a process stands in a SLURM job: srun's variables for ranks, nodes and restarts."""

from __future__ import annotations

import os
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any

from genre_lightning.config.trainer import listed_devices
from genre_lightning.errors import ConfigError

# names that `salloc` and `srun --pty bash` give a job; Lightning goes by them too
_INTERACTIVE = ("bash", "interactive")

_OF_TASK = ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "SLURM_NPROCS", "SLURM_NTASKS", "SLURM_NTASKS_PER_NODE")

_LOCK_PATIENCE_SECONDS = 120.0
"""How long the former start of a job may hold its run directory: a node that was given up can live on a while."""


@dataclass(frozen=True)
class SlurmStep:
    """The step that this process is a task of.

    Attributes:
        nodes: Number of nodes of the step.
        tasks: Number of tasks of the step, one for each rank.
    """

    nodes: int
    tasks: int

    @property
    def tasks_per_node(self) -> int:
        """The devices that a node trains on."""
        return self.tasks // self.nodes


@dataclass(frozen=True)
class PlannedStep(SlurmStep):
    """A step of a job that is yet to be submitted.

    Attributes:
        accelerator: "cuda" or "cpu", which this machine need not have.
    """

    accelerator: str


def in_step(environment: Mapping[str, str] = os.environ) -> bool:
    """Return whether srun has started this process in a batch job."""
    return "SLURM_STEP_ID" in environment and environment.get("SLURM_JOB_NAME") not in _INTERACTIVE


def current_step(environment: Mapping[str, str] = os.environ) -> SlurmStep | None:
    """Return the step of a batch job that srun started this process in; None anywhere else.

    Raises:
        ConfigError: The nodes have different numbers of tasks.
    """
    if not in_step(environment):
        return None
    step = SlurmStep(int(environment["SLURM_STEP_NUM_NODES"]), int(environment["SLURM_STEP_NUM_TASKS"]))
    if step.tasks % step.nodes or "SLURM_NTASKS_PER_NODE" not in environment:
        raise ConfigError(
            f"srun started {step.tasks} tasks on {step.nodes} nodes without a number for each node: "
            "give sbatch --ntasks-per-node, the number of GPUs of a node"
        )
    return step


def leave_step(environment: MutableMapping[str, str] = os.environ) -> None:
    """Make this process no task of srun, so that it can start ranks itself; it stays in its job.

    Args:
        environment: Loses the variables of the step and of the task, by which this project and Lightning number ranks.
    """
    for name in list(environment):
        if name in _OF_TASK or name.startswith("SLURM_STEP"):
            del environment[name]


def job_id(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the job's id, as squeue and scancel take it; None outside of a job, and of variables not of SLURM."""
    job, array, task = (environment.get(f"SLURM_{name}", "") for name in ("JOB_ID", "ARRAY_JOB_ID", "ARRAY_TASK_ID"))
    if job.isdecimal() and array.isdecimal() and task.isdecimal():
        return f"{array}_{task}"
    return job if job.isdecimal() else None


def lock_patience(environment: Mapping[str, str] = os.environ) -> float:
    """Return the seconds to wait for a run directory that another process uses: many if this job was here before."""
    return _LOCK_PATIENCE_SECONDS if int(environment.get("SLURM_RESTART_COUNT", 0)) else 1.0


def planned_accelerator(accelerator: str, planned: PlannedStep) -> str:
    """Return the accelerator that Lightning's name stands for on the nodes of a job.

    Raises:
        ConfigError: One that they will not have.
    """
    if accelerator == "auto" or accelerator == planned.accelerator:
        return planned.accelerator
    if accelerator == "gpu" and planned.accelerator == "cuda":
        return "cuda"
    cure = "--gpus-per-node=0" if planned.accelerator == "cuda" else "--gpus-per-node"
    asked = "GPUs" if planned.accelerator == "cuda" else "no GPU"
    raise ConfigError(
        f"trainer.accelerator is {accelerator}, and the job asks for {asked}: leave it out, or change {cure}"
    )


def shape_problems(devices: Any, num_nodes: Any, step: SlurmStep) -> list[str]:
    """Return how `trainer.devices` and `trainer.num_nodes` contradict the tasks of a step; nothing if they do not.

    Args:
        devices: "auto", -1, a number, or a list.
        num_nodes: 1 says nothing.
        step: What the job has, or will have.
    """
    problems = []
    listed = listed_devices(devices)
    count = devices if listed is None else len(listed)
    if str(count) not in ("auto", "-1", str(step.tasks_per_node)):
        problems.append(
            f"trainer.devices is {devices}, and the job has {step.tasks_per_node} tasks on each node: "
            "leave trainer.devices out"
        )
    if num_nodes not in (1, step.nodes):
        problems.append(
            f"trainer.num_nodes is {num_nodes}, and the job has {step.nodes} nodes: leave trainer.num_nodes out"
        )
    return problems
