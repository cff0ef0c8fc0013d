"""TensorBoard for a run directory that is resumed."""

from __future__ import annotations

from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from typing_extensions import override

from genre_lightning.runs import RunDirectory


class RunTensorBoardLogger(TensorBoardLogger):
    """Lightning's TensorBoard logger in the run directory's folder `tensorboard`, whose curves are those of curves.csv.

    Args:
        run: The directory.
    """

    def __init__(self, run: RunDirectory) -> None:
        super().__init__(str(run.path), name="", version="tensorboard")

    @rank_zero_only
    def resume_at(self, step: int) -> None:
        """Have readers drop what earlier starts logged from that step on, which is about to be logged again.

        Args:
            step: Optimizer steps done in the checkpoint.
        """
        self._kwargs["purge_step"] = step

    @override
    def save(self) -> None:
        """Flush the events; the hyper-parameters are in config.yaml."""
        if self._experiment is not None:
            self._experiment.flush()
