"""The batch script of `genre-lightning submit`: its directives, its settings, and where its parts lie."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from genre_lightning.distributed import batch
from genre_lightning.distributed.slurm import PlannedStep
from genre_lightning.errors import ConfigError
from genre_lightning.runs import RunDirectory

_CPUS_PER_GPU = 8
"""SLURM gives a task one CPU otherwise, which Python, autograd, NCCL and gloo would share; GPU nodes have as many."""


def planned_step(options: argparse.Namespace) -> PlannedStep:
    """Return what a job trains on.

    Raises:
        ConfigError: An option of sbatch contradicts those of `submit`.
    """
    given = _given(options)
    per_node = given.get("ntasks-per-node", str(options.gpus_per_node or 1))
    if not per_node.isdecimal() or int(per_node) < 1:
        raise ConfigError(f"--sbatch ntasks-per-node={per_node}: give a whole number")
    if options.gpus_per_node and int(per_node) != options.gpus_per_node:
        raise ConfigError(
            f"--sbatch ntasks-per-node={per_node} with --gpus-per-node {options.gpus_per_node}: a rank trains on one "
            "GPU, so leave ntasks-per-node out"
        )
    return PlannedStep(options.nodes, options.nodes * int(per_node), "cuda" if options.gpus_per_node else "cpu")


_OWN = (
    "nodes", "gpus", "gpus-per-node", "gpus-per-task", "time", "partition", "account", "requeue", "no-requeue",
    "open-mode", "ntasks", "array", "output",
)  # fmt: skip


def _given(options: argparse.Namespace) -> dict[str, str]:
    given = {}
    for text in options.sbatch:
        name, _, value = text.removeprefix("--").partition("=")
        if name in _OWN:
            raise ConfigError(f"--sbatch {text} is set by the batch script or an option of submit: leave it out")
        given[name] = value
    return given


def batch_script(
    options: argparse.Namespace,
    step: PlannedStep,
    folder: Path,
    tasks: Sequence[Sequence[str]],
    *,
    name: str,
    command: str = "fit",
    ranks_per_task: int = 1,
) -> str:
    """Fill in the batch script.

    Args:
        options: Of `submit`.
        step: That each task of an array is done on: its tasks are the ranks.
        folder: Of the script and the logs.
        tasks: Arguments of the command, for each task of an array; a single one is a job without an array.
        name: Of the job.
        command: Of `genre-lightning`.
        ranks_per_task: That the command starts itself; srun starts the others.

    Raises:
        ConfigError: An option that no directive can hold.
    """
    array = {"array": f"0-{len(tasks) - 1}"} if len(tasks) > 1 else {}
    script = batch.render(
        batch.TEMPLATE.read_text(encoding="utf-8"),
        {**_directives(options, folder, step, name, ranks_per_task, is_array=bool(array)), **array},
        {
            "GENRE_LIGHTNING_SLURM": str(scripts_of(folder.parent)),
            "GENRE_LIGHTNING_MAX_REQUEUES": "0" if options.no_requeue else str(options.max_requeues),
            "GENRE_LIGHTNING_PYTHON": os.environ.get("GENRE_LIGHTNING_PYTHON", sys.executable),
            **({"GENRE_LIGHTNING_COMMAND": command} if command != "fit" else {}),
            **({"GENRE_LIGHTNING_RANKS_PER_TASK": str(ranks_per_task)} if ranks_per_task > 1 else {}),
        },
        tasks,
    )
    batch.check_limit(script)
    return script


def _directives(
    options: argparse.Namespace, folder: Path, step: PlannedStep, name: str, ranks_per_task: int, *, is_array: bool
) -> dict[str, str | None]:
    has_gpus = step.accelerator == "cuda"
    cpus = _CPUS_PER_GPU * ranks_per_task if has_gpus else ranks_per_task
    directives: dict[str, str | None] = {
        "job-name": name,
        "nodes": str(step.nodes),
        "ntasks-per-node": str(step.tasks_per_node // ranks_per_task),
        "gpus-per-node": str(step.tasks_per_node) if has_gpus else None,
        "cpus-per-task": str(cpus) if cpus > 1 else None,
        "output": f"{batch.file_name(folder)}/{'%A_%a' if is_array else '%j'}.log",
        # relative paths in a configuration are of the folder that it was submitted from
        "chdir": str(Path.cwd()),
    }
    for option in ("time", "partition", "account"):
        if value := getattr(options, option):
            directives[option] = value
    if options.no_requeue:
        directives |= {"requeue": None, "no-requeue": ""}
    given = _given(options)
    if "cpus-per-gpu" in given:
        directives["cpus-per-task"] = None
    return {**directives, **given}


def scripts_of(place: Path) -> Path:
    """Return where env.sh lies: the project's slurm folder, else the package's own.

    Args:
        place: Directory of the run or the study.

    Raises:
        ConfigError: The working directory is in a run directory, whose files the job would run: its slurm/env.sh, its
            modules.
    """
    here = Path.cwd() / "slurm"
    if Path.cwd().is_relative_to(os.path.realpath(place)) or RunDirectory(Path.cwd()).config.is_file():
        raise ConfigError(
            f"the working directory {Path.cwd()} is in a run directory, and a job runs files of its working directory: "
            "submit from your project's folder"
        )
    return here if (here / "env.sh").is_file() else batch.SCRIPTS.resolve()
