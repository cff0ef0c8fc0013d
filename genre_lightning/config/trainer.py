"""The options of the trainer and of a run, and what is wrong with them on any machine."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, get_args

from jsonargparse import Namespace

from genre_lightning.bounds import SEED, BatchBounds, Bounds, at_least, bound_problems, check_number
from genre_lightning.config.classifier import VALIDATION_METRICS
from genre_lightning.config.decision import DecisionOptions
from genre_lightning.config.effects import UNCHANGED
from genre_lightning.config.run import CheckpointOptions, EarlyStoppingOptions, PretrainOptions
from genre_lightning.config.stand_ins import DEFAULT_MODEL, class_path

Precision = Literal[
    "auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true", "32", "bf16", "16", "64",
    32, 16, 64,
]  # fmt: skip

PRECISIONS: tuple[str, ...] = tuple(name for name in get_args(Precision) if isinstance(name, str))
"""Names of precisions, such as an option of a command takes."""

Empty = list[NoneType]  # type: ignore[nonetype-type]  # the parser takes list[None] for a list of anything


@dataclass
class TrainerOptions:
    """Lightning's Trainer with the defaults of this project.

    Its own signature can be had only with torch; here are the same names and types. Those in `OBJECTS` have Lightning's
    types instead if an object is named.

    Attributes:
        precision: "auto" is fp16 on CUDA, bf16 on a CPU that has it, else 32 bits.
        max_epochs: How often each film is seen; null or -1 if max_steps alone limits the training.
        gradient_clip_val: Largest global norm of a step's gradient; null for no limit.
        log_every_n_steps: Optimizer steps between two rows of the curves.
        num_sanity_val_steps: Batches of validation before training; none are needed.
        enable_model_summary: List the model's parts before training.
        accelerator: "cpu", "gpu", "cuda", "mps", or "auto" for the fastest that is there.
        strategy: "ddp" copies the model to every rank, "fsdp" shards it; "auto" is ddp on several ranks.
        devices: How many of the accelerator's devices, a list of their numbers, or "auto".
        num_nodes: Machines.
        logger: One of Lightning's loggers or a list of them, beside the run's own.
        callbacks: One of Lightning's callbacks or a list of them, beside the run's own.
        fast_dev_run: Refused, as it saves nothing that could be evaluated: see data.max_films.
        min_epochs: Number of epochs that are trained whatever stops early.
        max_steps: Optimizer steps after which training ends; -1 for no limit.
        min_steps: Number of steps that are trained whatever stops early.
        max_time: Time after which training ends and the run is finished, as DD:HH:MM:SS. A run that a
            signal has stopped can be resumed.
        limit_train_batches: Refused, as it would break the plan of the steps: see data.max_films.
        limit_val_batches: Batches or fraction of each validation during training.
        limit_test_batches: Refused, as an evaluation counts each film once: see data.max_films.
        limit_predict_batches: Refused, as limit_test_batches.
        overfit_batches: Refused, as limit_train_batches.
        val_check_interval: Optimizer steps or fraction of an epoch between two validations.
        check_val_every_n_epoch: Epochs between two validations.
        enable_checkpointing: Must not be false, as a run is resumed and evaluated from its checkpoints.
        enable_progress_bar: Whether progress is shown.
        accumulate_grad_batches: Refused, as it is planned from the data's options.
        gradient_clip_algorithm: "norm", the only one here: the norm is over all ranks.
        deterministic: Use deterministic algorithms only; "warn" if there is none.
        benchmark: Let cuDNN look for the fastest convolutions.
        inference_mode: Evaluate under torch.inference_mode rather than torch.no_grad.
        use_distributed_sampler: Refused, as the sampler gives each rank its films already.
        profiler: "simple", "advanced", "pytorch" or one of Lightning's.
        detect_anomaly: Look for the operation behind a NaN; slow.
        barebones: Refused, as it would leave out curves and checkpoints.
        plugins: Lightning's plugins for precision, clusters or checkpoints.
        sync_batchnorm: Synchronise batch norms over ranks.
        reload_dataloaders_every_n_epochs: Refused, as limit_train_batches.
        default_root_dir: Folder of what Lightning writes; always the run directory.
        enable_autolog_hparams: Log the module's own hyper-parameters.
        model_registry: Name of a model in Lightning's registry.
    """

    precision: Precision = "auto"
    max_epochs: Annotated[int | None, at_least(1, also=(-1,))] = 3
    gradient_clip_val: Annotated[float | None, Bounds(0, 1e9)] = 1.0
    log_every_n_steps: Annotated[int, at_least(1), UNCHANGED] = 10
    num_sanity_val_steps: Annotated[int, at_least(0, also=(-1,)), UNCHANGED] = 0
    enable_model_summary: Annotated[bool, UNCHANGED] = False
    accelerator: Annotated[str, UNCHANGED] = "auto"
    strategy: Annotated[str, UNCHANGED] = "auto"
    devices: Annotated[list[int] | str | int, UNCHANGED] = "auto"
    num_nodes: Annotated[int, at_least(1, 10**6), UNCHANGED] = 1
    logger: Annotated[bool | Empty | None, UNCHANGED] = None
    callbacks: Annotated[Empty | None, UNCHANGED] = None
    fast_dev_run: int | bool = False
    min_epochs: Annotated[int | None, at_least(0)] = None
    max_steps: Annotated[int, at_least(1, also=(-1,))] = -1
    min_steps: Annotated[int | None, at_least(0)] = None
    max_time: Annotated[str | timedelta | dict[str, int] | None, UNCHANGED] = None
    limit_train_batches: int | float | None = None
    limit_val_batches: Annotated[int | float | None, BatchBounds()] = None
    limit_test_batches: int | float | None = None
    limit_predict_batches: int | float | None = None
    overfit_batches: int | float = 0.0
    val_check_interval: Annotated[
        int | float | str | timedelta | dict[str, int] | None, BatchBounds(of="optimizer steps")
    ] = None
    check_val_every_n_epoch: Annotated[int | None, at_least(1)] = 1
    enable_checkpointing: Annotated[bool | None, UNCHANGED] = None
    enable_progress_bar: Annotated[bool | None, UNCHANGED] = None
    accumulate_grad_batches: int = 1
    gradient_clip_algorithm: str | None = None
    deterministic: bool | Literal["warn"] | None = None
    benchmark: Annotated[bool | None, UNCHANGED] = None
    inference_mode: bool = True
    use_distributed_sampler: bool = True
    profiler: Annotated[str | None, UNCHANGED] = None
    detect_anomaly: Annotated[bool, UNCHANGED] = False
    barebones: bool = False
    plugins: Annotated[Empty | None, UNCHANGED] = None
    sync_batchnorm: bool = False
    reload_dataloaders_every_n_epochs: int = 0
    default_root_dir: Annotated[str | Path | None, UNCHANGED] = None
    enable_autolog_hparams: bool = True
    model_registry: str | None = None


OBJECTS = ("accelerator", "strategy", "logger", "callbacks", "profiler", "plugins")
"""Options of the trainer that may be objects of Lightning's."""

_PROFILERS = ("simple", "advanced", "pytorch")
MONITORS = tuple(f"val/{name}" for name in ("loss", *VALIDATION_METRICS))


def option_problems(config: Namespace) -> list[str]:
    """Return the problems of a run's options, apart from those of data and model and what the machine decides."""
    trainer, saving = config.trainer, config.checkpoint
    problems = check_number("seed", config.seed, SEED)
    for kind, options, section in (
        (TrainerOptions, trainer, "trainer"),
        (CheckpointOptions, saving, "checkpoint"),
        (EarlyStoppingOptions, config.early_stopping, "early_stopping"),
        (DecisionOptions, config.decision, "decision"),
    ):
        problems += bound_problems(kind, vars(options), section)
    problems += [*devices_problems(trainer.devices), *_time_problems("max_time", trainer.max_time)]
    if not isinstance(trainer.val_check_interval, int | float):
        problems += _time_problems("val_check_interval", trainer.val_check_interval)
    problems += step_problems(vars(trainer))
    for name in ("limit_test_batches", "limit_predict_batches"):
        if not is_all(trainer[name]):
            problems.append(f"trainer.{name} would leave films without a prediction: use data.max_films instead")
    if trainer.enable_checkpointing is False:
        problems.append(
            "trainer.enable_checkpointing is false, and runs are resumed and evaluated from checkpoints: leave it out"
        )
    if trainer.barebones:
        problems.append("trainer.barebones would leave out the run's curves and checkpoints: leave it out")
    if isinstance(trainer.profiler, str) and trainer.profiler not in _PROFILERS:
        problems.append(f"trainer.profiler is {trainer.profiler}: choose one of {', '.join(_PROFILERS)}")
    if saving.monitor not in MONITORS:
        problems.append(f"checkpoint.monitor is {saving.monitor}: choose one of {', '.join(MONITORS)}")
    return problems


def length_problems(trainer: Namespace) -> list[str]:
    """Return the problem of a training that has no end; for Lightning null would be 1,000 epochs."""
    if trainer.max_epochs in (None, -1) and trainer.max_steps == -1:
        return ["neither trainer.max_epochs nor trainer.max_steps limits the training: set one of them"]
    return []


def pretraining_problems(config: Namespace) -> list[str]:
    """Return the problems of a pretraining's options, beside those of every run."""
    problems = bound_problems(PretrainOptions, vars(config.pretrain), "pretrain")
    if class_path(config.model.class_path) != DEFAULT_MODEL:
        problems.append(
            f"--model is {config.model.class_path}, and pretrain trains an encoder that predicts hidden words: leave "
            "--model out"
        )
    for name in ("continue_from", "feedback", "labels"):
        if config[name] is not None:
            problems.append(f"--{name} is for genre-lightning fit, and a pretraining learns no genres: leave it out")
    if (config.model.get("init_args") or {}).get("teacher"):
        problems.append("model.teacher is for genre-lightning fit, and a pretraining learns no genres: leave it out")
    return problems


def listed_devices(devices: Any) -> list[str] | None:
    """Return the numbers of the devices that `trainer.devices` lists; None if it gives how many."""
    if isinstance(devices, str) and "," in devices:
        return [part.strip() for part in devices.split(",") if part.strip()]
    return [str(number) for number in devices] if isinstance(devices, list | tuple) else None


def is_on_one_device(trainer: Any) -> bool:
    """Return whether the trainer's options leave a training on one device of this machine."""
    return str(trainer.devices) in ("auto", "1") and trainer.num_nodes == 1


def devices_problems(devices: Any) -> list[str]:
    """List what is wrong with `trainer.devices` on any machine."""
    fix = 'give a number from 1, -1 for all, or a list of device numbers such as "0,1"'
    listed = listed_devices(devices)
    if listed is not None:
        right = listed and all(number.isdecimal() for number in listed) and len(set(listed)) == len(listed)
    else:
        right = str(devices) in ("auto", "-1") or (str(devices).isdecimal() and int(devices) > 0)
    return [] if right else [f"trainer.devices is {devices}: {fix}"]


def _time_problems(option: str, value: Any) -> list[str]:
    """List what is wrong with a duration as Lightning takes it."""
    if isinstance(value, Mapping):  # such as {hours: 8}
        units = ("weeks", "days", "hours", "minutes", "seconds")
        right = set(value) <= set(units) and all(
            isinstance(number, int | float) and 0 <= number <= 1e6 for number in value.values()
        )
        right = right and any(value.values())
    else:
        right = value is None or re.fullmatch(r"(?=.*[1-9])\d{1,6}:\d\d:\d\d:\d\d", str(value).strip()) is not None
    return [] if right else [f"trainer.{option} is {value}: give it as days:hours:minutes:seconds, such as 00:08:00:00"]


def step_problems(trainer: Mapping[str, Any]) -> list[str]:
    """List what options of a trainer, by name, would break the plan of the steps."""
    problems = []
    if trainer["accumulate_grad_batches"] != 1:
        problems.append(
            "trainer.accumulate_grad_batches is planned from data.global_batch_size and data.micro_batch_tokens: "
            "leave it out and set those"
        )
    for name in ("limit_train_batches", "overfit_batches", "reload_dataloaders_every_n_epochs"):
        if not (is_all(trainer[name]) if name.startswith("limit") else trainer[name] == 0):
            problems.append(f"trainer.{name} would break the plan of the steps: use data.max_films for a quick try")
    if trainer["fast_dev_run"] is not False:
        problems.append("trainer.fast_dev_run saves nothing that could be evaluated: use data.max_films instead")
    if trainer["gradient_clip_algorithm"] not in (None, "norm"):
        problems.append(
            f"trainer.gradient_clip_algorithm is {trainer['gradient_clip_algorithm']}, and gradients are clipped by "
            "their norm over all ranks: leave it out"
        )
    return problems


def is_all(limit: float | None) -> bool:
    """Return whether a limit on batches is none: 1.0 is all of them, and 1 a single one."""
    return limit is None or (isinstance(limit, float) and limit == 1)
