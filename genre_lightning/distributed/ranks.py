"""What all ranks of a run do together, and what one of them does for all."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only

from genre_lightning.progress import say

if TYPE_CHECKING:
    pass


T = TypeVar("T")


def from_all_ranks(value: T) -> list[T]:
    """Return what each rank gives, by rank, on every rank; a collective."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [value]
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, value)
    return gathered


def is_first_rank() -> bool:
    """Return whether this process writes the run's files."""
    return getattr(rank_zero_only, "rank", 0) == 0


def tell(line: str) -> None:
    """Log a line once, however many ranks there are."""
    if is_first_rank():
        say(line)
