"""The options of `fit`, `validate`, `test` and `predict`: Lightning's CLI over our trainer, data and models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jsonargparse import Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from typing_extensions import override

from genre_lightning.config.arguments import ABOUT, add_run_options, add_training_options, in_one_line
from genre_lightning.config.guard import check_arguments
from genre_lightning.config.model import OPTIONS
from genre_lightning.config.trainer import Precision
from genre_lightning.data.datamodule import MovieDataModule
from genre_lightning.models.base import GenreClassifier
from genre_lightning.models.distilbert import DistilBertClassifier

__all__ = ["DistilBertClassifier", "GenreTrainer", "parse"]


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
                "description": ABOUT[command],
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
        add_training_options(parser, self.command)
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
    check_arguments(arguments)
    parsed = in_one_line(command, arguments, lambda words: _Parser(command, words))
    # one name for each class, or a run would seem to be of another model
    names = {f"genre_lightning.{path.rpartition('.')[2]}": path for path in OPTIONS}
    parsed.config.model.class_path = names.get(parsed.config.model.class_path, parsed.config.model.class_path)
    return parsed.config, parsed
