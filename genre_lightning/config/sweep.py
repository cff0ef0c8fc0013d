"""A training that an agent of Weights & Biases has started: its run's id, and its options in the agent's form."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from jsonargparse import Namespace

from genre_lightning.config.run import WandbOptions


def sweep_run_id(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return the id that the agent of a sweep has given this process's run; None outside of a sweep."""
    return environment.get("WANDB_RUN_ID") if environment.get("WANDB_SWEEP_ID") else None


def from_agent(words: Sequence[str]) -> list[str]:
    """Write an agent's arguments, which are Python's texts of the values, as the parser reads them."""
    if sweep_run_id() is None:
        return list(words)
    return [re.sub(r"^(--[\w.]+)=None$", r"\1=null", word) for word in words]


def take_sweep(config: Namespace) -> None:
    """Give a training of a sweep its own run directory, named by the run's id, and W&B's logger, in place."""
    run_id = sweep_run_id()
    if run_id is None:
        return
    run_dir = Path(config.run_dir)
    if run_dir.name != run_id:
        config.run_dir = run_dir / run_id
    if config.get("wandb") is None:
        config.wandb = Namespace(**asdict(WandbOptions()))
