"""`genre-lightning tune`: search for a configuration in a study of many runs, which resumes like a run."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from genre_lightning.bounds import at_least
from genre_lightning.commands.arguments import CommandParser, within
from genre_lightning.commands.search_options import add_space
from genre_lightning.compat import import_lightning
from genre_lightning.distributed.launch import has_company
from genre_lightning.distributed.slurm import leave_step
from genre_lightning.errors import ConfigError
from genre_lightning.progress import answer_json, say
from genre_lightning.tuning.sampling import PRUNINGS, SAMPLERS
from genre_lightning.tuning.space import read_space
from genre_lightning.tuning.storage import checked_storage, require_optuna
from genre_lightning.tuning.study import StudyDirectory

if TYPE_CHECKING:
    from genre_lightning.distributed.slurm import PlannedStep

_TRIALS = 20
_FINALISTS = 3
_OF_SEARCH = ("space", "trials", "sampler", "pruning", "storage")
"""Options that a study keeps: they say nothing to a worker, nor to what comes after the search."""
_OF_FINISH = ("trial", "seeds", "finalists")
_MAX_FAILURES = 3


def tune(arguments: Sequence[str]) -> int:
    """Run the command; return its exit status."""
    options, words = tune_parser().parse_known_args(list(arguments))
    require_optuna(options.sampler or "")
    folder = StudyDirectory(options.study.expanduser().absolute())
    if options.rank_of is not None:
        from genre_lightning.tuning.trials import train_as_rank

        train_as_rank(folder, options.rank_of, options.rank_seed, options.devices_per_trial)
        return 0
    if has_company():
        raise ConfigError(
            "tune starts the ranks of its trials itself: start it without torchrun, by srun with one task, and use "
            "--parallel N or --devices_per_trial N"
        )
    leave_step()
    _check_options_used(options)
    if options.worker and words:
        raise ConfigError(f"--worker takes all settings from the study: leave {words[0]} out")
    if options.worker or options.finish:
        folder.require()
    else:
        begin_study(folder, options, words)
    import_lightning()
    from genre_lightning.distributed.watch import watch_parent
    from genre_lightning.tuning.configuration import check_same_films
    from genre_lightning.tuning.parallel import TUNER
    from genre_lightning.tuning.worker import TrialsFailError, work

    tuner = os.environ.get(TUNER)
    if options.worker and tuner is not None:
        watch_parent(int(tuner), "the tuner")
    if options.finish:
        return _finish(folder, options, words)
    devices, visible = _devices(folder, options)
    if options.parallel > 1:
        return _in_parallel(folder, options, devices, visible)
    check_same_films(folder, devices)
    try:
        work(folder, options.max_failures, devices)
    except TrialsFailError:
        _show(folder, as_json=options.json)
        raise
    if tuner is None:
        _show(folder, as_json=options.json)
    return 0


def _check_options_used(options: argparse.Namespace) -> None:
    """Refuse options that would be without effect.

    Raises:
        ConfigError: The first one.
    """
    mode = "--worker" if options.worker else "--finish" if options.finish else None
    for name in _OF_SEARCH if mode else ():
        if getattr(options, name) is not None:
            raise ConfigError(f"{mode} takes --{name} from the study: leave --{name} out")
    for name in _OF_FINISH if not options.finish else ():
        if (given := getattr(options, name)) is not None:
            raise ConfigError(f"--{name} {given} belongs to --finish: leave it out, or give --finish too")


def _devices(folder: StudyDirectory, options: argparse.Namespace) -> tuple[int, list[str]]:
    """Return how many devices a trial has, and those of each worker.

    Raises:
        ConfigError: This machine does not have them.
    """
    from genre_lightning.tuning.configuration import accelerator_of_study, devices_of
    from genre_lightning.tuning.parallel import worker_devices

    devices = options.devices_per_trial or devices_of(folder)
    return devices, worker_devices(accelerator_of_study(folder), options.parallel, devices)


def _in_parallel(folder: StudyDirectory, options: argparse.Namespace, devices: int, visible: list[str]) -> int:
    from genre_lightning.tuning.parallel import WorkersError, run_workers
    from genre_lightning.tuning.results import read_results

    try:
        words = ["--max_failures", str(options.max_failures)]
        statuses = run_workers(folder, options.parallel, visible, words, devices)
    finally:
        _show(folder, as_json=options.json)
    done = read_results(folder, compare=False)
    if any(statuses) and (len(done.trials) < done.planned or "running" in done.counts):
        raise WorkersError(statuses)
    return 0


def _show(folder: StudyDirectory, *, as_json: bool) -> None:
    """Write the page of a study, and print its best trials."""
    from genre_lightning.tuning.page import as_json as json_of
    from genre_lightning.tuning.page import print_results, write_page
    from genre_lightning.tuning.results import read_results

    results = read_results(folder)
    write_page(folder, results)
    if as_json:
        answer_json(json_of(folder, results))
    else:
        print_results(folder, results)


def _finish(folder: StudyDirectory, options: argparse.Namespace, words: list[str]) -> int:
    from genre_lightning.training.resume import show
    from genre_lightning.tuning.configuration import check_same_study
    from genre_lightning.tuning.finish import finish_study, repeat_finalists
    from genre_lightning.tuning.page import print_results, write_page

    finalists, seeds = options.finalists or _FINALISTS, options.seeds or 1
    if seeds == 1 and (options.parallel > 1 or options.worker):
        name = f"--parallel {options.parallel}" if options.parallel > 1 else "--worker"
        raise ConfigError(
            f"--finish {name} trains finalists with further seeds, and --seeds 1 has none: give --seeds 2 or more, or "
            f"leave {name} out"
        )
    if options.worker and options.trial is not None:
        raise ConfigError(
            f"--trial {options.trial} with --worker: a worker trains finalists and chooses none: leave --trial out, or "
            "--worker"
        )
    devices, visible = _devices(folder, options)
    if options.worker:
        repeat_finalists(folder, finalists, seeds, devices, options.parallel, visible)
        return 0
    check_same_study(folder, words, devices)
    results, run, metrics = finish_study(
        folder, finalists=finalists, seeds=seeds, trial=options.trial, devices=devices,
        parallel=options.parallel, visible=visible,
    )  # fmt: skip
    write_page(folder, results)
    if not options.json:
        print_results(folder, results)
    show(run, metrics, as_json=options.json)
    return 0


def tune_parser() -> CommandParser:
    """Return the parser of the options that are not those of `fit`."""
    parser = CommandParser(
        "tune",
        "Searches for a configuration: trains a trial for each set of options that a sampler chooses, on the same "
        "films, and compares them on the validation split. Every trial is a run directory in the study's. The same "
        "command resumes the study. All other options are those of 'genre-lightning fit', such as --config.",
    )
    add = parser.add_argument
    add("--study", type=Path, required=True, metavar="DIR", help="directory of the study, made if needed")
    add_space(parser)
    add("--trials", type=within(int, at_least(1, 10**6)), metavar="N",
        help=f"trials of the study, those done included (default: {_TRIALS}, or all points of a grid)")  # fmt: skip
    add("--sampler", choices=SAMPLERS, help="how options are chosen (default: tpe)")
    add("--pruning", choices=PRUNINGS, help="how trials are ended early, by the metric of their epochs (default: none)")
    add("--storage", metavar="URL", help="database for the trials, such as sqlite:///study.db (default: a file in DIR)")
    add("--max_failures", type=within(int, at_least(1, 10**6)), default=_MAX_FAILURES, metavar="N",
        help=f"stop when N trials in a row have failed (default: {_MAX_FAILURES})")  # fmt: skip
    add("--parallel", type=within(int, at_least(1, 1024)), default=1, metavar="N",
        help="workers on this machine, each a process with devices of its own (default: 1)")  # fmt: skip
    add("--devices_per_trial", type=within(int, at_least(1, 1024)), metavar="N",
        help="devices of each trial: GPUs, or ranks on the CPU (default: 1, or as the study was started)")  # fmt: skip
    add(
        "--worker",
        action="store_true",
        help="do trials of a study that exists, from any machine that sees DIR; with --finish, finalists",
    )
    add("--finish", action="store_true",
        help="evaluate the best configuration on the test split, once for a study")  # fmt: skip
    add("--finalists", type=within(int, at_least(1, 1000)), metavar="N",
        help=f"with --finish: trials that are repeated with further seeds (default: {_FINALISTS})")  # fmt: skip
    add("--seeds", type=within(int, at_least(1, 1000)), metavar="N",
        help="with --finish: seeds of each finalist, the trial's own included (default: 1)")  # fmt: skip
    add("--trial", type=within(int, at_least(0)), metavar="NUMBER",
        help="with --finish: the trial to choose in place of the best")  # fmt: skip
    add("--json", action="store_true", help="print JSON instead of a table")
    # of the processes that a worker starts for a trial on several devices
    add("--rank_of", type=int, help=argparse.SUPPRESS)
    add("--rank_seed", type=int, help=argparse.SUPPRESS)
    return parser


def begin_study(
    folder: StudyDirectory,
    options: argparse.Namespace,
    words: Sequence[str],
    *,
    planned: PlannedStep | None = None,
    dry_run: bool = False,
) -> None:
    """Start a study, or check that one that exists is meant.

    Args:
        folder: Of the study.
        options: Of `tune`.
        words: Those of `fit`.
        planned: What a trial will be done on, if that is not this machine.
        dry_run: Check all, and write nothing.

    Raises:
        ConfigError, DataError: Nothing has been written.
    """
    _check_options_used(options)
    space = read_space(options.space) if options.space else None
    folder.check_writable()
    options.storage = checked_storage(options.storage)
    if folder.file.is_file():
        from genre_lightning.tuning.configuration import check_same_study, devices_of

        if planned is None:
            _devices(folder, options)
        settings = folder.settings
        for name in ("sampler", "pruning", "storage"):
            given, kept = getattr(options, name), getattr(settings, name)
            if given is not None and given != kept:
                raise ConfigError(
                    f"{folder.path} was started with --{name} {kept}: leave --{name} {given} out, or name another "
                    "--study"
                )
        if space is not None and space != folder.space:
            raise ConfigError(f"{folder.path} was started with another --space: leave it out, or name another --study")
        check_same_study(folder, words, options.devices_per_trial or devices_of(folder))
        if not dry_run and options.trials is not None and options.trials > settings.trials:
            folder.raise_trials(options.trials)
        if options.trials is not None and options.trials < settings.trials:
            say(f"--trials {options.trials} is lower than the study's {settings.trials:,}, which it keeps")
        say(f"resuming {folder.path}")
        return
    if space is None:
        raise ConfigError("a new study needs a space: give --space FILE, such as --space tune/distilbert")
    from genre_lightning.config.packaged import packaged
    from genre_lightning.tuning.configuration import start_study

    file = options.space if options.space.is_file() else packaged(str(options.space)) or options.space
    whole = len(space.grid()) if options.sampler == "grid" else _TRIALS
    start_study(
        folder, file, space, words, sampler=options.sampler or "tpe", pruning=options.pruning or "none",
        trials=options.trials or whole, storage=options.storage, planned=planned, dry_run=dry_run,
        devices=options.devices_per_trial or 1, parallel=options.parallel,
    )  # fmt: skip
