"""A training that starts from a finished run: opened, verified, and given to data and model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from genre_lightning.config.continuation import ContinueOptions, require_parent
from genre_lightning.data.continued import OldFilms
from genre_lightning.data.kept_splits import KeptSplits
from genre_lightning.distributed.checkpoint.manifests import verify_checkpoint
from genre_lightning.distributed.ranks import tell
from genre_lightning.distributed.sharded import open_checkpoint
from genre_lightning.errors import ConfigError
from genre_lightning.lineage import Lineage, read_lineage
from genre_lightning.models.metadata import CheckpointMetadata
from genre_lightning.runs import RunDirectory
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
    if lineage is None and config.continue_from is None:
        return None
    if lineage is None or run.status != "finished":
        lineage = _verified(run, Path(config.continue_from or lineage.run), lineage)
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
    if not run.tokenizer.is_dir():
        setup.data.use_tokenizer(str(parent.tokenizer))
        setup.data.connect(setup.model)
    setup.model.parent = lineage.summary


def start_from_parent(setup: Setup, lineage: Lineage) -> None:
    """Have a training that has no checkpoint of its own start from the parent's weights."""
    parent = RunDirectory(Path(lineage.run))
    setup.model.starts_from = parent.best
    tell(f"continuing from {parent.path}, checkpoint {lineage.checkpoint_sha256[:12]}")


def lineage_of(run: RunDirectory) -> list[dict[str, Any]]:
    """List the runs that a run comes from, the nearest first, as far as they are there.

    Raises:
        CheckpointError: A lineage.json is damaged.
    """
    found: list[dict[str, Any]] = []
    seen = {run.path.resolve()}
    while (lineage := read_lineage(run.lineage)) is not None:
        run = RunDirectory(Path(lineage.run))
        if run.path.resolve() in seen:
            break
        seen.add(run.path.resolve())
        found.append(lineage.summary)
    return found
