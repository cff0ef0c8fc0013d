"""Probabilities of training films out of fold: each by a run that was trained on the other folds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from genre_lightning.config.parser import make_options
from genre_lightning.data.folds import fold_numbers
from genre_lightning.data.prepare import prepare_films
from genre_lightning.data.splits import groups_of, ids_digest, text_digests
from genre_lightning.distributed.launch import has_company
from genre_lightning.distributed.ranks import tell
from genre_lightning.errors import ConfigError, DataError
from genre_lightning.evaluation.decisions import read_decision
from genre_lightning.evaluation.runs import Run
from genre_lightning.inference.scoring import open_scorer
from genre_lightning.inference.soft_labels import SoftLabels, log_odds_of
from genre_lightning.metrics import average_precision, mean_defined
from genre_lightning.provenance import device_name, made_by
from genre_lightning.runs import RunDirectory
from genre_lightning.training.baseline import fit_baseline
from genre_lightning.training.fit import fit_run

if TYPE_CHECKING:
    from jsonargparse import ArgumentParser, Namespace

    from genre_lightning.config.data import DataOptions


def fit_folds(
    configs: Sequence[tuple[Namespace, ArgumentParser]], path: Path, baseline: str | None = None
) -> SoftLabels:
    """Train a run for each fold, resume them, and write their predictions for the films that they were not trained on.

    Args:
        configs: Of each fold's run, which differ in `data.fold` and the run directory.
        path: Of the table.
        baseline: Name of the baseline that the configurations are of; None if they are of `fit`.

    Raises:
        ConfigError: Several processes were started for it.
        ConfigError, DataError, CheckpointError: See `fit_run`.
    """
    if has_company():
        raise ConfigError(
            "folds trains its runs one after another in one process: start it without torchrun or srun, or train each "
            "fold by 'genre-lightning fit' with --data.fold 1/5 and so on, and then run folds"
        )
    runs = []
    for number, (config, parser) in enumerate(configs, start=1):
        tell(f"fold    {number} of {len(configs)}")
        runs.append((fit_baseline if baseline else fit_run)(config, parser)[0])
    options: DataOptions = make_options(f"baseline {baseline}" if baseline else "fit", *configs[0]).data
    found = _soft_labels(runs, replace(options, fold=None))
    found.write(path)
    return found


def _soft_labels(runs: Sequence[RunDirectory], options: DataOptions) -> SoftLabels:
    data = prepare_films(options)
    train = data.splits["train"]
    rows = data.rows[train.films]
    ids, digests = data.films.ids[rows].tolist(), text_digests(data.films.strings("overview", rows))
    numbers = fold_numbers(train.labels, groups_of(digests), len(runs), options.seed)
    log_odds = np.empty(train.labels.shape, dtype=np.float32)
    checkpoints = {}
    for number, run in enumerate(runs):
        films = np.flatnonzero(numbers == number)
        if _trained_on(run) != ids_digest(data.films.ids[rows[numbers != number]]):
            raise DataError(f"{run.path} was trained on other films than those of the other folds: train it again")
        scorer = open_scorer(run.path)
        log_odds[films] = log_odds_of(scorer, options, [ids[film] for film in films])
        checkpoints[str(run.path)] = read_decision(run.decision).checkpoint_sha256
    precision = float(mean_defined(average_precision(train.labels, log_odds, train.known)))
    made = {
        **made_by(device_name()),
        "checkpoints": checkpoints,
        "films": {"file": options.file_names, "ids_sha256": train.sha256},
        "map_macro": round(precision, 4),
    }
    return SoftLabels(
        data.vocabulary.names, list(map(str, ids)), [row.tobytes() for row in digests], log_odds,
        (numbers + 1).tolist(), made,
    )  # fmt: skip


def _trained_on(run: RunDirectory) -> str | None:
    """Digest of the ids of a run's training films; None if its audit has none."""
    audit = Run(run.path).audit() or {}
    return (audit.get("splits") or {}).get("train", {}).get("ids_sha256")
