"""A whole run: set up, trained, evaluated, or resumed from where an earlier start of it stopped."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import yaml
from lightning.pytorch import Trainer
from lightning.pytorch.profilers import PassThroughProfiler

from genre_lightning.config.changes import check_same_training, decision_changes, training_digest
from genre_lightning.data.corrections import Correction, write_corrections
from genre_lightning.data.prepare import PreparedData
from genre_lightning.data.steps import planned_epochs, steps_per_epoch
from genre_lightning.distributed.checkpoint.io import previous_names
from genre_lightning.distributed.checkpoint.manifests import Manifest, manifest_of, manifest_path, newest_good, step_of
from genre_lightning.distributed.launch import has_company
from genre_lightning.distributed.ranks import is_first_rank, tell
from genre_lightning.distributed.signals import FLAG
from genre_lightning.distributed.watch import explaining_failures, watch_ranks
from genre_lightning.errors import ConfigError, DivergedError
from genre_lightning.folders import new_folder
from genre_lightning.models.layers.packing import why_not_flash
from genre_lightning.models.restore import restore_weights
from genre_lightning.provenance import device_name, git_commit, made_by
from genre_lightning.training.callbacks.checkpoints import RunCheckpoint
from genre_lightning.training.continuation import compare_with_parent, distil, open_parent, start_from_parent
from genre_lightning.training.evaluate import evaluate_run, keep_untrained
from genre_lightning.training.loggers.build import closing, describe_run, keep_best, resume_loggers
from genre_lightning.training.resume import (
    EVALUATED,
    begin,
    check_films,
    finish,
    finished_results,
    kept_splits,
    locked,
    undone_if_refused,
)
from genre_lightning.training.setup import Setup, bind_model, build_trainer, check_setup
from genre_lightning.training.teacher import check_labeller, teach
from genre_lightning.training.trial import TrialHooks

if TYPE_CHECKING:
    from collections.abc import Sequence

    from jsonargparse import ArgumentParser, Namespace

    from genre_lightning.runs import RunDirectory


def fit_run(
    config: Namespace,
    parser: ArgumentParser,
    corrections: Sequence[Correction] | None = None,
    trial: TrialHooks | None = None,
) -> tuple[RunDirectory, dict[str, dict[str, Any]]]:
    """Train and evaluate a run, resume it, or do nothing if it is finished.

    Args:
        config: Parsed, with a run directory.
        parser: That parsed it.
        corrections: Feedback on films; None for none, or for a run that has kept it.
        trial: What a study does with a run that is one of its trials. Such a run is evaluated on validation alone, and
            `fit_run` without it evaluates the test split later.

    Returns:
        The run, and what each split's metrics.json holds; nothing on other ranks than rank 0.

    Raises:
        PrunedError: The study has ended its trial early.
        ConfigError, DataError, CheckpointError: Nothing has been changed.
    """
    setup = check_setup(config, parser)
    changed = check_same_training(setup.run, setup.config_text, override=config.override)
    # before rank 0 writes the new options down, so that every rank knows of them
    decides_anew = bool(decision_changes(setup.run, setup.config_text))
    watch_ranks()
    setup.data.keep_splits(kept_splits(setup.run))
    setup.lineage = open_parent(setup)
    if corrections is not None:
        setup.data.correct(corrections)
    with explaining_failures():
        return setup.run, _fit(setup, changed, decides_anew=decides_anew, trial=trial)


def _fit(
    setup: Setup, changed: list[str], *, decides_anew: bool, trial: TrialHooks | None
) -> dict[str, dict[str, Any]]:
    data = bind_model(setup)
    if trial is not None:
        trial.check_films(data)
    if not has_company():
        FLAG.check()
    file, override = setup.data.options.source.path, setup.config.override
    check_labeller(setup, data)
    with locked(setup.run):
        anew = check_films(setup.run, data, file, override=override) or bool(changed)
        if anew:
            _check_steps_left(setup, data)
        with undone_if_refused(setup.run):
            if anew and is_first_rank():
                note_override(setup, changed)
            begin(setup.run, setup.config_text, data, anew=anew)
            if setup.lineage is not None and is_first_rank() and not setup.run.lineage.is_file():
                setup.lineage.write(setup.run.lineage)
            if is_first_rank() and setup.data.corrections and not setup.run.corrections.is_file():
                write_corrections(setup.data.corrections, setup.run.corrections)
            keep_tokenizer(setup, data)
            results = None if changed or decides_anew else finished_results(setup.run)
            return _train_and_evaluate(setup, data, changed, trial) if results is None else results


def _check_steps_left(setup: Setup, data: PreparedData) -> None:
    """Refuse other settings or films for a run that is trained to its end, whose weights they did not make.

    Raises:
        ConfigError: No step is left to train with them, so that metrics and report would name them wrongly.
    """
    trainer, done = setup.config.trainer, step_of(setup.run.last)
    if not setup.model.trains or done is None:
        return
    steps = steps_per_epoch(len(data.splits["train"].films), setup.data.options.global_batch_size)
    _, planned = planned_epochs(steps, trainer.max_epochs, trainer.max_steps)
    if 0 < planned <= done:
        raise ConfigError(
            f"{setup.run.path} has trained all of its {planned:,} steps, so that --override would only evaluate it "
            "with what did not train it: raise trainer.max_epochs or trainer.max_steps, or name another --run_dir"
        )


def keep_tokenizer(setup: Setup, data: PreparedData) -> None:
    """Write the tokenizer into the run directory, unless it is there."""
    if is_first_rank() and not setup.run.tokenizer.is_dir():
        with new_folder(setup.run.tokenizer) as draft:
            data.tokenizer.save_pretrained(draft)


def _train_and_evaluate(
    setup: Setup, data: PreparedData, changed: list[str], trial: TrialHooks | None
) -> dict[str, dict[str, Any]]:
    for difference in changed:
        tell(f"overriding {difference}")
    if _is_to_train(setup, anew=bool(changed)):
        teach(setup, data)  # before the loggers: a run that is refused here leaves nothing in them
    trainer, checkpoints = build_trainer(setup)
    if trial is not None:
        trainer.callbacks.append(trial.reporter)  # type: ignore[attr-defined]  # set by a connector
    with closing(trainer.loggers):
        return _train(setup, data, trainer, checkpoints, trial, anew=bool(changed))


def _is_to_train(setup: Setup, *, anew: bool) -> bool:
    return anew or setup.run.status not in ("evaluating", "finished")


def _train(
    setup: Setup,
    data: PreparedData,
    trainer: Trainer,
    checkpoints: RunCheckpoint,
    trial: TrialHooks | None,
    *,
    anew: bool,
) -> dict[str, dict[str, Any]]:
    if _is_to_train(setup, anew=anew):
        resume, step = last_checkpoint(setup, checkpoints)
        if resume is None and setup.lineage is not None:
            start_from_parent(setup, setup.lineage)
        resume_loggers(trainer.loggers, step)
        describe(setup, data, trainer.strategy.root_device)
        settings = yaml.safe_load(setup.config_text)
        described = {**settings, "data_audit": data.audit, "git_commit": git_commit()}
        if setup.lineage is not None:
            described["parent"] = setup.lineage.summary
        describe_run(trainer.loggers, described)
        started = time.monotonic()
        if setup.model.trains:
            if setup.lineage is not None:
                distil(setup, setup.lineage, trainer)
            ckpt_path = str(resume) if resume else None
            trainer.fit(setup.model, datamodule=setup.data, ckpt_path=ckpt_path, weights_only=True)
            # the profile is of the training; Lightning's profiler of torch cannot profile the evaluation after it
            trainer.profiler = PassThroughProfiler()  # type: ignore[attr-defined]  # set by a connector
            if trial is not None:
                trial.reporter.check()
        else:
            keep_untrained(setup)
        if is_first_rank():
            seconds = (setup.run.read_state().train_seconds or 0) + time.monotonic() - started
            trained = sum(weight.numel() for weight in setup.model.parameters() if weight.requires_grad)
            training = _training_metadata(setup, trainer)
            describe_run(trainer.loggers, training)
            setup.run.set_status(
                "evaluating",
                train_seconds=round(seconds, 1),
                trainable_parameters=trained,
                steps=trainer.global_step,
                training=training,
            )
    _restore_best(setup, trainer)
    results = evaluate_run(setup, trainer, ("validation",) if trial else EVALUATED, figures=trial is None)
    if is_first_rank() and trial is None:
        if setup.lineage is not None:
            compare_with_parent(setup, setup.lineage)
        keep_best(trainer.loggers)
        finish(setup.run)
    return results


def last_checkpoint(setup: Setup, checkpoints: RunCheckpoint) -> tuple[Path | None, int]:
    """Return the newest whole checkpoint to resume from, and the optimizer steps before it; None and 0 without one.

    Raises:
        ConfigError: Other settings made it.
    """
    candidates = [setup.run.last, *previous_names(setup.run.checkpoints, checkpoints.keep_last)]
    resume, manifest, complaints = newest_good(candidates, set_aside=is_first_rank())
    for complaint in complaints:
        tell(complaint)
    if not (resume and manifest):
        return None, 0
    _check_same_settings(setup, resume, manifest)
    step = manifest.global_step or 0
    tell(f"resuming {setup.run.path} after optimizer step {step:,}")
    return resume, step


def _training_metadata(setup: Setup, trainer: Trainer) -> dict[str, Any]:
    """Return what the training has settled: learning rates, the best checkpoint's epoch and step, and what made it."""
    lr, head_lr = setup.model.learning_rates() if setup.model.trains else (None, None)
    best = manifest_of(setup.run.best) if manifest_path(setup.run.best).is_file() else None
    epoch = best.epoch if best else None
    parent = setup.lineage.summary if setup.lineage else {}
    return {
        **{f"parent_{name}": value for name, value in parent.items()},
        **made_by(device_name(trainer.strategy.root_device)),
        "devices": trainer.world_size,
        "learning_rate": lr,
        "head_learning_rate": head_lr,
        "best_epoch": None if epoch is None or not setup.model.trains else epoch + 1,
        "best_step": best.global_step if best else None,
        "overridden": "; ".join(setup.run.read_state().overrides) or None,
    }


def note_override(setup: Setup, changed: list[str]) -> None:
    """Note what `--override` changes, and after which step: until the next save, the run's checkpoint is of before."""
    run = setup.run
    state, notes = run.read_state(), {}
    if step := step_of(run.last):
        what = "; ".join(changed) or "texts or genres of the films"
        notes["overrides"] = [*state.overrides, f"after step {step:,}: {what}"]
    if changed:
        older = {*state.overridden, training_digest(run.config.read_text(encoding="utf-8"))}
        notes["overridden"] = sorted(older)
    if notes:  # a new run has none, and its configuration is to be its first file
        run.set_status(run.status, **notes)


def _check_same_settings(setup: Setup, checkpoint: Path, manifest: Manifest) -> None:
    """Refuse a checkpoint that other settings made than those that the run directory stands for."""
    theirs = manifest.config_sha256
    if theirs in (None, training_digest(setup.config_text), *setup.run.read_state().overridden):
        return
    if not setup.config.override:
        raise ConfigError(
            f"{checkpoint} was trained with other settings than {setup.run.config}: put the run's own checkpoint back, "
            "or resume with this one by --override"
        )


def _restore_best(setup: Setup, trainer: Trainer) -> None:
    if not setup.run.best.exists():
        raise DivergedError(
            f"no checkpoint is best: no validation gave a number for {setup.config.checkpoint.monitor}, or none could "
            "be saved; lower model.lr, use trainer.precision=32-true, or free space and name another --run_dir"
        )
    trainer.strategy.barrier("best checkpoint")
    restore_weights(setup.model, setup.run.best)


def describe(setup: Setup, data: PreparedData, device: torch.device) -> None:
    """Log the data, the model and where the run is."""
    sizes = ", ".join(f"{len(split.films):,} {name}" for name, split in data.splits.items())
    audit = data.films.audit
    tell(f"data    {audit.rows:,} rows, {audit.kept:,} films kept; {sizes}; {len(data.vocabulary)} genres")
    for note in data.audit["notes"]:
        tell(f"note    {note}")
    model = setup.model
    names = [name for name in (getattr(model.options, "backbone", ""), type(model).__name__) if name]
    tell(f"model   {', '.join(names)}; {setup.data.options.global_batch_size} films a step")
    if model.weight_report is not None:
        tell(f"weights {model.weight_report}")
    config = getattr(model, "backbone_config", None)
    if device.type == "cuda" and model.layout == "packed" and (why := why_not_flash(device, model.precision, config)):
        tell(f"speed   packed texts are padded for the attention: {why}")
    tell(f"run     {setup.run.path}")
