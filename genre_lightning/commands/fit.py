"""`genre-lightning fit`: trains, evaluates, and goes on where an earlier start of the same run stopped."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Trainer

from genre_lightning.commands.build import Setup, bind_model, build_trainer, check_setup, is_first_rank, tell
from genre_lightning.commands.continuing import (
    begin,
    default_run_dir,
    finish,
    locked,
    show,
    stored_results,
    with_run_config,
)
from genre_lightning.commands.evaluation import evaluate_run, keep_untrained, restore_weights
from genre_lightning.commands.parser import parse
from genre_lightning.data.datamodule import PreparedData
from genre_lightning.distributed.checkpoint_io import newest_good, verify_checkpoint
from genre_lightning.distributed.signals import StopFlag, stopping_on_signals
from genre_lightning.distributed.slurm import current_step
from genre_lightning.distributed.watch import explaining_failures, watch_ranks
from genre_lightning.errors import ConfigError
from genre_lightning.runs import check_same_training


def fit(arguments: Sequence[str]) -> int:
    """Runs the command; returns its exit status."""
    config, parser = parse("fit", with_run_config(arguments))
    if config.run_dir is None:
        config.run_dir = default_run_dir(arguments)
    setup = check_setup(config, parser)
    changed = check_same_training(setup.run, setup.config_text, override=config.override)
    watch_ranks()
    with stopping_on_signals() as stop, explaining_failures():
        return _fit(setup, changed, stop)


def _fit(setup: Setup, changed: list[str], stop: StopFlag) -> int:
    data = bind_model(setup)
    step = current_step()
    if step is None or step.tasks == 1:
        # a rank that leaves alone would have the others wait for it: several leave at the end of their first step
        stop.check()
    with locked(setup.run):
        file = setup.data.source.path
        begin(setup.run, setup.config_text, data, file, override=setup.config.override, anew=bool(changed))
        _keep_tokenizer(setup, data)
        if setup.run.status == "finished" and not changed:
            tell(f"{setup.run.path} is finished: all is done. Its figures:")
            results = stored_results(setup.run)
        else:
            results = _train_and_evaluate(setup, data, changed)
        if is_first_rank():
            show(setup.run, results, as_json=setup.config.json)
    return 0


def _keep_tokenizer(setup: Setup, data: PreparedData) -> None:
    if is_first_rank() and not setup.run.tokenizer.is_dir():
        draft = setup.run.path / ".tokenizer.part"
        data.tokenizer.save_pretrained(draft)
        draft.rename(setup.run.tokenizer)


def _train_and_evaluate(setup: Setup, data: PreparedData, changed: list[str]) -> dict[str, dict[str, Any]]:
    for difference in changed:
        tell(f"overriding {difference}")
    trainer, checkpoints, curves = build_trainer(setup)
    if setup.run.status != "evaluating" or changed:
        resume, complaints = newest_good([setup.run.last, setup.run.previous], set_aside=is_first_rank())
        for complaint in complaints:
            tell(complaint)
        if resume:
            step = int(verify_checkpoint(resume)["global_step"])
            tell(f"resuming {setup.run.path} after optimizer step {step:,}")
            curves.resume_at(step)
        _describe(setup, data)
        started = time.monotonic()
        if setup.model.trains:
            ckpt_path = str(resume) if resume else None
            trainer.fit(setup.model, datamodule=setup.data, ckpt_path=ckpt_path, weights_only=True)
        else:
            keep_untrained(setup)
        if is_first_rank():
            seconds = setup.run.facts().get("train_seconds", 0) + time.monotonic() - started
            trained = sum(weight.numel() for weight in setup.model.parameters() if weight.requires_grad)
            setup.run.set_status("evaluating", train_seconds=round(seconds, 1), trainable_parameters=trained)
    _restore_best(setup, trainer, checkpoints.best_score)
    results = evaluate_run(setup, trainer)
    if is_first_rank():
        finish(setup.run)
    return results


def _restore_best(setup: Setup, trainer: Trainer, score: float | None) -> None:
    if not setup.run.best.is_file():
        raise ConfigError(
            f"no validation gave a number for {setup.config.checkpoint.monitor}, so no checkpoint is best: "
            "lower model.lr, or use trainer.precision=32-true"
        )
    trainer.strategy.barrier("best checkpoint")
    restore_weights(setup.model, setup.run.best)


def _describe(setup: Setup, data: PreparedData) -> None:
    sizes = ", ".join(f"{len(split.films):,} {name}" for name, split in data.splits.items())
    audit = data.films.audit
    tell(f"data    {audit.rows:,} rows, {audit.kept:,} films kept; {sizes}; {len(data.vocabulary)} genres")
    model = setup.model
    name = getattr(model, "backbone_name", type(model).__name__)
    tell(f"model   {name}, {type(model).__name__}; {setup.data.global_batch_size} films a step")
    tell(f"run     {setup.run.path}")
