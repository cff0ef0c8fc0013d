"""The options of `fit`, `validate`, `test` and `predict`: Lightning's CLI over our trainer, data and models."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from jsonargparse import ArgumentError, ArgumentParser, Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from typing_extensions import override

from genre_lightning.callbacks.wandb_run import WandbOptions
from genre_lightning.commands.guard import check_arguments
from genre_lightning.data.datamodule import MovieDataModule
from genre_lightning.errors import ConfigError, one_line
from genre_lightning.evaluation.decisions import SHRINKAGE, Calibration
from genre_lightning.models.base import GenreClassifier
from genre_lightning.models.distilbert import DistilBertClassifier

__all__ = ["CheckpointOptions", "DistilBertClassifier", "EarlyStoppingOptions", "GenreTrainer", "parse"]

T = TypeVar("T")
Precision = Literal[
    "auto", "32-true", "bf16-mixed", "16-mixed", "bf16-true", "16-true", "64-true", "32", "bf16", "16", "64",
    32, 16, 64,
]  # fmt: skip


class GenreTrainer(Trainer):
    """Lightning's Trainer with the defaults of this project.

    Args:
        precision: "auto" is fp16 on CUDA, bf16 on a CPU that has it, else 32 bits.
        max_epochs: how often each film is seen.
        gradient_clip_val: largest global norm of a step's gradient; null for no limit.
        log_every_n_steps: optimizer steps between two rows of the curves.
        num_sanity_val_steps: batches of validation before training; none are needed.
        enable_model_summary: list the model's parts before training.
        kwargs: Lightning's own options.
    """

    def __init__(
        self,
        precision: Precision = "auto",
        max_epochs: int | None = 3,
        gradient_clip_val: float | None = 1.0,
        log_every_n_steps: int = 10,
        num_sanity_val_steps: int = 0,
        enable_model_summary: bool = False,
        **kwargs: Any,
    ) -> None:
        # the sampler already deals films to ranks: Lightning's would deal them again
        kwargs["use_distributed_sampler"] = False
        super().__init__(
            precision=precision,  # type: ignore[arg-type]  # "auto" was resolved before
            max_epochs=max_epochs,
            gradient_clip_val=gradient_clip_val,
            log_every_n_steps=log_every_n_steps,
            num_sanity_val_steps=num_sanity_val_steps,
            enable_model_summary=enable_model_summary,
            **kwargs,
        )


@dataclass
class CheckpointOptions:
    """When checkpoints are written.

    Attributes:
        monitor: metric of a validation that says which checkpoint is best.
        every_minutes: minutes between two saves within an epoch; null saves at its end only.
        every_steps: optimizer steps between two saves within an epoch; null for no such rhythm.
        keep_last: how many of the last checkpoints are kept; more than one for the case that the newest is damaged on
            disk.
        sharded: under strategy fsdp, every rank writes its own shards into a directory, in place of one file that the
            first rank gathers: for models that one host's memory does not hold. Other strategies write one file.
        on_failure: a save that fails (disk full, no permission) can "stop" the run, or "warn" and go on.
    """

    monitor: str = "val/f1_micro_tuned"
    every_minutes: float | None = 10.0
    every_steps: int | None = None
    keep_last: int = 2
    sharded: bool = False
    on_failure: Literal["stop", "warn"] = "stop"


@dataclass
class EarlyStoppingOptions:
    """When training ends before its last epoch.

    Attributes:
        patience: validations without a better `checkpoint.monitor` after which training stops; 0 never stops early.
        min_delta: how much better counts as better.
    """

    patience: int = 0
    min_delta: float = 0.0


@dataclass
class DecisionOptions:
    """How probabilities and thresholds are fitted on validation, once the model is trained.

    A run keeps its decision: without its decision.json, `validate` fits it again.

    Attributes:
        calibration: one "temperature", "platt" scaling for each genre, "none", or "auto" for the one of the first two
            with the better cross-validated likelihood on validation.
        shrinkage: pull of a genre's threshold to the global one, in positives of the genre.
    """

    calibration: Calibration = "auto"
    shrinkage: float = SHRINKAGE


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


class _Parser(LightningCLI):
    """Parses; `genre_lightning.commands` builds and runs."""

    def __init__(self, command: str, arguments: Sequence[str]) -> None:
        self.command = command
        self.arguments = list(arguments)
        super().__init__(
            GenreClassifier,
            MovieDataModule,
            save_config_callback=None,
            trainer_class=GenreTrainer,
            seed_everything_default=False,
            parser_kwargs={
                "prog": f"genre-lightning {command}",
                "exit_on_error": False,
                "description": _ABOUT[command],
            },
            subclass_mode_model=True,
            args=self.arguments,
            run=False,
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
        )

    @override
    def add_default_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add_run_options(parser)

    @override
    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
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
        if self.command == "predict":
            parser.add_argument(
                "--out", type=Path | None, default=None,
                help="The table to write: .parquet, .csv or .csv.gz; null is predictions.parquet in the run directory.",
            )  # fmt: skip
        parser.set_defaults({"model": {"class_path": "genre_lightning.models.distilbert.DistilBertClassifier"}})

    @override
    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        self.config = parser.parse_args(args)

    @override
    def _set_seed(self) -> None:
        """Seeds are drawn from `seed` where random numbers are needed, not set for the process."""

    @override
    def instantiate_classes(self) -> None:
        """Done by the command, once the configuration has been checked as a whole."""


_ABOUT = {
    "fit": "Trains a model, evaluates the best checkpoint on validation and test, and leaves a run directory.",
    "validate": "Evaluates the best checkpoint of a run on its validation split.",
    "test": "Evaluates the best checkpoint of a run on its test split.",
    "predict": "Tags every film of the file --data.csv with the best checkpoint of a run: predict RUN --data.csv FILE "
    "--out FILE. Each row stands in the table once and in its order; what cannot be tagged has a reason. Cut off, the "
    "same command goes on.",
}

_FLAGS = ("--json", "--override", "--tensorboard")


def parse(command: str, arguments: Sequence[str]) -> tuple[Namespace, _Parser]:
    """The configuration of a command.

    Args:
        command: "fit", "validate", "test" or "predict".
        arguments: what stands after it on the command line.

    Returns:
        the configuration, and the parser that can dump and instantiate it.

    Raises:
        ConfigError: an unknown key, a wrong type, an impossible value.
    """
    parsed = in_one_line(command, arguments, lambda words: _Parser(command, words))
    return parsed.config, parsed


def in_one_line(command: str, arguments: Sequence[str], parse: Callable[[list[str]], T]) -> T:
    """Checks a command's arguments and gives what `parse` makes of them, its complaints as one line.

    Raises:
        ConfigError: an unknown key, a wrong type, an impossible value.
    """
    check_arguments(arguments)
    words = [f"{word}=true" if word in _FLAGS else word for word in arguments]
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
