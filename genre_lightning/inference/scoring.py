"""Trained runs of any kind as functions from texts to log-odds, without a trainer: on one device, from a directory."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from genre_lightning.config.columns import ColumnNames
from genre_lightning.config.features import Feature, JoinedFile
from genre_lightning.config.trainer import PRECISIONS
from genre_lightning.data.features.encode import EncodedInputs, encode_cells
from genre_lightning.data.features.matrix import input_matrix
from genre_lightning.distributed.precision import device_named
from genre_lightning.errors import CheckpointError, ConfigError
from genre_lightning.evaluation.decisions import Decision, read_decision
from genre_lightning.evaluation.ensemble import mean_log_odds
from genre_lightning.inference.model_scorer import ModelScorer, require_finite
from genre_lightning.inference.run_settings import Cells, TemplateReader, checked_settings
from genre_lightning.models.tfidf import read_baseline
from genre_lightning.runs import ENSEMBLE, RunDirectory, kind_of, open_run
from genre_lightning.types import FittedInput

_MAX_MEMBERS = 64
"""Runs of an ensemble, those of ensembles in it counted: each is a model in memory."""


class Scorer(Protocol):
    """A trained run at work.

    Attributes:
        decision: Its calibration and thresholds.
        columns: Names of the columns of the file that it was trained on.
        fields: Columns that its text template and its features name.
        features: Features that it reads beside its template.
        join: Files that it was trained with beside the movies file.
        max_tokens: Maximum number of tokens of a text, special tokens included; None if the model reads all of it.
    """

    decision: Decision
    columns: ColumnNames
    fields: tuple[str, ...]
    features: tuple[Feature, ...]
    join: tuple[JoinedFile, ...]
    max_tokens: int | None

    @property
    def fitted_inputs(self) -> tuple[FittedInput, ...]:
        """Inputs of the head, as training has fitted them."""

    def logits(self, films: Sequence[Cells]) -> NDArray[np.float32]:
        """Return the raw log-odds, float32 (films, genres)."""

    def tokens(self, films: Sequence[Cells]) -> list[int | None]:
        """Return how many tokens each text has before it is cut, special ones included; None if there are none."""


def open_scorer(directory: str | os.PathLike[str], device: str | None = None, precision: str | None = None) -> Scorer:
    """Open a run of any kind.

    Args:
        directory: Directory of a run of `fit`, `baseline` or `ensemble`.
        device: "cpu", "cuda", "cuda:1", "mps"; None chooses.
        precision: Precision, such as "32-true"; None takes that of the training, if the device has it.

    Raises:
        CheckpointError: No run, an unfinished or a damaged one.
        ConfigError: No such device, one that lacks the precision, or a base that is not there.
    """
    if device is not None:
        device_named(device)
    if precision is not None and precision not in PRECISIONS:
        raise ConfigError(f"precision is {precision}: give one of {', '.join(PRECISIONS)}")
    return _open(Path(directory).expanduser().absolute(), device, precision, [])


def _open(path: Path, device: str | None, precision: str | None, opened: list[Path]) -> Scorer:
    """Open a run; `opened` has the runs that were opened for the same ensemble, which may have ensembles in it."""
    opened.append(path)
    if len(opened) > _MAX_MEMBERS:
        raise CheckpointError(
            f"{opened[0]} is an ensemble that names itself, or more than {_MAX_MEMBERS} runs: make it again of fewer"
        )
    run = open_run(path)
    settings = checked_settings(run)
    kind = kind_of(settings)
    if kind == ENSEMBLE:
        return EnsembleScorer(run, device, precision, opened)
    return ModelScorer(run, settings, device, precision) if kind == "fit" else BaselineScorer(run, settings)


class BaselineScorer(TemplateReader):
    """A model that counts words.

    Args:
        run: Its directory.
        settings: Its configuration.
    """

    max_tokens: int | None = None

    def __init__(self, run: RunDirectory, settings: Mapping[str, Any]) -> None:
        super().__init__(settings)
        decision = read_decision(run.decision, run.again)
        self.model = read_baseline(run.baseline, decision.checkpoint_sha256)
        self.decision = decision.for_genres(self.model.fitted().genres)

    @property
    def fitted_inputs(self) -> tuple[FittedInput, ...]:
        """See `Scorer`."""
        return tuple(self.model.fitted().inputs)

    def inputs(self, films: Sequence[Cells]) -> EncodedInputs | None:
        """See `ModelScorer.inputs`."""
        return encode_cells(self.fitted_inputs, self.features, films)

    def logits(self, films: Sequence[Cells]) -> NDArray[np.float32]:
        """See `Scorer`."""
        return require_finite(self.model.logits(self.texts(films), input_matrix(self.inputs(films))))

    def tokens(self, films: Sequence[Cells]) -> list[int | None]:
        """See `Scorer`."""
        return [None] * len(films)


class EnsembleScorer:
    """The weighted mean of runs.

    Args:
        run: Directory of the ensemble.
        device: See `open_scorer`.
        precision: See `open_scorer`.
        opened: Runs that were opened before, see `_open`.
    """

    def __init__(
        self,
        run: RunDirectory,
        device: str | None = None,
        precision: str | None = None,
        opened: list[Path] | None = None,
    ) -> None:
        run.check_members()
        members = run.members()
        opened = [run.path] if opened is None else opened
        self.weights = np.array([weight for _, weight in members], dtype=np.float64)
        self.members = [_open(member.path, device, precision, opened) for member, _ in members]
        genres = self.members[0].decision.genres
        for (place, _), member in zip(members, self.members, strict=True):
            if member.decision.genres != genres:
                raise CheckpointError(
                    f"{place.path} knows other genres than the ensemble's first run: make the ensemble again "
                    "from runs on the same films"
                )
        self.decision = read_decision(run.decision, run.again).for_genres(genres)
        self.columns = self.members[0].columns
        self.fields = tuple(dict.fromkeys(name for member in self.members for name in member.fields))
        self.features = tuple({f.column: f for member in self.members for f in member.features}.values())
        self.join = tuple({join.name: join for member in self.members for join in member.join}.values())
        limits = [member.max_tokens for member in self.members if member.max_tokens is not None]
        self.max_tokens: int | None = min(limits) if limits else None

    @property
    def fitted_inputs(self) -> tuple[FittedInput, ...]:
        """See `Scorer`."""
        return tuple({one.name: one for member in self.members for one in member.fitted_inputs}.values())

    def logits(self, films: Sequence[Cells]) -> NDArray[np.float32]:
        """See `Scorer`."""
        each = [member.decision.probabilities(member.logits(films)) for member in self.members]
        return mean_log_odds(each, self.weights)

    def tokens(self, films: Sequence[Cells]) -> list[int | None]:
        """See `Scorer`; of the member that reads the least of a text."""
        limited = [member for member in self.members if member.max_tokens is not None]
        if not limited:
            return [None] * len(films)
        return min(limited, key=lambda member: member.max_tokens or 0).tokens(films)
