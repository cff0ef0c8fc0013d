"""Ranks that watch each other's processes: one that dies ends the others within seconds, and is named."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from lightning.pytorch.strategies.launchers import subprocess_script

from genre_lightning.distributed.heartbeats import end_heartbeats, limit_seconds
from genre_lightning.distributed.launch import FIRST_RANK, rank_name, started_by_torchrun
from genre_lightning.distributed.signals import BEFORE_EXIT
from genre_lightning.errors import PreemptedError, PrunedError, RankLostError, one_line

_POLL_SECONDS = 0.5
_GRACE_SECONDS = 10.0
"""How long the other ranks may take to fail by themselves, with the words of their own errors."""

_BENIGN = (0, PreemptedError.exit_status)


def death_notice(rank: int, status: int) -> str:
    """Return the message about a rank that died."""
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    hint = " (out of memory, perhaps)" if status == -signal.SIGKILL else ""
    return (
        f"genre-lightning: rank {rank} {how}{hint}; its last output is above: "
        "the other ranks are stopped, and the same command resumes from the last checkpoint"
    )


class RankObserver(threading.Thread):
    """Watches the ranks that this process has started, and ends the run when one of them dies.

    It takes the place of Lightning's observer, which knows no other status than 0, so that a rank that has saved its
    state and left with 75 would have the others killed.

    Args:
        children: Processes of ranks 1, 2, … of this node.
    """

    def __init__(self, children: Sequence[subprocess.Popen[bytes]]) -> None:
        super().__init__(daemon=True, name="rank-observer")
        self.children = children
        self._said = threading.Lock()

    def run(self) -> None:
        """Poll until all have ended or one has died."""
        while True:
            if self.name_the_dead():
                self._end_all()
            if all(child.poll() is not None for child in self.children):
                return
            time.sleep(_POLL_SECONDS)

    def name_the_dead(self) -> bool:
        """Log once which rank has died, and return whether one has."""
        statuses = [child.poll() for child in self.children]
        dead = [(rank, s) for rank, s in enumerate(statuses, start=1) if s is not None and s not in _BENIGN]
        if dead and self._said.acquire(blocking=False):
            print(death_notice(*dead[0]), file=sys.stderr, flush=True)
        return bool(dead)

    def _end_all(self) -> None:
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline and any(child.poll() is None for child in self.children):
            time.sleep(_POLL_SECONDS)
        for child in self.children:
            if child.poll() is None:
                child.kill()
        # a collective that waits for the dead rank would hold this process for ever, whatever it catches
        os._exit(1)


_OBSERVER: list[RankObserver] = []
"""The observer of this process, if it has started ranks."""


def observe_children(children: list[subprocess.Popen[bytes]]) -> None:
    """Note the ranks that were started: Lightning's hook, called by the first process of a node."""
    _OBSERVER[:] = [RankObserver(children)]
    _OBSERVER[0].start()
    BEFORE_EXIT.append(_kill_children)


def _kill_children() -> None:
    # one that is stopped would not notice that this process is gone
    for child in _OBSERVER[0].children:
        if child.poll() is None:
            child.kill()


@contextmanager
def explaining_failures() -> Iterator[None]:
    """Name the dead rank when a collective fails here because of it, before the error is raised; then part the ranks.

    A rank that leaves while others still use its connections aborts, so all leave together.

    Raises:
        RankLostError: A rank was lost; raised in place of the error of the broken connection.
    """
    try:
        yield
    except RuntimeError as error:
        deadline = time.monotonic() + _GRACE_SECONDS / 2
        while _OBSERVER and not _OBSERVER[0].name_the_dead() and time.monotonic() < deadline:
            time.sleep(_POLL_SECONDS)
        if not _lost_a_rank(error):
            raise
        rank = rank_name()
        raise RankLostError(
            f"rank {rank} has lost its connection to a rank that died, whose own message has the reason "
            f"({one_line(error)[-120:]}): run the same command again to resume from the last checkpoint"
        ) from error
    except (PreemptedError, PrunedError):
        _part()
        raise
    _part()


def _lost_a_rank(error: RuntimeError) -> bool:
    """Return whether a collective raised it because a peer is gone: gloo has no class of its own for that."""
    return isinstance(error, torch.distributed.DistError) or "gloo/transport" in str(error)


def _part() -> None:
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        torch.distributed.barrier()
        end_heartbeats()
        torch.distributed.destroy_process_group()


def watch_parent(parent: int, name: str) -> None:
    """End this process when the one that started it is gone: a rank alone would wait in a collective for ever.

    Args:
        parent: Its process id.
        name: Name of what has ended, for the message.
    """

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        print(f"genre-lightning: rank {rank_name()} stops, as {name} is gone", file=sys.stderr, flush=True)
        # the others may be about to report why in errors of their own
        time.sleep(2 * _POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def watch_ranks() -> None:
    """Have every process of a run watch its family: call it before the trainer starts any rank.

    Raises:
        ConfigError: The environment's limit for heartbeats is none.
    """
    limit_seconds()
    subprocess_script._launch_process_observer = observe_children  # type: ignore[assignment]
    if started_by_torchrun():
        watch_parent(os.getppid(), "torchrun")
    elif "LOCAL_RANK" not in os.environ:
        # the ranks that Lightning starts from here inherit it: asked there, the system might name another by then
        os.environ[FIRST_RANK] = str(os.getpid())
    elif FIRST_RANK in os.environ and os.environ["LOCAL_RANK"] != "0":
        watch_parent(int(os.environ[FIRST_RANK]), "the first rank")
