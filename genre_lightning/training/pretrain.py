"""A pretraining: an encoder learns the words of films' texts, and is left as a backbone for `fit`."""

from __future__ import annotations

import shutil
import time
from typing import TYPE_CHECKING

import yaml

from genre_lightning.config.changes import check_same_training
from genre_lightning.distributed import sharded
from genre_lightning.distributed.launch import has_company
from genre_lightning.distributed.ranks import is_first_rank, tell
from genre_lightning.distributed.signals import FLAG
from genre_lightning.distributed.watch import explaining_failures, watch_ranks
from genre_lightning.folders import new_folder
from genre_lightning.models.backbones import QuietLoading
from genre_lightning.provenance import device_name, git_commit, made_by
from genre_lightning.training.fit import describe, keep_tokenizer, last_checkpoint, note_override
from genre_lightning.training.loggers.build import closing, describe_run, resume_loggers
from genre_lightning.training.resume import begin, check_films, kept_splits, locked, undone_if_refused
from genre_lightning.training.setup import Setup, bind_model, build_trainer, check_setup

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from genre_lightning.data.prepare import PreparedData
    from genre_lightning.runs import RunDirectory


def pretrain_run(config: Namespace, parser: ArgumentParser) -> RunDirectory:
    """Pretrain an encoder, resume it, or do nothing if it is finished.

    Args:
        config: Parsed, with a run directory.
        parser: That parsed it.

    Raises:
        ConfigError, DataError, CheckpointError: Nothing has been changed.
    """
    # no film of validation is read, so that there is nothing to validate on; the configuration may be that of a fit
    config.early_stopping.patience = 0
    setup = check_setup(config, parser)
    setup.trainer_options |= {"limit_val_batches": 0, "num_sanity_val_steps": 0}
    changed = check_same_training(setup.run, setup.config_text, override=config.override)
    watch_ranks()
    setup.data.keep_splits(kept_splits(setup.run))
    with explaining_failures():
        data = bind_model(setup)
        if not has_company():
            FLAG.check()
        with locked(setup.run):
            anew = check_films(setup.run, data, setup.data.options.source.path, override=config.override)
            anew = anew or bool(changed)
            with undone_if_refused(setup.run):
                if anew and is_first_rank():
                    note_override(setup, changed)
                begin(setup.run, setup.config_text, data, anew=anew)
                keep_tokenizer(setup, data)
                if setup.run.status == "finished" and setup.run.backbone.is_dir() and not anew:
                    tell(f"{setup.run.path} is finished: all is done")
                else:
                    _train(setup, data)
    return setup.run


def _train(setup: Setup, data: PreparedData) -> None:
    trainer, checkpoints = build_trainer(setup)
    with closing(trainer.loggers):
        resume, step = last_checkpoint(setup, checkpoints)
        resume_loggers(trainer.loggers, step)
        describe(setup, data, trainer.strategy.root_device)
        texts = data.audit["pretraining"]
        tell(
            f"texts   {texts['training_films']:,} of training films and {texts['films_without_genres']:,} of films "
            "without genres; none of validation and test, so that early_stopping is off"
        )
        described = {**yaml.safe_load(setup.config_text), "data_audit": data.audit, "git_commit": git_commit()}
        describe_run(trainer.loggers, described)
        started = time.monotonic()
        trainer.fit(setup.model, datamodule=setup.data, ckpt_path=str(resume) if resume else None, weights_only=True)
        trainer.strategy.barrier("last checkpoint")
        if is_first_rank():
            seconds = (setup.run.read_state().train_seconds or 0) + time.monotonic() - started
            _write_backbone(setup, data)
            setup.run.set_status(
                "finished",
                train_seconds=round(seconds, 1),
                trainable_parameters=sum(w.numel() for w in setup.model.parameters() if w.requires_grad),
                steps=trainer.global_step,
                training=made_by(device_name(trainer.strategy.root_device)),
            )


def _write_backbone(setup: Setup, data: PreparedData) -> None:
    """Write the weights of the last checkpoint, their averages if there are some, as transformers reads them."""
    content = sharded.open_checkpoint(setup.run.last)
    sharded.load_weights(setup.model, content["state_dict"])
    shutil.rmtree(setup.run.backbone, ignore_errors=True)  # of a training that --override has changed
    with new_folder(setup.run.backbone) as draft, QuietLoading():
        setup.model.backbone.save_pretrained(draft)  # type: ignore[operator]  # a model of transformers
        data.tokenizer.save_pretrained(draft)
