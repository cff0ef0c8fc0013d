"""A `genre-lightning` process that a fault strikes at a chosen moment.

Run as `python worker.py fit …` with FAULT="moment:count:signal[:rank]" in the environment: at the count-th time that
the moment comes, the process (of that rank, 0 unless named) sends itself the signal. Without FAULT nothing strikes.
"""

from __future__ import annotations

import functools
import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

MOMENTS: dict[str, tuple[str, str]] = {
    "start-up": ("genre_lightning.commands.fit", "check_setup"),
    "reading": ("genre_lightning.data.films", "_write"),
    "tokenising": ("genre_lightning.data.tokens", "encode"),
    "cache rename": ("genre_lightning.data.cache", "_flush"),
    "before training": ("genre_lightning.commands.fit", "build_trainer"),
    "in a step": ("genre_lightning.models.base", "GenreClassifier.model_step"),
    "after backward": ("genre_lightning.models.base", "GenreClassifier.configure_gradient_clipping"),
    "between steps": ("genre_lightning.models.base", "GenreClassifier._seed_dropout"),
    "in validation": ("genre_lightning.models.base", "GenreClassifier.validation_step"),
    "end of validation": ("genre_lightning.models.base", "GenreClassifier.on_validation_epoch_end"),
    "end of epoch": ("genre_lightning.models.base", "GenreClassifier.on_train_epoch_end"),
    "before a save": ("genre_lightning.distributed.checkpoint_io", "write_checkpoint"),
    "inside a save": ("genre_lightning.distributed.checkpoint_io", "os.fsync"),
    "between a save's renames": ("genre_lightning.distributed.manifests", "_write_manifest"),
    "in evaluation": ("genre_lightning.models.base", "GenreClassifier.predict_step"),
    "fitting the decision": ("genre_lightning.commands.evaluation", "fit_decision"),
    "writing the evaluation": ("genre_lightning.commands.evaluation", "write_evaluation"),
}
"""Name of a moment → (module, attribute) of the function whose call it is."""


def strike_at(moment: str, count: int, number: int) -> None:
    """Arms the fault in this process."""
    place, _, name = MOMENTS[moment][1].rpartition(".")
    owner: Any = importlib.import_module(MOMENTS[moment][0])
    for part in filter(None, place.split(".")):
        owner = getattr(owner, part)
    original: Callable[..., Any] = getattr(owner, name)
    calls = 0

    @functools.wraps(original)
    def struck(*args: Any, **kwargs: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == count:
            os.kill(os.getpid(), number)
        return original(*args, **kwargs)

    setattr(owner, name, struck)


def rank_of_this_process() -> int:
    """Global rank as Lightning's launcher, torchrun or SLURM tells it."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if name in os.environ:
            return int(os.environ[name])
    return 0


def arm(fault: str | None) -> None:
    """Arms what FAULT says, if it is for this rank."""
    if not fault:
        return
    moment, count, name, *rank = fault.split(":")
    if rank_of_this_process() == int(rank[0] if rank else 0):
        strike_at(moment, int(count), signal.Signals[name])


if __name__ == "__main__":
    arm(os.environ.get("FAULT"))
    from genre_lightning.__main__ import main

    sys.exit(main())
