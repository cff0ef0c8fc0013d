"""`genre-lightning plan`: whether a run will fit, how long it takes, and all that `fit` would refuse."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING

from genre_lightning.bounds import Bounds, at_least
from genre_lightning.commands.arguments import CommandParser, within
from genre_lightning.commands.checked import parse_with_checks
from genre_lightning.commands.search_options import add_space
from genre_lightning.compat import import_lightning
from genre_lightning.config.continuation import continued_words
from genre_lightning.config.trainer import listed_devices
from genre_lightning.config.words import default_run_dir
from genre_lightning.errors import ConfigError
from genre_lightning.hardware import Gpu, gpu_named, known_gpus
from genre_lightning.progress import answer

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from genre_lightning.planning.plan import Machine
    from genre_lightning.planning.report import PlanReport


def plan(arguments: Sequence[str]) -> int:
    """Run the command; returns its exit status: 2 if `fit` would refuse the configuration."""
    options, words = _parser().parse_known_args(list(arguments))
    gpu = gpu_named(options.gpu) if options.gpu else None
    # before the hub's client is loaded: what is not in its cache is known, estimated or asked for
    os.environ["HF_HUB_OFFLINE"] = "1"
    budget = _budget(options, words)
    report = _report(options, words, gpu)
    trials = None
    if budget is not None and report.time is not None and report.steps is not None:
        from genre_lightning.tuning.budget import trials_in

        trials = trials_in(budget, report.time.seconds, epochs=report.steps.epochs, workers=options.parallel)
    if options.json:
        print(json.dumps({**report.to_json(), **({"trials": asdict(trials)} if trials else {})}))
    else:
        from genre_lightning.planning.tables import print_plan

        print_plan(report, sys.stdout)
        for line in trials.lines() if trials else []:
            answer(line)
    return 2 if report.conflicts else 0


def _parser() -> CommandParser:
    parser = CommandParser(
        "plan",
        "Shows what a run will take, without a GPU and without its weights: parameters, memory of each GPU part by "
        "part, steps, time, and every conflict in the configuration. With --trainer.accelerator cpu the time is "
        "measured on this machine, in a few seconds of training with random weights. All other options are those of "
        "'genre-lightning fit', such as --config and --data.csv. Exit status 2 where fit would refuse the "
        "configuration.",
    )
    add = parser.add_argument
    add(
        "--devices",
        type=within(int, at_least(1, 10**6)),
        metavar="N",
        help="GPUs of each node (default: trainer.devices, else 1)",
    )
    add("--nodes", type=within(int, at_least(1, 10**6)), metavar="N", help="nodes (default: trainer.num_nodes, else 1)")
    gpus = ", ".join(known_gpus())
    add("--gpu", metavar="NAME", help=f"what each is, for whether it fits and how long it takes: {gpus}")
    add("--utilisation", type=within(float, Bounds(0, 1, open_below=True)), metavar="SHARE",
        help="of the GPU's dense peak that matmuls reach (default: 0.4, times 0.7 for 4-bit weights, times 0.8 for "
        "activation checkpointing)")  # fmt: skip
    add_space(parser, more=": report how many trials fit --budget")
    add("--budget", metavar="TIME", help="time of a study, as sbatch takes it, such as 8:00:00 (default: 24:00:00)")
    add("--parallel", type=within(int, at_least(1, 10**4)), default=1, metavar="N",
        help="workers of the study (default: 1)")  # fmt: skip
    add("--json", action="store_true", help="one JSON object")
    return parser


def _budget(options: argparse.Namespace, words: list[str]) -> float | None:
    """Return the seconds of a study; None if no space is given.

    Raises:
        ConfigError: The space or the time cannot be used.
    """
    if options.space is None:
        if options.budget:
            raise ConfigError("--budget is the time of a study: give its --space, or leave it out")
        return None
    from genre_lightning.distributed.batch import limit_seconds
    from genre_lightning.tuning.checks import check_space
    from genre_lightning.tuning.space import read_space

    check_space(read_space(options.space), words)
    try:
        seconds = limit_seconds(options.budget or "24:00:00")
    except ConfigError as error:
        raise ConfigError(str(error).replace("--time", "--budget")) from None
    if not seconds:
        raise ConfigError(f"--budget {options.budget}: give a time such as 8:00:00")
    return seconds


def _report(options: argparse.Namespace, words: list[str], gpu: Gpu | None) -> PlanReport:
    with continued_words(words) as given:
        config, parser, conflicts, checks = parse_with_checks("fit", given, default_run_dir(words), in_rounds=True)
    import_lightning()
    # these load torch, Lightning and the hub's client
    from genre_lightning.config.changes import check_same_training
    from genre_lightning.distributed.slurm import PlannedStep
    from genre_lightning.errors import CheckpointError, DataError, problems_of
    from genre_lightning.planning.plan import Plan
    from genre_lightning.training.setup import prepare_checks

    machine = _machine(options, config, gpu)
    step = PlannedStep(machine.nodes, machine.ranks, machine.kind)
    setup, of_setup, checks_of_setup = prepare_checks(config, parser, step)
    setup.model.shape_only = True

    def goes_on() -> None:
        unknown_here = ("trainer.precision",) if str(config.trainer.precision) == "auto" else ()
        check_same_training(setup.run, setup.config_text, override=config.override, without_effect=unknown_here)

    found = problems_of([*checks, *checks_of_setup, goes_on], (ConfigError, DataError, CheckpointError))
    return Plan(setup, machine, list(dict.fromkeys([*conflicts, *of_setup, *found]))).report


def _machine(options: argparse.Namespace, config: Namespace, gpu: Gpu | None) -> Machine:
    """Return what the run is planned for; takes the numbers of devices and nodes out of the configuration."""
    from genre_lightning.planning.plan import Machine

    trainer = config.trainer
    on_cpu = trainer.accelerator == "cpu"
    if on_cpu and gpu:
        raise ConfigError(f"trainer.accelerator is cpu, and --gpu {gpu.name} asks for GPUs: leave one of them out")
    if not on_cpu and trainer.accelerator not in ("auto", "gpu", "cuda"):
        raise ConfigError(f"trainer.accelerator is {trainer.accelerator}, and only CUDA and the CPU are planned for")
    listed = listed_devices(trainer.devices)
    devices = str(trainer.devices) if listed is None else str(len(listed))
    machine = Machine(
        # numbers that cannot be are among the conflicts
        nodes=options.nodes or max(1, trainer.num_nodes),
        devices=options.devices or (max(1, int(devices)) if devices.isdecimal() else 1),
        kind="cpu" if on_cpu else "cuda",
        gpu=gpu,
        utilisation=options.utilisation,
    )
    trainer.devices, trainer.num_nodes = "auto", 1
    return machine
