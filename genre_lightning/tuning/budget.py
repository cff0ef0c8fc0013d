"""How many trials of a study fit a time budget, by the plan of one."""

from __future__ import annotations

from dataclasses import dataclass

from genre_lightning.progress import duration
from genre_lightning.tuning.sampling import REDUCTION


@dataclass(frozen=True)
class TrialsReport:
    """Trials that fit a budget.

    Attributes:
        budget_seconds: Of each worker.
        workers: At once.
        trial_seconds: Of one trial's training, as the configuration stands.
        trials: That fit without pruning.
        trials_asha: That fit if ASHA lets every third trial go past its epochs 1, 3, 9, ...
    """

    budget_seconds: float
    workers: int
    trial_seconds: float
    trials: int
    trials_asha: int

    def lines(self) -> list[str]:
        """Return what `plan` prints."""
        workers = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        return [
            f"{self.trials:,} trials of {duration(self.trial_seconds)} fit {duration(self.budget_seconds)} on "
            f"{workers}, and about {self.trials_asha:,} with --pruning asha",
            "of training as the configuration stands; validation, saving and options that change a trial's length come "
            "on top",
        ]


def trials_in(budget_seconds: float, trial_seconds: float, *, epochs: int, workers: int) -> TrialsReport:
    """Return how many trials fit.

    Args:
        budget_seconds: Of each worker.
        trial_seconds: Of one trial.
        epochs: Of one trial.
        workers: At once.
    """
    # a trial that is under way when the time ends does not count
    whole = int(budget_seconds // trial_seconds) * workers
    fraction = pruned_epochs(epochs) / max(epochs, 1)
    return TrialsReport(
        budget_seconds, workers, trial_seconds, whole, int(budget_seconds // (trial_seconds * fraction)) * workers
    )


def pruned_epochs(epochs: int) -> float:
    """Return the epochs of a trial under ASHA, on average: one of three goes past epoch 1, one of nine past epoch 3."""
    total, alive, rung = 0.0, 1.0, 1
    for epoch in range(1, epochs + 1):
        total += alive
        if epoch == rung:
            alive, rung = alive / REDUCTION, rung * REDUCTION
    return total
