"""The options of the commands that work with a run, and what can be told of them by themselves, without torch."""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, TypeVar

import yaml
from jsonargparse import ArgumentError, ArgumentParser, Namespace, get_loader, set_loader

from genre_lightning.callbacks.options import CheckpointOptions, EarlyStoppingOptions, WandbOptions
from genre_lightning.data.options import DataOptions
from genre_lightning.data.templates import ColumnNames
from genre_lightning.errors import ConfigError, one_line
from genre_lightning.evaluation.options import DecisionOptions
from genre_lightning.models.options import VALIDATION_METRICS
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
        fast_dev_run: so many batches of training and validation only, to see whether they run.
        min_epochs: that are trained whatever stops early.
        max_steps: optimizer steps after which training ends; -1 for no limit.
        min_steps: that are trained whatever stops early.
        max_time: after which training ends, as DD:HH:MM:SS.
        limit_train_batches: none here, as it would break the plan of the steps: see data.max_films.
        limit_val_batches: batches or share of each validation.
        limit_test_batches: batches or share of the test.
        limit_predict_batches: batches or share of a prediction.
        overfit_batches: none here, as limit_train_batches.
        val_check_interval: batches or share of an epoch between two validations.
        check_val_every_n_epoch: epochs between two validations.
        enable_checkpointing: whether Lightning may save checkpoints.
        enable_progress_bar: whether progress is shown.
        accumulate_grad_batches: none here, as it is planned from the data's options.
        gradient_clip_algorithm: "norm" or "value".
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
    max_epochs: int | None = 3
    gradient_clip_val: float | None = 1.0
    log_every_n_steps: int = 10
    num_sanity_val_steps: int = 0
    enable_model_summary: bool = False
    accelerator: Any = "auto"
    strategy: Any = "auto"
    devices: list[int] | str | int = "auto"
    num_nodes: int = 1
    logger: Any = None
    callbacks: Any = None
    fast_dev_run: int | bool = False
    min_epochs: int | None = None
    max_steps: int = -1
    min_steps: int | None = None
    max_time: Any = None
    limit_train_batches: int | float | None = None
    limit_val_batches: int | float | None = None
    limit_test_batches: int | float | None = None
    limit_predict_batches: int | float | None = None
    overfit_batches: int | float = 0.0
    val_check_interval: Any = None
    check_val_every_n_epoch: int | None = 1
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

FLAGS = ("--json", "--override", "--tensorboard")
"""Options that may stand without a value, for true."""


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


def baseline_parser(name: str, data: type[DataOptions]) -> ArgumentParser:
    """The parser of a baseline's options.

    Args:
        name: of the baseline.
        data: class that the options of the data are for.
    """
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
    parser.add_class_arguments(data, "data")
    parser.add_class_arguments(kind, "model")
    return parser


def option_problems(config: Namespace) -> list[str]:
    """What is wrong with a run's options, apart from those of data and model and whatever the machine decides."""
    problems, trainer = [], config.trainer
    if trainer.accumulate_grad_batches != 1:
        problems.append(
            "trainer.accumulate_grad_batches is planned from data.global_batch_size and data.micro_batch_tokens: "
            "leave it out and set those"
        )
    if trainer.max_epochs is not None and trainer.max_epochs < 1 and trainer.max_steps < 1:
        problems.append(f"trainer.max_epochs is {trainer.max_epochs}: say how long to train, such as 3")
    for name in ("limit_train_batches", "overfit_batches", "reload_dataloaders_every_n_epochs"):
        if trainer[name] not in (None, 0, 0.0, 1.0):
            problems.append(f"trainer.{name} would break the plan of the steps: use data.max_films for a quick try")
    if trainer.log_every_n_steps < 1:
        problems.append(f"trainer.log_every_n_steps is {trainer.log_every_n_steps}: give 1 or more")
    if config.checkpoint.monitor not in MONITORS:
        problems.append(f"checkpoint.monitor is {config.checkpoint.monitor}: choose one of {', '.join(MONITORS)}")
    if config.checkpoint.keep_last < 1:
        problems.append(f"checkpoint.keep_last is {config.checkpoint.keep_last}: give 1 or more")
    if config.seed < 0:
        problems.append(f"seed is {config.seed}: give a whole number from 0 on")
    if config.early_stopping.patience < 0:
        problems.append(f"early_stopping.patience is {config.early_stopping.patience}: give 0 or more")
    return problems


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


def _load_value(text: str) -> Any:
    """Load YAML; a value such as "#" or "~" alone, which YAML takes for nothing, is text: null is written null."""
    value = _load_yaml(text)
    return text if value is None and "\n" not in text and text.strip() not in ("", "null") else value


_load_yaml = get_loader("yaml")
set_loader("yaml", _load_value, exceptions=(yaml.YAMLError,))


def in_one_line(command: str, arguments: Sequence[str], parse: Callable[[list[str]], T]) -> T:
    """What `parse` makes of a command's arguments, its complaints as one line.

    Raises:
        ConfigError: an unknown key, a wrong type, an impossible value.
    """
    words = [f"{word}=true" if word in FLAGS else word for word in column_options(arguments)]
    errors = io.StringIO()
    try:
        with contextlib.redirect_stderr(errors):
            return parse(words)
    except ArgumentError as error:
        message = one_line(error).removeprefix("Parser key ")
        raise ConfigError(f"{message[:600]}: 'genre-lightning {command} --help' lists the options") from None
    except SystemExit as leaving:
        if leaving.code in (0, None):
            raise
        raise ConfigError(one_line(errors.getvalue())[:600]) from None
