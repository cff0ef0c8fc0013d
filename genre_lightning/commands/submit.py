"""`genre-lightning submit`: checks a training as `fit` would, and queues it on a SLURM cluster."""

from __future__ import annotations

import argparse
import os
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genre_lightning.bounds import at_least
from genre_lightning.cache import key_of
from genre_lightning.commands.arguments import CommandParser, within
from genre_lightning.commands.batch_script import batch_script, planned_step, scripts_of
from genre_lightning.commands.checked import parse_checked
from genre_lightning.commands.submit_array import array_words, require_different
from genre_lightning.config.changes import check_same_training
from genre_lightning.config.continuation import continued_words
from genre_lightning.config.run_pattern import require_no_pattern
from genre_lightning.config.trust import trusted_packages
from genre_lightning.config.words import default_run_dir
from genre_lightning.distributed import batch
from genre_lightning.distributed.slurm import PlannedStep
from genre_lightning.errors import ConfigError
from genre_lightning.files import write_json, write_text
from genre_lightning.progress import say
from genre_lightning.runs import RunDirectory
from genre_lightning.tuning.storage import require_optuna
from genre_lightning.tuning.study import StudyDirectory

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from genre_lightning.training.setup import Setup

_MAX_REQUEUES = 50


def submit(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    options, words = _parser().parse_known_args(list(arguments))
    if not options.dry_run:
        batch.require_sbatch()
    step = planned_step(options)
    if words[:1] == ["tune"]:
        return _submit_workers(options, step, words[1:])
    if options.workers is not None:
        raise ConfigError("--workers are those of a study: write submit tune --study DIR --workers N, or leave it out")
    tasks = array_words(options.array, words) if options.array else [words]
    setups = [_checked(task, step) for task in tasks]
    require_different([setup.run.path for setup, _ in setups])
    # named by their content: a job that waits keeps its configuration, whatever is submitted after it
    files = [setup.run.batch / f"config-{key_of(frozen)}.yaml" for setup, frozen in setups]
    arguments_of = [
        ["--config", str(file), "--run_dir", str(setup.run.path), *_trust()]
        for file, (setup, _) in zip(files, setups, strict=True)
    ]
    first = setups[0][0].run
    script = batch_script(options, step, first.batch, arguments_of, name=first.path.name)
    if options.dry_run:
        print(script, end="")
        return 0
    for file, (_, frozen) in zip(files, setups, strict=True):
        write_text(file, frozen)
    to_submit = first.batch / ("train.sbatch" if len(setups) == 1 else "array.sbatch")
    write_text(to_submit, script)
    job = batch.submit(to_submit)
    for number, (setup, _) in enumerate(setups):
        write_json(setup.run.batch / "job.json", {"job": job if len(setups) == 1 else f"{job}_{number}"})
    if len(setups) == 1:
        _show_job(job, first)
    else:
        print(f"job {job} is queued: {len(setups)} runs")
        say(f"follow   genre-lightning status {shlex.join(str(setup.run.path) for setup, _ in setups)}")
        say(f"cancel   scancel {job}")
    return 0


def _checked(words: Sequence[str], step: PlannedStep) -> tuple[Setup, str]:
    """Check a run as `fit` would; return it, and the configuration that its job reads.

    Raises:
        ConfigError, DataError: Nothing has been written.
    """
    with continued_words(words) as given:
        config, parser = parse_checked("fit", given, default_run_dir(words))
    # this loads torch, which takes seconds
    from genre_lightning.training.setup import check_setup

    setup = check_setup(config, parser, step)
    require_no_pattern(setup.run.path)
    scripts_of(setup.run.path)  # refuses the working directory before the settings are compared
    unknown_here = ("trainer.precision",) if str(config.trainer.precision) == "auto" else ()
    check_same_training(setup.run, setup.config_text, override=config.override, without_effect=unknown_here)
    return setup, parser.dump(_frozen(config, setup), skip_none=False)


def _submit_workers(options: argparse.Namespace, step: PlannedStep, words: Sequence[str]) -> int:
    """Start a study, or take one that exists, and queue workers for it."""
    from genre_lightning.commands.tune import begin_study, tune_parser
    from genre_lightning.tuning.configuration import devices_of

    if options.array:
        raise ConfigError("--array is for runs without a search: leave it out, or name the values in --space")
    given, rest = tune_parser().parse_known_args(list(words))
    if given.worker or given.finish or given.parallel > 1:
        raise ConfigError("submit tune queues --workers N: leave --worker, --parallel and --finish out")
    require_optuna(given.sampler or "")
    study = StudyDirectory(given.study.expanduser().absolute())
    ranks = given.devices_per_trial or (devices_of(study) if study.file.is_file() else 1)
    trial = _step_of_trial(step, ranks)
    folder = study.path / "slurm"
    task = ["--study", str(study.path), "--worker", "--devices_per_trial", str(ranks)]
    task += ["--max_failures", str(given.max_failures), *_trust()]
    count = options.workers or 1
    script = batch_script(
        options, trial, folder, [task] * count, name=study.path.name, command="tune", ranks_per_task=ranks
    )
    begin_study(study, given, rest, planned=trial, dry_run=options.dry_run)
    if options.dry_run:
        print(script, end="")
        return 0
    write_text(folder / "workers.sbatch", script)
    job = batch.submit(folder / "workers.sbatch")
    print(f"job {job} is queued: {count} {'worker' if count == 1 else 'workers'} of {study.path}")
    say(f"follow   genre-lightning status {shlex.quote(str(study.path / 'trials' / '*'))}")
    say(f"         tail -F {shlex.quote(str(folder))}/{job}*.log")
    say(f"cancel   scancel {job}")
    return 0


def _step_of_trial(step: PlannedStep, ranks: int) -> PlannedStep:
    """Return what a trial is trained on: ranks on one node, which the one task of a worker's job starts.

    Args:
        step: As the options of `submit` have it; 1 GPU is their default.
        ranks: Of each trial.

    Raises:
        ConfigError: The options ask for other devices than those of a trial.
    """
    if step.nodes != 1:
        raise ConfigError(f"--nodes {step.nodes}: a trial runs on one node: leave --nodes out, or use --workers")
    if step.tasks not in ((1, ranks) if step.accelerator == "cuda" else (1,)):
        raise ConfigError(
            f"each worker would have {step.tasks} devices, and a trial --devices_per_trial {ranks}: give tune "
            f"--devices_per_trial {step.tasks}, or use --workers for more trials at once"
        )
    return PlannedStep(1, ranks, step.accelerator)


def _trust() -> list[str]:
    return [word for package in trusted_packages() for word in ("--trust", package)]


def _parser() -> CommandParser:
    parser = CommandParser(
        "submit",
        "Queues a training on a SLURM cluster. At its time limit, and when it is preempted, the job saves its state "
        "and is queued again. All other options are those of 'genre-lightning fit', such as --config and --run_dir.",
    )
    add = parser.add_argument
    add("--nodes", type=within(int, at_least(1, 10**6)), default=1, metavar="N", help="nodes (default: 1)")
    add("--gpus-per-node", type=within(int, at_least(0, 10**6)), default=1, metavar="N",
        help="GPUs of each node, a rank on each; 0: one rank on the CPUs of each node (default: 1; of 'submit tune' "
        "as many as --devices_per_trial)")  # fmt: skip
    add("--time", metavar="TIME", help="time limit of one start of the job, as sbatch takes it (default: 8:00:00)")
    add("--partition", metavar="NAME", help="where to queue the job (default: the cluster's own)")
    add("--account", metavar="NAME", help="what to charge it to (default: the user's own)")
    add("--sbatch", action="append", default=[], metavar="KEY=VALUE",
        help="any option of sbatch by its long name, such as qos=high or exclusive; repeatable")  # fmt: skip
    add("--max-requeues", type=within(int, at_least(0, 10**6)), default=_MAX_REQUEUES, metavar="N",
        help=f"starts after the first one, at most (default: {_MAX_REQUEUES})")  # fmt: skip
    add("--no-requeue", action="store_true", help="let the job end with status 75 instead of queueing it again")
    add("--array", action="append", default=[], metavar="OPTION=VALUES",
        help="a run for each value, such as lr=1e-5,2e-5; repeatable, for each combination")  # fmt: skip
    add("--workers", type=within(int, at_least(1, 1000)), metavar="N",
        help="of 'submit tune ...': how many workers of the study are queued (default: 1)")  # fmt: skip
    add("--dry-run", action="store_true", help="print the batch script, and write and submit nothing")
    return parser


def _frozen(config: Namespace, setup: Setup) -> Namespace:
    """Return what the job reads, however long it waits: files that are edited meanwhile are of other runs."""
    frozen = config.clone()
    frozen.run_dir = setup.run.path
    frozen.data.csv = setup.config.data.csv
    # on a node whose driver is broken, "auto" would train on the CPU
    frozen.trainer.accelerator = setup.config.trainer.accelerator
    return frozen


def _show_job(job: str, run: RunDirectory) -> None:
    path = os.path.relpath(run.path) if run.path.is_relative_to(Path.cwd()) else str(run.path)
    print(f"job {job} is queued: {path}")
    say(f"follow   genre-lightning status {shlex.quote(path)}")
    say(f"         tail -F {shlex.quote(f'{path}/slurm/{job}.log')}")
    say(f"cancel   scancel {job}")
