"""Starts a function on several ranks over gloo, and reports the first failure with its rank."""

from __future__ import annotations

import multiprocessing
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

# a server without threads that has imported torch once: each rank is forked from it in milliseconds
multiprocessing.set_forkserver_preload(["torch", "genre_lightning.distributed.sharded"])


def run_on_ranks(function: Callable[..., Any], world_size: int, *arguments: Any) -> None:
    """Runs `function(rank, *arguments)` in a process for each rank, in one gloo group.

    The ranks meet through a file: no port is asked for, so none can be taken.

    Raises:
        AssertionError: with the traceback of the first rank that failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        context = torch.multiprocessing.start_processes(
            _rank, (world_size, Path(folder), function, arguments), world_size, join=False, start_method="forkserver"
        )
        context.join(timeout=120)
        failures = sorted(Path(folder).glob("failure-*"))
        assert not failures, failures[0].read_text()
        assert len(list(Path(folder).glob("done-*"))) == world_size, "a rank hangs or died without a word"


def _rank(rank: int, world_size: int, folder: Path, function: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=world_size
    )
    try:
        function(rank, *arguments)
        (folder / f"done-{rank}").touch()
    except Exception:
        (folder / f"failure-{rank}").write_text(f"rank {rank}:\n{traceback.format_exc()}")
    finally:
        torch.distributed.destroy_process_group()
