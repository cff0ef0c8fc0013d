"""The options of a decision: read without loading what fits it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal, get_args

from genre_lightning.bounds import Bounds

SHRINKAGE = 2.0
"""Positives of prior weight; chosen by cross-validation, see benchmarks/threshold_shrinkage.py."""


Policy = Literal["fixed_0.5", "global", "per_genre"]
POLICIES: tuple[Policy, ...] = get_args(Policy)
SHIPPED_POLICY: Policy = "per_genre"
"""The policy of the genres column, of per_genre.csv, and of the commands that tag films."""
Calibration = Literal["auto", "none", "temperature", "platt"]


@dataclass
class DecisionOptions:
    """How probabilities and thresholds are fitted on validation, once the model is trained.

    A run keeps its decision. Other options, given to the command of the run or to `validate`, fit it again; so does
    `validate` without its decision.json.

    Attributes:
        calibration: One "temperature", "platt" scaling for each genre, "none", or "auto" for the one of the first two
            with the better cross-validated likelihood on validation.
        shrinkage: Pull of a genre's threshold to the global one, in positives of the genre.
    """

    calibration: Calibration = "auto"
    shrinkage: Annotated[float, Bounds(0, 1e9)] = SHRINKAGE
