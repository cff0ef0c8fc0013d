"""Starts a function or a command on several ranks over gloo, and reports the first failure with its rank."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch.multiprocessing.spawn import ProcessException

# one process imports these, and every rank is a fork of it: a start costs a tenth of a second and not ten seconds
multiprocessing.set_forkserver_preload(
    ["genre_lightning.training.fit", "genre_lightning.training.predict", "genre_lightning.models.llama_qlora",
     "bitsandbytes", "peft", "transformers.models.llama.modeling_llama", "transformers.models.distilbert"]
)  # fmt: skip


def run_on_ranks(function: Callable[..., Any], world_size: int, *arguments: Any) -> None:
    """Runs `function(rank, *arguments)` in a process for each rank, in one gloo group.

    The ranks meet through a file: no port is asked for, so none can be taken.

    Raises:
        AssertionError: A rank failed; the message has the traceback of the first one.
    """
    with tempfile.TemporaryDirectory() as folder:
        started = torch.multiprocessing.start_processes(
            _rank, args=(world_size, Path(folder), function, arguments, dict(os.environ)), nprocs=world_size,
            join=False, start_method="forkserver",
        )  # fmt: skip
        deadline = time.monotonic() + 120
        try:
            # it returns whenever a rank has ended
            while not started.join(timeout=max(deadline - time.monotonic(), 0.1)) and time.monotonic() < deadline:
                pass
        except ProcessException:
            pass  # what failed first is reported below
        for process in started.processes:
            process.kill()
        failures = sorted(Path(folder).glob("failure-*"))
        assert not failures, failures[0].read_text()
        assert len(list(Path(folder).glob("done-*"))) == world_size, "a rank hangs or died without a word"


def run_command_on_ranks(world_size: int, *commands: Sequence[str], quick: bool = True) -> None:
    """Runs command lines of `genre-lightning`, one after another, on ranks that were started from outside.

    Args:
        world_size: Ranks.
        commands: Each with its words, such as ["fit", "--run_dir=…"].
        quick: Leave out plots and page, which are most of a small run's time.

    Raises:
        AssertionError: An exit status is not 0; with what that rank said.
    """
    with tempfile.TemporaryDirectory() as meetings:
        run_on_ranks(_commands, world_size, world_size, [list(words) for words in commands], quick, Path(meetings))


def _commands(rank: int, world_size: int, commands: list[list[str]], quick: bool, meetings: Path) -> None:
    from lightning.pytorch.utilities.rank_zero import rank_zero_only

    from genre_lightning import __main__
    from genre_lightning.evaluation.plots import figures
    from genre_lightning.training import resume as continuing

    # as torchrun tells them; Lightning then starts no ranks, and takes the group that is there
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(world_size), "GROUP_RANK": "0",
                   "GROUP_WORLD_SIZE": "1", "LOCAL_WORLD_SIZE": str(world_size), "TORCHELASTIC_RUN_ID": "test",
                   "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}  # fmt: skip
    rank_zero_only.rank = rank
    if quick:
        nothing = lambda *arguments, **options: None  # noqa: E731
        continuing.write_report = figures.write_figures = nothing
    for number, words in enumerate(commands):
        if not torch.distributed.is_initialized():  # the command before has parted its ranks
            meeting = f"file://{meetings / str(number)}"
            torch.distributed.init_process_group("gloo", init_method=meeting, rank=rank, world_size=world_size)
        said = Path(tempfile.mkstemp(prefix=f"rank{rank}-")[1])
        try:
            with said.open("w") as file, contextlib.redirect_stderr(file), contextlib.redirect_stdout(file):
                status = __main__.main(words)
            assert status == 0, f"{words} ended with status {status}: {said.read_text()[-2000:]}"
        finally:
            said.unlink()


def _rank(
    rank: int, world_size: int, folder: Path, function: Callable[..., Any], arguments: tuple[Any, ...],
    environment: dict[str, str],
) -> None:  # fmt: skip
    os.environ |= environment  # the forked process has that of its server, which may be older
    warnings.simplefilter("default")
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / 'meet'}", rank=rank, world_size=world_size
    )
    try:
        function(rank, *arguments)
        (folder / f"done-{rank}").touch()
    except BaseException:
        (folder / f"failure-{rank}").write_text(f"rank {rank}:\n{traceback.format_exc()}")
        raise
    finally:
        if torch.distributed.is_initialized():  # a command parts its ranks by itself
            torch.distributed.destroy_process_group()
