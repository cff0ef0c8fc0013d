"""The options of the commands that work with a run, and what can be told of them by themselves, without torch."""

from __future__ import annotations

import contextlib
import difflib
import inspect
import io
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace

from genre_lightning.bounds import SEED, BatchBounds, Bounds, at_least, bound_problems, check_number
from genre_lightning.callbacks.options import CheckpointOptions, EarlyStoppingOptions, WandbOptions
from genre_lightning.compat import importing_only
from genre_lightning.config.allowed import import_paths
from genre_lightning.data.options import DataOptions
from genre_lightning.data.templates import ColumnNames
from genre_lightning.distributed.trainers import is_all, step_problems
from genre_lightning.errors import ConfigError, one_line
from genre_lightning.evaluation.options import DecisionOptions
from genre_lightning.models.options import VALIDATION_METRICS, EncoderOptions
from genre_lightning.models.tfidf import BASELINES

T = TypeVar("T")
Precision = Literal[
    "auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true", "32", "bf16", "16", "64",
    32, 16, 64,
]  # fmt: skip


@dataclass
class TrainerOptions:
    """Lightning's Trainer with the defaults of this project.

    Its own signature can be had only with torch; here are the same names and defaults. What may be an object of
    Lightning's is left to Lightning's own parser.

    Attributes:
        precision: "auto" is fp16 on CUDA, bf16 on a CPU that has it, else 32 bits.
        max_epochs: how often each film is seen.
        gradient_clip_val: largest global norm of a step's gradient; null for no limit.
        log_every_n_steps: optimizer steps between two rows of the curves.
        num_sanity_val_steps: batches of validation before training; none are needed.
        enable_model_summary: list the model's parts before training.
        accelerator: "cpu", "gpu", "cuda", "mps", or "auto" for the fastest that is there.
        strategy: "ddp" copies the model to every rank, "fsdp" shards it; "auto" is ddp on several ranks.
        devices: how many of the accelerator's devices, a list of their numbers, or "auto".
        num_nodes: machines.
        logger: one of Lightning's loggers or a list of them, beside the run's own.
        callbacks: one of Lightning's callbacks or a list of them, beside the run's own.
        fast_dev_run: none here, as it saves nothing that could be evaluated: see data.max_films.
        min_epochs: that are trained whatever stops early.
        max_steps: optimizer steps after which training ends; -1 for no limit.
        min_steps: that are trained whatever stops early.
        max_time: after which training ends, as DD:HH:MM:SS.
        limit_train_batches: none here, as it would break the plan of the steps: see data.max_films.
        limit_val_batches: batches or fraction of each validation during training.
        limit_test_batches: none here, as an evaluation counts each film once: see data.max_films.
        limit_predict_batches: none here, as limit_test_batches.
        overfit_batches: none here, as limit_train_batches.
        val_check_interval: batches or share of an epoch between two validations.
        check_val_every_n_epoch: epochs between two validations.
        enable_checkpointing: whether Lightning may save checkpoints.
        enable_progress_bar: whether progress is shown.
        accumulate_grad_batches: none here, as it is planned from the data's options.
        gradient_clip_algorithm: "norm", the only one here: the norm is over all ranks.
        deterministic: use deterministic algorithms only; "warn" where there is none.
        benchmark: let cuDNN look for the fastest convolutions.
        inference_mode: evaluate under torch.inference_mode rather than torch.no_grad.
        use_distributed_sampler: none here, as the films are dealt to ranks already.
        profiler: "simple", "advanced", "pytorch" or one of Lightning's.
        detect_anomaly: look for the operation behind a NaN; slow.
        barebones: leave out whatever may cost time.
        plugins: of Lightning, for precision, clusters or checkpoints.
        sync_batchnorm: over ranks.
        reload_dataloaders_every_n_epochs: none here, as limit_train_batches.
        default_root_dir: of what Lightning writes; always the run directory.
        enable_autolog_hparams: log the module's own hyper-parameters.
        model_registry: name of a model in Lightning's registry.
    """

    precision: Precision = "auto"
    max_epochs: Annotated[int | None, at_least(1, also=(-1,))] = 3
    gradient_clip_val: Annotated[float | None, Bounds(0, 1e9)] = 1.0
    log_every_n_steps: Annotated[int, at_least(1)] = 10
    num_sanity_val_steps: Annotated[int, at_least(0, also=(-1,))] = 0
    enable_model_summary: bool = False
    accelerator: Any = "auto"
    strategy: Any = "auto"
    devices: list[int] | str | int = "auto"
    num_nodes: Annotated[int, at_least(1, 10**6)] = 1
    logger: Any = None
    callbacks: Any = None
    fast_dev_run: int | bool = False
    min_epochs: Annotated[int | None, at_least(0)] = None
    max_steps: Annotated[int, at_least(1, also=(-1,))] = -1
    min_steps: Annotated[int | None, at_least(0)] = None
    max_time: Any = None
    limit_train_batches: int | float | None = None
    limit_val_batches: Annotated[int | float | None, BatchBounds()] = None
    limit_test_batches: int | float | None = None
    limit_predict_batches: int | float | None = None
    overfit_batches: int | float = 0.0
    val_check_interval: Annotated[Any, BatchBounds()] = None
    check_val_every_n_epoch: Annotated[int | None, at_least(1)] = 1
    enable_checkpointing: bool | None = None
    enable_progress_bar: bool | None = None
    accumulate_grad_batches: int = 1
    gradient_clip_algorithm: str | None = None
    deterministic: bool | Literal["warn"] | None = None
    benchmark: bool | None = None
    inference_mode: bool = True
    use_distributed_sampler: bool = True
    profiler: Any = None
    detect_anomaly: bool = False
    barebones: bool = False
    plugins: Any = None
    sync_batchnorm: bool = False
    reload_dataloaders_every_n_epochs: int = 0
    default_root_dir: str | Path | None = None
    enable_autolog_hparams: bool = True
    model_registry: str | None = None


ABOUT = {
    "data inspect": "Prints the audit, the genres, the lengths in tokens and the splits of a movies file, named first.",
    "fit": "Trains a model, evaluates the best checkpoint on validation and test, and leaves a run directory.",
    "validate": "Evaluates the best checkpoint of a run on its validation split.",
    "test": "Evaluates the best checkpoint of a run on its test split.",
    "predict": "Tags every film of the file --data.csv with the best checkpoint of a run: predict RUN --data.csv FILE "
    "--out FILE. Each row stands in the table once and in its order; what cannot be tagged has a reason. Cut off, the "
    "same command goes on.",
}

MONITORS = tuple(f"val/{name}" for name in ("loss", *VALIDATION_METRICS))

FLAGS = {"--json": "true", "--override": "true", "--tensorboard": "true", "--raw_cells": "true", "--wandb": "{}"}
"""Options that may stand without a value, and the value that they then have."""


def add_run_options(parser: ArgumentParser) -> None:
    """Adds the options of every command that makes or opens a run."""
    parser.add_argument("--run_dir", type=Path | None, default=None, help="Directory of the run, made if needed.")
    parser.add_argument("--seed", type=int, default=0, help="Of new weights, dropout and the order of the films.")
    parser.add_argument(
        "--override", type=bool, default=False,
        help="Go on with a run although settings that change its training differ.",
    )  # fmt: skip
    parser.add_class_arguments(DecisionOptions, "decision")
    parser.add_argument("--json", type=bool, default=False, help="Print the results as JSON.")


def add_training_options(parser: ArgumentParser, command: str) -> None:
    """Adds the options of the commands that train a model or open one that was trained."""
    parser.add_class_arguments(CheckpointOptions, "checkpoint")
    parser.add_class_arguments(EarlyStoppingOptions, "early_stopping")
    parser.add_argument(
        "--wandb", type=WandbOptions | None, default=None,
        help="Keep curves and evaluation in Weights & Biases too, as configs/logger/wandb.yaml does.",
    )  # fmt: skip
    parser.add_argument(
        "--tensorboard", type=bool, default=False,
        help="Write curves and evaluation for TensorBoard too, into the run directory's folder tensorboard.",
    )  # fmt: skip
    if command == "predict":
        parser.add_argument(
            "--out", type=Path | None, default=None,
            help="The table to write: .parquet, .csv or .csv.gz; null is predictions.parquet in the run directory.",
        )  # fmt: skip
        parser.add_argument(
            "--raw_cells", type=bool, default=False,
            help="Leave texts in a CSV as they are. By default one that begins with =, +, -, @, a tab or a line break "
            "gets an apostrophe before it, as a spreadsheet program would compute it.",
        )  # fmt: skip


def baseline_parser(name: str) -> ArgumentParser:
    """The parser of the options of a baseline of this name."""
    kind = BASELINES[name]
    summary = (kind.__doc__ or "").splitlines()[0]
    parser = ArgumentParser(
        prog=f"genre-lightning baseline {name}",
        description=f"{summary} Options of data that are about tokens and steps have no effect here.",
        exit_on_error=False,
    )
    parser.add_argument("--config", "-c", action="config", help="A YAML file of these options; later ones overlay.")
    add_run_options(parser)
    parser.add_argument("--baseline", choices=[name], default=name, help="Says in config.yaml what the run is.")
    parser.add_class_arguments(DataOptions, "data")
    parser.add_class_arguments(kind, "model")
    return parser


def option_problems(config: Namespace) -> list[str]:
    """What is wrong with a run's options, apart from those of data and model and whatever the machine decides."""
    trainer, saving = config.trainer, config.checkpoint
    problems = check_number("seed", config.seed, SEED)
    for kind, options, section in (
        (TrainerOptions, trainer, "trainer"),
        (CheckpointOptions, saving, "checkpoint"),
        (EarlyStoppingOptions, config.early_stopping, "early_stopping"),
        (DecisionOptions, config.decision, "decision"),
    ):
        problems += bound_problems(kind, vars(options), section)
    problems += [*_devices_problems(trainer.devices), *_time_problems("max_time", trainer.max_time)]
    if not isinstance(trainer.val_check_interval, int | float):
        problems += _time_problems("val_check_interval", trainer.val_check_interval)
    problems += step_problems(vars(trainer))
    if trainer.max_epochs == -1 and trainer.max_steps == -1:
        problems.append("trainer.max_epochs and trainer.max_steps are both -1: set one of them to end the training")
    for name in ("limit_test_batches", "limit_predict_batches"):
        if not is_all(trainer[name]):
            problems.append(f"trainer.{name} would leave films without a prediction: use data.max_films instead")
    if saving.monitor not in MONITORS:
        problems.append(f"checkpoint.monitor is {saving.monitor}: choose one of {', '.join(MONITORS)}")
    return problems


def _devices_problems(devices: Any) -> list[str]:
    """List what is wrong with `trainer.devices` on any machine."""
    fix = 'give a number from 1, -1 for all, or a list of device numbers such as "0,1"'
    numbers = devices
    if isinstance(devices, str) and "," in devices:
        numbers = [part.strip() for part in devices.split(",") if part.strip()]
    if isinstance(numbers, list | tuple):
        named = [str(number) for number in numbers]
        right = named and all(number.isdecimal() for number in named) and len(set(named)) == len(named)
    else:
        right = str(numbers) in ("auto", "-1") or (str(numbers).isdecimal() and int(numbers) > 0)
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


_COLUMNS = "--data.columns."


def column_options(arguments: Sequence[str]) -> list[str]:
    """Give each `--data.columns.ROLE NAME` as JSON, as the parser would read a name such as "Unnamed: 0" as YAML."""
    words: list[str] = []
    rest = iter(arguments)
    for word in rest:
        name, equals, value = word.partition("=")
        role = name.removeprefix(_COLUMNS)
        if not name.startswith(_COLUMNS) or role not in _ROLES or not (equals or (value := next(rest, ""))):
            words.append(word)
            continue
        columns: Any = value
        if role == "genres" and value.startswith("["):
            with contextlib.suppress(yaml.YAMLError):
                columns = yaml.safe_load(value)
        words += ["--data.columns", json.dumps({role: columns})]
    return words


_ROLES = tuple(field.name for field in fields(ColumnNames))


def in_one_line(command: str, arguments: Sequence[str], parse: Callable[[list[str]], T]) -> T:
    """What `parse` makes of a command's arguments, its complaints as one line; it can import the allowed classes only.

    Raises:
        ConfigError: an unknown key, a wrong type, an impossible value.
    """
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors), importing_only(import_paths()):
            return parse(for_parser(column_options(arguments)))
    except ArgumentError as error:
        message = one_line(error).removeprefix("Parser key ")
        hint = _nearest(message)
        raise ConfigError(f"{message[:600]}: {hint}'genre-lightning {command} --help' lists the options") from None
    except SystemExit as leaving:
        if leaving.code in (0, None):
            raise
        raise ConfigError(one_line(errors.getvalue())[:600]) from None


def for_parser(arguments: Sequence[str]) -> list[str]:
    """Write arguments so that the parser takes them as they stand.

    Configuration files come first, so that an option wins over them wherever it stands, and flags get their value.
    """
    files: list[str] = []
    others: list[str] = []
    rest = list(arguments)
    while rest:
        argument = rest.pop(0)
        name, has_value, _ = argument.partition("=")
        if name in FLAGS and not has_value and not (name == "--wandb" and rest and not rest[0].startswith("--")):
            others.append(f"{name}={FLAGS[name]}")
        elif name in _CONFIG_NAMES:
            files += [argument, *([] if has_value else rest[:1])]
            rest = rest if has_value else rest[1:]
        elif name.startswith("-c"):  # -cFILE
            files.append(argument)
        else:
            others.append(argument)
    return files + others


_CONFIG_NAMES = ("-c", "--config", "--confi", "--conf")  # the parser takes beginnings that no other option has


def _nearest(message: str) -> str:
    """Name the option that an unknown one is most like, by its last part: --model.lr for --lr."""
    found = re.match(r"unrecognized arguments: --([\w.]+)", message, re.IGNORECASE)
    if found is None:
        return ""
    by_last = {name: f"--{group}.{name}" for group, kind in _GROUPS.items() for name in _parameters(kind)}
    given = found.group(1).rpartition(".")[2]
    near = [name for name in by_last if name == given] or [name for name in by_last if f"_{given}" in name]
    near = near or difflib.get_close_matches(given, by_last, n=1)
    return f"did you mean {by_last[near[0]]}? " if near else ""


_GROUPS: dict[str, type] = {
    "early_stopping": EarlyStoppingOptions, "checkpoint": CheckpointOptions, "decision": DecisionOptions,
    "wandb": WandbOptions, "trainer": TrainerOptions, "data": DataOptions, "model": EncoderOptions,
}  # fmt: skip
"""Where an option is looked for; of two with one name the later group's is meant."""


def _parameters(kind: type) -> list[str]:
    owners = [owner for owner in kind.__mro__ if "__init__" in vars(owner) and owner is not object]
    return [name for owner in owners for name in inspect.signature(owner).parameters]
