"""Ranks that watch each other's processes: one that dies ends the others within seconds, and its name is said."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Sequence

from lightning.pytorch.strategies.launchers import subprocess_script

from genre_lightning.errors import PreemptedError

_POLL_SECONDS = 0.5
_GRACE_SECONDS = 10.0
"""How long the other ranks may take to fail by themselves, with the words of their own errors."""

_BENIGN = (0, PreemptedError.exit_status)


def death_notice(rank: int, status: int) -> str:
    """What is said of a rank that died."""
    how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with status {status}"
    hint = " (out of memory, perhaps)" if status == -signal.SIGKILL else ""
    return (
        f"genre-lightning: rank {rank} {how}{hint}; its last words stand above: "
        "the other ranks are stopped, and the same command goes on from the last checkpoint"
    )


class RankObserver(threading.Thread):
    """Watches the ranks that this process has started, and ends the run when one of them dies.

    It takes the place of Lightning's observer, which knows no other status than 0, so that a rank that has saved its
    state and left with 75 would have the others killed.

    Args:
        children: processes of ranks 1, 2, … of this node.
    """

    def __init__(self, children: Sequence[subprocess.Popen[bytes]]) -> None:
        super().__init__(daemon=True, name="rank-observer")
        self.children = children

    def run(self) -> None:
        """Polls until all have ended or one has died."""
        while True:
            statuses = [child.poll() for child in self.children]
            dead = [(rank, s) for rank, s in enumerate(statuses, start=1) if s is not None and s not in _BENIGN]
            if dead:
                self._end_all(*dead[0])
            if all(status is not None for status in statuses):
                return
            time.sleep(_POLL_SECONDS)

    def _end_all(self, rank: int, status: int) -> None:
        print(death_notice(rank, status), file=sys.stderr, flush=True)
        deadline = time.monotonic() + _GRACE_SECONDS
        while time.monotonic() < deadline and any(child.poll() is None for child in self.children):
            time.sleep(_POLL_SECONDS)
        for child in self.children:
            if child.poll() is None:
                child.kill()
        # a collective that waits for the dead rank would hold this process for ever, whatever it catches
        os._exit(1)


def observe_children(children: list[subprocess.Popen[bytes]]) -> None:
    """Lightning's hook: called by the first rank of a node when it has started the others."""
    RankObserver(children).start()


def watch_parent() -> None:
    """Ends this process when the one that started it is gone: a rank alone would wait in a collective for ever."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(_POLL_SECONDS)
        rank = os.environ.get("LOCAL_RANK", "?")
        print(f"genre-lightning: rank {rank} stops, as the first rank is gone", file=sys.stderr, flush=True)
        # the others may be about to say why in errors of their own
        time.sleep(2 * _POLL_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="parent-watch").start()


def watch_ranks() -> None:
    """Has every process of a run watch its family: call it before the trainer starts any rank."""
    subprocess_script._launch_process_observer = observe_children  # type: ignore[assignment]
    started_by_lightning = (
        "LOCAL_RANK" in os.environ and "NODE_RANK" in os.environ and "TORCHELASTIC_RUN_ID" not in os.environ
    )
    if started_by_lightning and os.environ["LOCAL_RANK"] != "0":
        watch_parent()
