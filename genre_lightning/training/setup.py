"""From a checked configuration to data, model and trainer: one visible line for each."""

from __future__ import annotations

import logging
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from jsonargparse import ArgumentParser, Namespace
from lightning.pytorch import Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment

from genre_lightning.config.changes import training_digest
from genre_lightning.config.constructors import values
from genre_lightning.config.continuation import ContinueOptions
from genre_lightning.config.data import make_paths_absolute
from genre_lightning.config.guard import instantiate
from genre_lightning.config.run import PretrainOptions
from genre_lightning.config.trainer import option_problems
from genre_lightning.data.datamodule import MovieDataModule
from genre_lightning.data.movies import check_data
from genre_lightning.data.prepare import PreparedData
from genre_lightning.data.pretraining import TextDataModule
from genre_lightning.data.tokenizers import TRAINED, load_tokenizer
from genre_lightning.distributed.checkpoint.io import AtomicCheckpointIO
from genre_lightning.distributed.launch import torchrun_ranks
from genre_lightning.distributed.precision import accelerator_of, resolve_precision
from genre_lightning.distributed.preemption import StopAgreement, StopWithoutSaving, replace_signal_handling
from genre_lightning.distributed.ranks import tell
from genre_lightning.distributed.slurm import (
    PlannedStep,
    current_step,
    job_id,
    planned_accelerator,
    shape_problems,
)
from genre_lightning.distributed.strategies import (
    device_problems,
    is_sharded,
    make_strategy,
    rank_count,
)
from genre_lightning.errors import ConfigError, check_all
from genre_lightning.lineage import Lineage
from genre_lightning.metrics import better_is_higher
from genre_lightning.models.base import GenreClassifier
from genre_lightning.models.layers.fusion import no_inputs
from genre_lightning.models.masked_language import MaskedLanguageModel
from genre_lightning.runs import PRETRAINING, RunDirectory
from genre_lightning.training.callbacks.checkpoints import RunCheckpoint
from genre_lightning.training.callbacks.early_stopping import PatientStopping
from genre_lightning.training.callbacks.last_validation import LastValidation
from genre_lightning.training.callbacks.progress import progress_bar
from genre_lightning.training.callbacks.starts import NoteStart
from genre_lightning.training.callbacks.throughput import Throughput
from genre_lightning.training.loggers.build import check_loggers, make_loggers
from genre_lightning.training.loggers.wandb_run import WandbOptions
from genre_lightning.training.teacher import check_teachers, is_taught, teachers_of

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass
class Setup:
    """What a command works with once its configuration has been checked; nothing large is loaded yet."""

    config: Namespace
    config_text: str
    run: RunDirectory
    data: MovieDataModule
    model: GenreClassifier
    trainer_options: dict[str, Any]
    """Of the trainer, with the loggers, callbacks and plugins that were named built."""
    wandb: WandbOptions | None = None
    continuation: ContinueOptions = field(default_factory=ContinueOptions)
    lineage: Lineage | None = None
    """Of a run that continues from another; known once that is opened."""


def check_setup(
    config: Namespace, parser: ArgumentParser, planned: PlannedStep | None = None, *, films: bool = True
) -> Setup:
    """Check a configuration as a whole; every problem found is named at once.

    Args:
        config: Parsed.
        parser: Parser that parsed it.
        planned: What the run will be done on, if that is not this process and machine.
        films: Whether its films are needed; else a trained model is used from its checkpoint alone.

    Raises:
        ConfigError, DataError: Nothing has been written, and no model loaded.
    """
    setup, problems, checks = prepare_checks(config, parser, planned, films=films)
    check_all(checks, problems)
    return setup


def prepare_checks(
    config: Namespace, parser: ArgumentParser, planned: PlannedStep | None = None, *, films: bool = True
) -> tuple[Setup, list[str], list[Callable[[], None]]]:
    """Return what `check_setup` looks at, for commands that continue in spite of problems; see there.

    Returns:
        The setup, the problems that are known already, and the checks that find the others.
    """
    # which devices Lightning found and what it loads is reported in our own lines; its warnings still show
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    config = config.clone()
    make_paths_absolute(config.data)
    if config.continue_from is not None:
        config.continue_from = Path(config.continue_from).expanduser().absolute()
    if (arguments := config.model.get("init_args")) and arguments.get("teacher"):
        paths = [str(Path(name).expanduser().absolute()) for name in teachers_of(arguments.teacher)]
        arguments.teacher = paths if isinstance(arguments.teacher, list) else paths[0]
    run = RunDirectory(Path(config.run_dir).expanduser().absolute())
    problems = _trainer_problems(config, planned)
    step, ranks = current_step(), torchrun_ranks()
    if tasks := planned or step:
        problems += shape_problems(config.trainer.devices, config.trainer.num_nodes, tasks)
    elif not ranks and not problems:
        problems += _machine_problems(config)
    text = parser.dump(config, skip_none=False)
    instances = instantiate(parser, config, run.path)
    model, data = _model_and_data(instances)
    model.take_seed(config.seed)
    model.runs_on(str(config.trainer.accelerator), str(config.trainer.precision))
    if run.tokenizer.is_dir():
        data.use_tokenizer(str(run.tokenizer))
    data.connect(model)

    def strategy_fits() -> None:
        model.check_trainer(instances.trainer["strategy"])

    def loggers_are_there() -> None:
        uses_wandb = config.wandb is not None or "WandbLogger" in str(config.trainer.logger)
        check_loggers(wandb=uses_wandb, tensorboard=config.tensorboard)

    def model_fits() -> None:
        if data.options.source.inputs and not model.takes_inputs:
            raise ConfigError(no_inputs(type(model).__name__))
        model.check(data.options.max_tokens)
        if films and data.tokenizer_name not in (None, TRAINED):
            _check_tokenizer(data, model)
        elif films and data.tokenizer_name == TRAINED and model.tokenizer_source and not model.shape_only:
            tell(
                f"data.tokenizer {TRAINED} trains a vocabulary that {model.tokenizer_source} was not trained with, so "
                "that the backbone reads other words: leave data.tokenizer out to use its own"
            )

    def teacher_is_there() -> None:
        if not is_taught(run):
            continues = config.continue_from is not None
            check_teachers(model.options, instances["continue"], trains=model.trains, continues=continues)

    checks: list[Callable[[], None]] = [strategy_fits]
    # a whole model lies in its checkpoint, adapters need their base too
    if films or model.adapters:
        checks.append(model_fits)
    if films:
        checks += [lambda: check_data(data.options), loggers_are_there, run.check_writable, teacher_is_there]
    options = instances.trainer.as_dict()
    # not in the configuration that is kept: the run may be evaluated anywhere
    if step:
        options |= {"devices": step.tasks_per_node, "num_nodes": step.nodes}
    elif ranks:
        options |= {"devices": ranks.devices, "num_nodes": ranks.nodes}
    setup = Setup(config, text, run, data, model, options, instances.wandb, instances["continue"])
    return setup, problems, checks


def _model_and_data(instances: Namespace) -> tuple[GenreClassifier, MovieDataModule]:
    data = MovieDataModule(**values(instances.data))
    if PRETRAINING not in instances:
        return instances.model, data
    pretrain: PretrainOptions = instances[PRETRAINING]
    model = MaskedLanguageModel(instances.model.options, pretrain.mask_fraction)
    return model, TextDataModule(data.options, unlabelled=pretrain.unlabelled)


def _trainer_problems(config: Namespace, planned: PlannedStep | None) -> list[str]:
    """Resolve accelerator and precision in place, and list what is wrong with the trainer's options."""
    problems = []
    trainer = config.trainer
    try:
        if planned:
            trainer.accelerator = planned_accelerator(trainer.accelerator, planned)
        else:
            trainer.accelerator = accelerator_of(trainer.accelerator)
        trainer.precision, reason = resolve_precision(trainer.precision, trainer.accelerator, here=planned is None)
        if planned is None:
            tell(f"precision {trainer.precision}: {reason}")
    except ConfigError as error:
        problems.append(str(error))
    problems += option_problems(config)
    return problems


def _machine_problems(config: Namespace) -> list[str]:
    """List what the options ask of this machine alone, if no launcher reports the devices."""
    trainer = config.trainer
    problems = device_problems(trainer.devices, trainer.accelerator)
    if trainer.num_nodes > 1:
        problems.append(
            f"trainer.num_nodes is {trainer.num_nodes}, and neither torchrun nor srun has started this process: "
            "start it by one of them on every machine, or leave trainer.num_nodes out"
        )
    if config.data.num_workers and sys.platform == "linux" and not os.access("/dev/shm", os.W_OK):
        problems.append(
            f"data.num_workers is {config.data.num_workers}, and this machine has no /dev/shm over which worker "
            "processes could hand on batches: set data.num_workers=0"
        )
    return problems


def _check_tokenizer(data: MovieDataModule, model: GenreClassifier) -> None:
    """Refuse a tokenizer that the model cannot read the tokens of, and report one that is not the model's own.

    Raises:
        ConfigError: With the option and the fix.
    """
    assert data.tokenizer_name is not None
    try:
        tokenizer = load_tokenizer(data.tokenizer_name, data.revision)
    except ConfigError:
        if model.shape_only:
            return  # a plan estimates lengths without it, and reports a local directory that has none
        raise
    model.check_tokenizer(tokenizer)
    source = model.tokenizer_source
    if source in (None, data.tokenizer_name) or model.shape_only:
        return
    try:
        own = load_tokenizer(source, model.tokenizer_revision).get_vocab()
    except ConfigError:
        return  # the backbone comes without one
    given = tokenizer.get_vocab()
    if other := sum(own.get(token) != number for token, number in given.items()):
        tell(
            f"data.tokenizer {data.tokenizer_name} numbers {other:,} of its {len(given):,} tokens differently from the "
            f"tokenizer of {source}, so that the backbone reads other words: leave data.tokenizer out to use its own"
        )


def bind_model(setup: Setup) -> PreparedData:
    """Prepare the data and tell the model what it must know of them."""
    data = setup.data.prepare()
    setup.model.bind(data.spec)
    return data


def build_trainer(setup: Setup) -> tuple[Trainer, RunCheckpoint]:
    """Return the trainer of a run with its callbacks and loggers."""
    config, run = setup.config, setup.run
    options = dict(setup.trainer_options)
    agreement = StopAgreement()
    saving = config.checkpoint.as_dict()
    sharded = saving.pop("sharded")
    saving |= {
        "config_sha256": training_digest(setup.config_text),
        "reading_sha256": training_digest(setup.config_text, ("data", "model")),
    }
    checkpoints = RunCheckpoint(run.checkpoints, agreement=agreement, **saving)
    callbacks = [*_as_list(options.pop("callbacks", None)), Throughput(), checkpoints, StopWithoutSaving(agreement)]
    callbacks.append(NoteStart(run, job_id()))
    if options.get("enable_progress_bar") is not False:
        callbacks.append(progress_bar())
    if config.early_stopping.patience:
        callbacks.append(
            PatientStopping(
                reading_sha256=saving["reading_sha256"],
                monitor=config.checkpoint.monitor,
                patience=config.early_stopping.patience,
                min_delta=config.early_stopping.min_delta,
                check_on_train_epoch_end=False,  # after each validation, wherever in an epoch that is
                mode="max" if better_is_higher(config.checkpoint.monitor) else "min",
            )
        )
    loggers = [
        *make_loggers(run, setup.wandb, tensorboard=config.tensorboard),
        *(log for log in _as_list(options.pop("logger", None)) if not isinstance(log, bool)),
    ]
    accelerator = options["accelerator"]
    mapped = accelerator != "cpu" and not is_sharded(options["strategy"])
    plugins = [*_as_list(options.pop("plugins", None)), AtomicCheckpointIO(checkpoints.keep_last, mapped=mapped)]
    options["strategy"], precision = make_strategy(
        options["strategy"],
        options["precision"],
        accelerator,
        ranks=rank_count(options["devices"], options["num_nodes"], accelerator),
        shards_checkpoints=sharded,
    )
    if current_step():
        # its ranks come from srun; requeuing is the batch script's, once the state is saved
        plugins.append(SLURMEnvironment(auto_requeue=False))
    if precision is not None:
        plugins.append(precision)
        options["precision"] = None
    # the loggers get the whole configuration, of which the model's hyperparameters are a part
    options |= {"default_root_dir": str(run.path), "enable_autolog_hparams": False}
    # the sampler already distributes films over ranks: Lightning's would distribute them again
    options["use_distributed_sampler"] = False
    trainer = Trainer(**options, callbacks=callbacks, logger=loggers, plugins=plugins)
    # behind the timer, which Lightning adds for max_time
    trainer.callbacks.append(LastValidation())  # type: ignore[attr-defined]  # set by a connector
    replace_signal_handling(trainer)
    # a quantised model is built on the device that it will run on
    setup.model.trainer = trainer
    torch.set_float32_matmul_precision(_float32_matmul_precision(accelerator, str(trainer.precision)))
    return trainer, checkpoints


def _float32_matmul_precision(accelerator: str, precision: str) -> Literal["highest", "high"]:
    """Return how float32 matmuls are computed: in TF32, three digits, only on CUDA if they are the whole model's.

    Below 16-mixed and bf16-mixed they are those of pooling and head, which take no time.
    """
    return "high" if accelerator == "cuda" and precision == "32-true" else "highest"


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else list(value) if isinstance(value, list | tuple) else [value]
