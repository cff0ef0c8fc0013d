"""From logits to genres: calibration and thresholds, fitted on validation and kept as a part of the model."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from genre_lightning.config.decision import POLICIES, SHRINKAGE, Calibration, Policy
from genre_lightning.errors import CheckpointError, ConfigError
from genre_lightning.evaluation.calibration import (
    calibrated_probabilities,
    choose_calibration,
    fit_platt,
    fit_temperature,
)
from genre_lightning.evaluation.predictions import Predictions
from genre_lightning.evaluation.thresholds import (
    RESAMPLES,
    best_constant_genres,
    best_genre_thresholds,
    best_global_threshold,
)
from genre_lightning.files import REMAKE, read_record, write_json
from genre_lightning.metrics import BoolArray, FloatArray, judged, known_pairs, policy_metrics
from genre_lightning.shapes import Shape, count, maybe_number, number, require_shape, text

CALIBRATIONS: tuple[Calibration, ...] = get_args(Calibration)


@dataclass(frozen=True, eq=False)
class Decision:
    """How logits become probabilities and probabilities genres."""

    genres: tuple[str, ...]
    """The vocabulary, in the order of the logits' columns."""
    temperature: float
    """Logits are divided by it; 1 with Platt scaling."""
    threshold_global: float
    """Of the policy `global`; compared with calibrated probabilities."""
    threshold_per_genre: NDArray[np.float64]
    """Of the policy `per_genre`, (genres,)."""
    platt: tuple[NDArray[np.float64], NDArray[np.float64]] | None = None
    """Scale and shift of each genre, (genres,) each, in place of the temperature."""
    fitted_on: str = "none"
    """The split that it was fitted on; "none" for the default 0.5 everywhere."""
    n_films: int = 0
    """Films of that split."""
    checkpoint_sha256: str | None = None
    """Of the checkpoint whose logits it was fitted on; None for a model without one."""
    without_positives: tuple[str, ...] = ()
    """Genres that no film of the split has: their threshold is the global one."""
    scores: dict[str, dict[str, float]] = field(default_factory=dict)
    """Each policy's f1_micro and f1_macro on the films it was fitted on: optimistic, for orientation only."""
    constant: tuple[str, ...] = ()
    """The trivial baseline: the genres that have the best micro-F1 there if every film is given just these."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "threshold_per_genre", np.asarray(self.threshold_per_genre, dtype=np.float64))

    @property
    def calibration(self) -> Calibration:
        """Name what the logits go through."""
        if self.platt is not None:
            return "platt"
        return "none" if self.temperature == 1 else "temperature"

    @property
    def affine(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Give what makes raw logits calibrated log-odds: scale and shift of each genre, float64 (genres,) each."""
        if self.platt is not None:
            return self.platt
        return np.full(len(self.genres), 1 / self.temperature), np.zeros(len(self.genres))

    def probabilities(self, logits: FloatArray) -> NDArray[np.float32]:
        """Calibrate raw logits (films, genres) into float32 probabilities of the same shape."""
        return calibrated_probabilities(logits, self.temperature, self.platt)

    def thresholds(self, policy: Policy) -> NDArray[np.float64]:
        """Give a policy's threshold of each genre, float64 (genres,).

        Raises:
            ConfigError: There is no such policy.
        """
        if policy == "per_genre":
            return self.threshold_per_genre
        if policy == "global":
            return np.full(len(self.genres), self.threshold_global)
        if policy == "fixed_0.5":
            return np.full(len(self.genres), 0.5)
        raise ConfigError(f"there is no decision policy {policy!r}: choose one of {', '.join(POLICIES)}")

    def decide(self, probabilities: FloatArray, policy: Policy = "per_genre") -> BoolArray:
        """Choose genres whose probability >= threshold: bool (films, genres), from calibrated probabilities."""
        return np.asarray(probabilities, dtype=np.float64) >= self.thresholds(policy)

    def with_checkpoint(self, sha256: str | None) -> Decision:
        """Bind the decision to a checkpoint by its SHA-256."""
        return replace(self, checkpoint_sha256=sha256)

    def to_dict(self) -> dict[str, Any]:
        """Give what JSON or a checkpoint holds; `from_dict` restores it exactly."""
        platt = None
        if self.platt is not None:
            platt = {
                "scale": dict(zip(self.genres, self.platt[0].tolist(), strict=True)),
                "shift": dict(zip(self.genres, self.platt[1].tolist(), strict=True)),
            }
        return {
            "genres": list(self.genres),
            "calibration": self.calibration,
            "temperature": float(self.temperature),
            "platt": platt,
            "thresholds": {
                "global": float(self.threshold_global),
                "per_genre": dict(zip(self.genres, self.threshold_per_genre.tolist(), strict=True)),
            },
            "checkpoint_sha256": self.checkpoint_sha256,
            "fitted_on": self.fitted_on,
            "n_films": self.n_films,
            "without_positives": list(self.without_positives),
            "scores": self.scores,
            "constant": list(self.constant),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Decision:
        """Restore a decision.

        Raises:
            ValueError: The values are not those of a decision; the message names the value.
        """
        require_shape(values, _SHAPE)
        genres, thresholds, platt = tuple(values["genres"]), values["thresholds"], values.get("platt")
        if not genres or len(set(genres)) != len(genres):
            raise ValueError("genres are not distinct names")
        constant = tuple(values.get("constant") or ())
        if unknown := sorted(set(constant) - set(genres)):
            raise ValueError(f"constant names an unknown genre, {unknown[0]!r}")
        scale_and_shift = None
        if platt is not None:
            scale_and_shift = (
                _column(platt["scale"], genres, "platt.scale"),
                _column(platt["shift"], genres, "platt.shift"),
            )
            if not (scale_and_shift[0] > 0).all():
                raise ValueError("platt.scale holds a scale that is not positive")
        return cls(
            genres=genres,
            temperature=float(values["temperature"]),
            threshold_global=float(thresholds["global"]),
            threshold_per_genre=_column(thresholds["per_genre"], genres, "thresholds.per_genre"),
            platt=scale_and_shift,
            fitted_on=values.get("fitted_on") or "none",
            n_films=values.get("n_films") or 0,
            checkpoint_sha256=values.get("checkpoint_sha256"),
            without_positives=tuple(values.get("without_positives") or ()),
            scores=dict(values.get("scores") or {}),
            constant=constant,
        )

    def for_genres(self, genres: Sequence[str]) -> Decision:
        """Give the same decision for logits whose columns are in another order.

        Args:
            genres: Names of the columns.

        Raises:
            CheckpointError: They are not the decision's genres.
        """
        if self.genres == tuple(genres):
            return self
        if differing := sorted(set(self.genres) ^ set(genres)):
            raise CheckpointError(
                f"the decision is of other genres than the model ({', '.join(differing[:5])} in only one of them): "
                f"{REMAKE}"
            )
        order = [self.genres.index(genre) for genre in genres]
        platt = None if self.platt is None else (self.platt[0][order], self.platt[1][order])
        return replace(self, genres=tuple(genres), threshold_per_genre=self.threshold_per_genre[order], platt=platt)


def fit_decision(
    predictions: Predictions,
    split: str,
    *,
    calibration: Calibration = "auto",
    shrinkage: float = SHRINKAGE,
    resamples: int = RESAMPLES,
    seed: int = 0,
    checkpoint_sha256: str | None = None,
) -> Decision:
    """Fit calibration and thresholds on held-out predictions.

    Training weighs positives (pos_weight), which shifts the logits of each genre by another amount: one temperature
    cannot undo that, Platt scaling can. Either way the thresholds of each genre are fitted after it.

    Args:
        predictions: Predictions of films that the model was not trained on.
        split: Their split's name; "test" is refused.
        calibration: "none", "temperature", "platt", or "auto" for the one of the last two with the better
            cross-validated likelihood on these films.
        shrinkage: Pull of a genre's threshold to the global one, in positives.
        resamples: Bootstrap resamples that a genre's threshold is averaged over.
        seed: Random seed of the resampling.
        checkpoint_sha256: SHA-256 of the checkpoint that made the predictions.

    Raises:
        ConfigError: The split is test, or there is no such calibration.
        DataError: There is no film, or no film has a genre.
    """
    if split == "test":
        raise ConfigError("a decision fitted on test would flatter the test metrics: fit it on validation")
    if calibration not in CALIBRATIONS:
        raise ConfigError(f"there is no calibration {calibration!r}: choose one of {', '.join(CALIBRATIONS)}")
    predictions.require_films(f"fit the decision on {split}")
    logits, labels, known = predictions.logits, predictions.labels, predictions.known
    temperature, platt = 1.0, None
    if calibration == "auto":
        calibration = choose_calibration(logits, labels, seed=seed, known=known)
    if calibration == "temperature":
        temperature = fit_temperature(*known_pairs(known, logits, labels))
    elif calibration == "platt":
        platt = fit_platt(logits, labels, known)
    probabilities = calibrated_probabilities(logits, temperature, platt)
    names = np.array(predictions.genres, dtype=object)
    threshold = best_global_threshold(*known_pairs(known, probabilities, labels))
    decision = Decision(
        genres=predictions.genres,
        temperature=temperature,
        threshold_global=threshold,
        threshold_per_genre=best_genre_thresholds(probabilities, labels, threshold, shrinkage, resamples, seed, known),
        platt=platt,
        fitted_on=split,
        n_films=len(predictions),
        checkpoint_sha256=checkpoint_sha256,
        without_positives=tuple(names[~labels.any(axis=0)]),
        constant=tuple(names[best_constant_genres(labels, known)]),
    )
    return replace(decision, scores=_scores(decision, probabilities, labels, known))


def write_decision(decision: Decision, path: str | os.PathLike[str]) -> None:
    """Write decision.json, whole or not at all."""
    write_json(path, decision.to_dict())


def read_decision(path: str | os.PathLike[str], fix: str = REMAKE) -> Decision:
    """Read decision.json.

    Args:
        path: Path of the file.
        fix: Fix to report for one that is missing or damaged.

    Raises:
        CheckpointError: The file is missing or damaged.
    """
    return read_record(path, Decision.from_dict, fix)


def check_checkpoint(decision: Decision, sha256: str | None, fix: str = REMAKE) -> None:
    """Refuse a decision that was fitted on another checkpoint's logits; one bound to no checkpoint fits any.

    Raises:
        CheckpointError: The SHA-256 differ.
    """
    expected = decision.checkpoint_sha256
    if expected is not None and expected != sha256:
        raise CheckpointError(
            f"the decision belongs to the checkpoint with SHA-256 {expected[:12]}… and this one has "
            f"{(sha256 or 'none')[:12]}…: restore the checkpoint, or {fix}"
        )


def _scores(
    decision: Decision, probabilities: FloatArray, labels: BoolArray, known: BoolArray | None
) -> dict[str, dict[str, float]]:
    """Score each policy on the films it was fitted on."""
    scores: dict[str, dict[str, float]] = {}
    for policy in POLICIES:
        figures = policy_metrics(labels, judged(decision.decide(probabilities, policy), known), known)
        scores[policy] = {name: figures[name] for name in ("f1_micro", "f1_macro")}
    return scores


def _column(values: Mapping[str, float], genres: tuple[str, ...], place: str) -> NDArray[np.float64]:
    """Match values to genres by name."""
    if differing := sorted(set(values) ^ set(genres)):
        name = differing[0]
        raise ValueError(f"{place} {'has no value for' if name in genres else 'names an unknown genre,'} {name!r}")
    return np.array([float(values[genre]) for genre in genres])


def _threshold(value: Any) -> bool:
    """Check for a number from 0 to 1."""
    return number(value) and 0 <= value <= 1


def _temperature(value: Any) -> bool:
    """Check for a positive number."""
    return number(value) and value > 0


_SHAPE: Shape = {
    "genres": [text],
    "temperature": _temperature,
    "thresholds": {"global": _threshold, "per_genre": {"*": _threshold}},
    "platt?": {"scale": {"*": number}, "shift": {"*": number}},
    "checkpoint_sha256?": text,
    "fitted_on?": text,
    "n_films?": count,
    "without_positives?": [text],
    "scores?": {"*": {"*": maybe_number}},
    "constant?": [text],
}
