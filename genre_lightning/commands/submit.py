"""`genre-lightning submit`: checks a training as `fit` would, and queues it on a SLURM cluster."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genre_lightning.bounds import at_least
from genre_lightning.commands.arguments import CommandParser, within
from genre_lightning.commands.checked import parse_checked
from genre_lightning.config.changes import check_same_training
from genre_lightning.config.continuation import continued_words
from genre_lightning.config.trust import trusted_packages
from genre_lightning.config.words import default_run_dir
from genre_lightning.distributed import batch
from genre_lightning.distributed.slurm import PlannedStep
from genre_lightning.errors import ConfigError
from genre_lightning.files import write_json, write_text
from genre_lightning.progress import say
from genre_lightning.runs import RunDirectory

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from genre_lightning.training.setup import Setup

_MAX_REQUEUES = 50
_CPUS_PER_GPU = 8
"""SLURM gives a task one CPU otherwise, which Python, autograd, NCCL and gloo would share; GPU nodes have as many."""


def submit(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status."""
    options, words = _parser().parse_known_args(list(arguments))
    if not options.dry_run:
        batch.require_sbatch()
    step = _planned(options)
    with continued_words(words) as given:
        config, parser = parse_checked("fit", given, default_run_dir(words))
    # this loads torch, which takes seconds
    from genre_lightning.training.setup import check_setup

    setup = check_setup(config, parser, step)
    scripts = _scripts(setup.run)
    unknown_here = ("trainer.precision",) if str(config.trainer.precision) == "auto" else ()
    check_same_training(setup.run, setup.config_text, override=config.override, without_effect=unknown_here)
    folder = setup.run.batch
    trust = [word for package in trusted_packages() for word in ("--trust", package)]
    script = batch.render(
        batch.TEMPLATE.read_text(encoding="utf-8"),
        _directives(options, setup.run, step),
        {
            "GENRE_LIGHTNING_SLURM": str(scripts),
            "GENRE_LIGHTNING_MAX_REQUEUES": "0" if options.no_requeue else str(options.max_requeues),
            "GENRE_LIGHTNING_PYTHON": os.environ.get("GENRE_LIGHTNING_PYTHON", sys.executable),
        },
        ["--config", str(folder / "config.yaml"), "--run_dir", str(setup.run.path), *trust],
    )
    batch.check_limit(script)
    if options.dry_run:
        print(script, end="")
        return 0
    write_text(folder / "config.yaml", parser.dump(_frozen(config, setup), skip_none=False))
    write_text(folder / "train.sbatch", script)
    job = batch.submit(folder / "train.sbatch")
    write_json(folder / "job.json", {"job": job})
    _tell(job, setup.run)
    return 0


def _parser() -> CommandParser:
    parser = CommandParser(
        "submit",
        "Queues a training on a SLURM cluster. At its time limit, and when it is preempted, the job saves its state "
        "and is queued again. All other options are those of 'genre-lightning fit', such as --config and --run_dir.",
    )
    add = parser.add_argument
    add("--nodes", type=within(int, at_least(1, 10**6)), default=1, metavar="N", help="nodes (default: 1)")
    add("--gpus-per-node", type=within(int, at_least(0, 10**6)), default=1, metavar="N",
        help="GPUs of each node, a rank on each; 0: one rank on the CPUs of each node (default: 1)")  # fmt: skip
    add("--time", metavar="TIME", help="time limit of one start of the job, as sbatch takes it (default: 8:00:00)")
    add("--partition", metavar="NAME", help="where to queue the job (default: the cluster's own)")
    add("--account", metavar="NAME", help="what to charge it to (default: the user's own)")
    add("--sbatch", action="append", default=[], metavar="KEY=VALUE",
        help="any option of sbatch by its long name, such as qos=high or exclusive; repeatable")  # fmt: skip
    add("--max-requeues", type=within(int, at_least(0, 10**6)), default=_MAX_REQUEUES, metavar="N",
        help=f"starts after the first one, at most (default: {_MAX_REQUEUES})")  # fmt: skip
    add("--no-requeue", action="store_true", help="let the job end with status 75 instead of queueing it again")
    add("--dry-run", action="store_true", help="print the batch script, and write and submit nothing")
    return parser


def _planned(options: argparse.Namespace) -> PlannedStep:
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


_OWN = ("nodes", "gpus-per-node", "time", "partition", "account", "requeue", "no-requeue", "open-mode", "ntasks")


def _given(options: argparse.Namespace) -> dict[str, str]:
    given = {}
    for text in options.sbatch:
        name, _, value = text.removeprefix("--").partition("=")
        if name in _OWN:
            raise ConfigError(f"--sbatch {text} is what the batch script or an option of submit says: leave it out")
        given[name] = value
    return given


def _directives(options: argparse.Namespace, run: RunDirectory, step: PlannedStep) -> dict[str, str | None]:
    directives: dict[str, str | None] = {
        "job-name": run.path.name,
        "nodes": str(step.nodes),
        "ntasks-per-node": str(step.tasks_per_node),
        "gpus-per-node": str(options.gpus_per_node) if options.gpus_per_node else None,
        "cpus-per-task": str(_CPUS_PER_GPU) if options.gpus_per_node else None,
        "output": f"{batch.file_name(run.batch)}/%j.log",
        # relative paths in a configuration are of the folder that it was submitted from
        "chdir": str(Path.cwd()),
    }
    for name in ("time", "partition", "account"):
        if value := getattr(options, name):
            directives[name] = value
    if options.no_requeue:
        directives |= {"requeue": None, "no-requeue": ""}
    given = _given(options)
    if "cpus-per-gpu" in given:
        directives["cpus-per-task"] = None
    return {**directives, **given}


def _scripts(run: RunDirectory) -> Path:
    """Where env.sh lies: the project that one stands in, else the package's own.

    Raises:
        ConfigError: one stands in a run directory, whose files the job would run: its slurm/env.sh, its modules.
    """
    here = Path.cwd() / "slurm"
    if Path.cwd().is_relative_to(os.path.realpath(run.path)) or RunDirectory(Path.cwd()).config.is_file():
        raise ConfigError(
            f"the working directory {Path.cwd()} is in a run directory, and a job runs files of its working directory: "
            "submit from your project's folder"
        )
    return here if (here / "env.sh").is_file() else batch.SCRIPTS.resolve()


def _frozen(config: Namespace, setup: Setup) -> Namespace:
    """Return what the job reads, however long it waits: files that are edited meanwhile are of other runs."""
    frozen = config.clone()
    frozen.run_dir = setup.run.path
    frozen.data.csv = setup.config.data.csv
    # on a node whose driver is broken, "auto" would train on the CPU
    frozen.trainer.accelerator = setup.config.trainer.accelerator
    return frozen


def _tell(job: str, run: RunDirectory) -> None:
    path = os.path.relpath(run.path) if run.path.is_relative_to(Path.cwd()) else str(run.path)
    print(f"job {job} is queued: {path}")
    say(f"follow   genre-lightning status {shlex.quote(path)}")
    say(f"         tail -F {shlex.quote(f'{path}/slurm/{job}.log')}")
    say(f"cancel   scancel {job}")
