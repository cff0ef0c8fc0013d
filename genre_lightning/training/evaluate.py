"""From a checkpoint to the evaluation of a split: the same for every command that evaluates."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Trainer
from numpy.typing import NDArray
from torch.utils.data import DataLoader

from genre_lightning.data.datamodule import MovieDataModule
from genre_lightning.data.languages import languages_of
from genre_lightning.data.prepare import PreparedFilms
from genre_lightning.distributed.checkpoint.files import write_checkpoint
from genre_lightning.distributed.checkpoint.io import update_checkpoint
from genre_lightning.distributed.checkpoint.manifests import verify_checkpoint
from genre_lightning.distributed.ranks import from_all_ranks, is_first_rank, tell
from genre_lightning.evaluation.decisions import Decision, check_checkpoint, fit_decision, read_decision, write_decision
from genre_lightning.evaluation.evaluate import write_evaluation
from genre_lightning.evaluation.films import EvaluatedFilms
from genre_lightning.evaluation.predictions import Predictions
from genre_lightning.models.base import GenreClassifier
from genre_lightning.models.metadata import CHECKPOINT_KEY
from genre_lightning.provenance import device_name, made_by
from genre_lightning.runs import RunDirectory
from genre_lightning.training.loggers.tracking import log_evaluation
from genre_lightning.training.setup import Setup


def keep_untrained(setup: Setup) -> None:
    """Write best.ckpt of a model that trains nothing: what it is, for its decision to be bound to."""
    setup.model.configure_model()
    metadata = setup.model.checkpoint_metadata().to_json()
    content = {CHECKPOINT_KEY: metadata, "state_dict": {}, "global_step": 0, "epoch": 0}
    if is_first_rank():
        write_checkpoint(content, setup.run.best)


def predict_split(trainer: Trainer, model: GenreClassifier, data: MovieDataModule, split: str) -> Predictions:
    """Return the logits of every film of a split, each once, in the split's order, on every rank."""
    part = data.prepare().splits[split]
    data.trainer = trainer
    logits = collect_logits(trainer, model, data.evaluation_dataloader(split), part.labels.shape)
    return predictions_of(data.prepare(), split, logits)


def predictions_of(data: PreparedFilms, split: str, logits: NDArray[np.float32]) -> Predictions:
    """Return the logits of a split's films, in its order, beside the films and their genres."""
    part = data.splits[split]
    rows = data.rows[part.films]
    return Predictions(
        genres=data.vocabulary.names,
        ids=data.films.ids[rows],
        titles=data.films.strings("title", rows),
        texts=data.films.strings("text", rows),
        labels=part.labels,
        logits=logits,
        known=part.known,
        languages=languages_of(data.films, data.language, rows),
    )


def collect_logits(
    trainer: Trainer, model: GenreClassifier, loader: DataLoader[Any], shape: tuple[int, ...]
) -> NDArray[np.float32]:
    """Return the logits (films, genres) in the order of the data set, from the batches of all ranks."""
    outputs: list[Any] = trainer.predict(model, dataloaders=loader) or []
    logits = np.full(shape, np.nan, dtype=np.float32)
    pairs = [(batch["index"].numpy(), batch["logits"].numpy()) for batch in outputs]
    for of_rank in from_all_ranks(pairs):
        for index, values in of_rank:
            logits[index] = values
    return logits


def fit_and_store_decision(setup: Setup, validation: Predictions) -> Decision:
    """Fit temperature and thresholds on validation, and store them in the best checkpoint and in decision.json."""
    decision = fit_decision(validation, "validation", seed=setup.config.seed, **setup.config.decision.as_dict())

    def bind(content: dict[str, Any]) -> None:
        content[CHECKPOINT_KEY]["decision"] = decision.to_dict()

    decision = decision.with_checkpoint(update_checkpoint(setup.run.best, bind))
    write_decision(decision, setup.run.decision)
    return decision


def load_decision(setup: Setup) -> Decision:
    """Read the run's decision, and check that it was fitted for the best checkpoint.

    Raises:
        CheckpointError: It is missing, damaged, or was fitted for another checkpoint.
    """
    fix = f"run 'genre-lightning validate --run_dir {setup.run.path}', which fits it again"
    decision = read_decision(setup.run.decision, fix)
    check_checkpoint(decision, verify_checkpoint(setup.run.best).sha256, fix)
    return decision


def evaluate_split(
    run: RunDirectory,
    data: PreparedFilms,
    predictions: Predictions,
    decision: Decision,
    split: str,
    seed: int,
    device: torch.device | None = None,
    *,
    figures: bool = True,
) -> dict[str, Any]:
    """Write evaluation/SPLIT of a run.

    Args:
        run: Run whose decision it is.
        data: The films.
        predictions: Predictions of the split.
        decision: Fitted on validation.
        split: "validation" or "test".
        seed: Random seed of the bootstrap.
        device: Device that computed the logits; None is the CPU.
        figures: Draw the plots, which takes seconds.

    Returns:
        What metrics.json holds.
    """
    tell(f"evaluating {len(predictions):,} films of {split}")
    state = run.read_state()
    return write_evaluation(
        run.evaluation(split).path,
        predictions,
        decision,
        split=split,
        seed=seed,
        figures=figures,
        curves_csv=run.curves,
        provenance=provenance_of(run, device),
        films=EvaluatedFilms(data.sides.file, data.splits[split].sha256),
        metadata={
            "split_sha256": data.splits[split].sha256,
            "checkpoint_sha256": decision.checkpoint_sha256,
            "seconds": state.train_seconds,
            "trainable_parameters": state.trainable_parameters,
        },
    )


def provenance_of(run: RunDirectory, device: torch.device | None = None) -> dict[str, Any]:
    """Name what made an evaluation: "made_by", and "training" as far as the run knows it.

    Args:
        run: Run that is evaluated.
        device: Device that computed the logits; None is the CPU.
    """
    training = run.read_state().training
    return {"made_by": made_by(device_name(device)), **({"training": training} if training else {})}


def steps_done(run: RunDirectory) -> int:
    """Return the optimizer steps of the whole training, the place of its evaluation on the loggers' axis."""
    return run.read_state().steps or 0


def evaluate_run(
    setup: Setup, trainer: Trainer, splits: Sequence[str] = ("validation", "test"), *, figures: bool = True
) -> dict[str, dict[str, Any]]:
    """Fit the decision on validation and evaluate the splits.

    Args:
        setup: Of the run.
        trainer: Of the run.
        splits: With validation among them.
        figures: Draw the plots, which takes seconds.

    Returns:
        What each split's metrics.json holds; nothing on other ranks than rank 0.
    """
    results = {}
    tell("evaluating the best checkpoint")
    predicted = {split: predict_split(trainer, setup.model, setup.data, split) for split in splits}
    if is_first_rank():
        decision = fit_and_store_decision(setup, predicted["validation"])
        for split, predictions in predicted.items():
            data, seed = setup.data.prepare(), setup.config.seed
            device = trainer.strategy.root_device
            results[split] = evaluate_split(
                setup.run, data, predictions, decision, split, seed, device, figures=figures
            )
            log_evaluation(trainer.loggers, setup.run.evaluation(split), results[split], steps_done(setup.run))
    return results
