"""A training that starts from a finished run: opened, verified, and given to data and model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from lightning.pytorch import Trainer

from genre_lightning.config.continuation import ContinueOptions, require_parent
from genre_lightning.data.continued import OldFilms
from genre_lightning.data.corrections import read_corrections
from genre_lightning.data.kept_splits import KeptSplits
from genre_lightning.distributed.checkpoint.manifests import verify_checkpoint
from genre_lightning.distributed.ranks import is_first_rank, tell
from genre_lightning.distributed.sharded import open_checkpoint
from genre_lightning.errors import CheckpointError, ConfigError, DataError, one_line
from genre_lightning.evaluation.against_parent import write_against_parent
from genre_lightning.files import damaged, replacing
from genre_lightning.lineage import Lineage, read_lineage
from genre_lightning.models.metadata import CheckpointMetadata
from genre_lightning.runs import RunDirectory
from genre_lightning.training.evaluate import collect_logits
from genre_lightning.training.setup import Setup


def open_parent(setup: Setup) -> Lineage | None:
    """Give data and model of a run what they take from its parent; nothing is loaded yet.

    Returns:
        The lineage; None for a run that continues from none.

    Raises:
        CheckpointError: The parent is gone, not finished or damaged.
        ConfigError: The run was started from another checkpoint.
    """
    run, config = setup.run, setup.config
    lineage = read_lineage(run.lineage)
    path = config.continue_from or (lineage.run if lineage else None)
    if path is None:
        return None
    if lineage is None or run.status != "finished":
        lineage = _verified(run, Path(path), lineage)
    use_lineage(setup, lineage)
    return lineage


def _verified(run: RunDirectory, path: Path, before: Lineage | None) -> Lineage:
    parent = require_parent(path)
    sha256 = verify_checkpoint(parent.best).sha256
    if before is not None and before.checkpoint_sha256 != sha256:
        raise ConfigError(
            f"{run.path} was started from the checkpoint with SHA-256 {before.checkpoint_sha256[:12]}…, and the best "
            f"of {parent.path} has {sha256[:12]}…: name the run that it was started from with --continue_from, or "
            "another --run_dir"
        )
    if before is not None:
        return before
    if run.has_trained:
        raise ConfigError(
            f"{run.path} was trained without --continue_from: name another --run_dir, or leave --continue_from out"
        )
    metadata = CheckpointMetadata.of(open_checkpoint(parent.best), parent.best)
    settings = parent.settings()["data"]
    above = read_lineage(parent.lineage)
    files = [settings["csv"], *(settings.get("older_csv") or ())]
    return Lineage(
        str(parent.path),
        sha256,
        above.generation + 1 if above else 1,
        metadata.genres,
        tuple(Path(file).name for file in files),
        settings.get("max_films") is not None or bool(above and above.subset),
        metadata.inputs,
    )


def use_lineage(setup: Setup, lineage: Lineage) -> None:
    """Have the data of a continued run take inputs, tokenizer and the sides of old films from its parent."""
    run, parent = setup.run, RunDirectory(Path(lineage.run))
    options: ContinueOptions = setup.continuation
    sides = KeptSplits.read(run.splits if run.splits.is_file() and run.has_trained else parent.splits)
    setup.data.continue_from(
        OldFilms(
            str(parent.path),
            sides,
            lineage.genres,
            lineage.inputs,
            replay=options.replayed,
            drop_genres=options.drop_genres,
            subset=lineage.subset,
            files=lineage.files,
        )
    )
    if run.corrections.is_file():
        setup.data.correct(read_corrections(run.corrections))
    if not run.tokenizer.is_dir():
        setup.data.use_tokenizer(str(parent.tokenizer))
        setup.data.connect(setup.model)
    setup.model.parent = lineage.summary


def start_from_parent(setup: Setup, lineage: Lineage) -> None:
    """Have a training that has no checkpoint of its own start from the parent's weights."""
    parent = RunDirectory(Path(lineage.run))
    setup.model.starts_from = parent.best
    tell(f"continuing from {parent.path}, checkpoint {lineage.checkpoint_sha256[:12]}")


def distil(setup: Setup, lineage: Lineage, trainer: Trainer) -> None:
    """Have the training keep the parent's probabilities on its films, if it is to; a collective.

    They are predicted once, by the weights that the training starts from, and kept in the run directory for a resumed
    training.
    """
    weight = setup.continuation.distilled
    if not weight:
        return
    data = setup.data.prepare()
    path = setup.run.path / "distillation.npy"
    own = [column for column, name in enumerate(data.vocabulary.names) if name in lineage.genres]
    labels = data.splits["train"].labels
    if setup.model.starts_from is not None or not path.is_file():
        if setup.model.starts_from is None:
            raise CheckpointError(f"{path} is missing, which a resumed training needs: copy it back, or train again")
        setup.data.trainer = trainer
        tell(f"distilling from {lineage.run}: predicting {len(labels):,} training films")
        logits = collect_logits(trainer, setup.model, setup.data.evaluation_dataloader("train"), labels.shape)
        if is_first_rank():
            with replacing(path) as temporary, temporary.open("wb") as file:
                np.save(file, logits[:, own].astype(np.float16))
        trainer.strategy.barrier("distillation")
    teacher = np.full(labels.shape, np.nan, dtype=np.float32)
    try:
        teacher[:, own] = np.load(path)
    except (OSError, ValueError) as error:
        raise damaged(path, one_line(error), "train in another --run_dir") from None
    setup.data.distil(teacher)
    setup.model.distillation = weight


def compare_with_parent(setup: Setup, lineage: Lineage) -> None:
    """Write the comparison of an evaluated run with its parent, if they have test films in common."""
    try:
        write_against_parent(setup.run, RunDirectory(Path(lineage.run)), setup.config.seed)
    except DataError:
        tell(f"{lineage.run} has no test film that this run has too: what was forgotten cannot be measured")
        if setup.config.require_no_worse:
            raise
