"""How the options of a trial are chosen, and how trials are ended early: Optuna's samplers and pruners."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import optuna

Sampler = Literal["tpe", "random", "grid", "cmaes"]
Pruning = Literal["none", "median", "asha", "hyperband"]
SAMPLERS: tuple[Sampler, ...] = ("tpe", "random", "grid", "cmaes")
PRUNINGS: tuple[Pruning, ...] = ("none", "median", "asha", "hyperband")

REDUCTION = 3
"""ASHA and Hyperband let one trial in n go past each of their epochs 1, 3, 9, ..."""


def make_sampler(kind: Sampler, seed: int) -> optuna.samplers.BaseSampler:
    """Return what chooses the options of a trial."""
    import optuna

    if kind == "tpe":
        return optuna.samplers.TPESampler(seed=seed)
    if kind == "cmaes":
        return optuna.samplers.CmaEsSampler(seed=seed, warn_independent_sampling=False)
    return optuna.samplers.RandomSampler(seed=seed)  # the points of a grid are given


def make_pruner(kind: Pruning, epochs: int) -> optuna.pruners.BasePruner:
    """Return what ends trials early.

    Args:
        kind: Of pruning.
        epochs: That a trial has at most.
    """
    import optuna

    if kind == "median":
        return optuna.pruners.MedianPruner(n_startup_trials=4)
    if kind == "asha":
        return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=REDUCTION)
    if kind == "hyperband":
        return optuna.pruners.HyperbandPruner(1, max(epochs, 1), REDUCTION)
    return optuna.pruners.NopPruner()
