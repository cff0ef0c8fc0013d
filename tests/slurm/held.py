"""A rank that waits for a signal at a chosen step, so that a test can strike a run where it wants.

Takes the place of the interpreter in a batch script: `held.py -m genre_lightning fit …`. HOLD="5 12" in the environment
waits within step 5 in the job's first start and within step 12 in its second; later starts wait nowhere.
"""

from __future__ import annotations

import os
import sys
import time
from typing import Any


def hold_at(step: int) -> None:
    """Has the training wait in a step until a stop signal has come to this rank."""
    from genre_lightning.distributed import preemption
    from genre_lightning.distributed.signals import FLAG
    from genre_lightning.models.base import GenreClassifier

    # the ranks agree after every step, not once a second: the step that they stop after is then known
    preemption._ASK_SECONDS = 0.0

    original = GenreClassifier.training_step

    def held(self: GenreClassifier, *arguments: Any) -> Any:
        if self.trainer.global_step == step and not FLAG.raised():
            print(f"held in step {step}", file=sys.stderr, flush=True)
            while not FLAG.raised():
                time.sleep(0.1)
        return original(self, *arguments)

    GenreClassifier.training_step = held  # type: ignore[method-assign]


if __name__ == "__main__":
    from genre_lightning.__main__ import main
    from genre_lightning.distributed.signals import BATCH_SIGNALS, stopping_on_signals

    steps = [int(step) for step in os.environ.get("HOLD", "").split()]
    start = int(os.environ.get("SLURM_RESTART_COUNT", "0"))
    sys.argv[1:3] = []
    with stopping_on_signals(BATCH_SIGNALS):
        if start < len(steps):
            hold_at(steps[start])
        status = main()
        # with the signals as `main` leaves them
        os._exit(status)
