"""Heartbeats of the ranks: one that is stopped, swaps or has lost its machine is named, and holds no signal up."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from genre_lightning.distributed.launch import rank_name
from genre_lightning.distributed.signals import FLAG, StopFlag, exit_at_once
from genre_lightning.errors import ConfigError, RankLostError

LIMIT = "GENRE_LIGHTNING_RANK_SECONDS"
"""Environment variable: seconds without a heartbeat after which a rank is named; 0 for no heartbeats."""

_LIMIT_SECONDS = 30.0
_PULSE_SECONDS = 2.0
"""Between two beats of a rank, or a quarter of a shorter limit."""
STOP_SECONDS = 10.0
"""How long a process that is asked to stop waits for a rank that does not answer, in seconds."""


def limit_seconds() -> float:
    """Return the seconds of `GENRE_LIGHTNING_RANK_SECONDS`.

    Raises:
        ConfigError: It is no such number.
    """
    text = os.environ.get(LIMIT, str(_LIMIT_SECONDS))
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds <= 1e6:
        raise ConfigError(f"{LIMIT}={text} in the environment: give seconds from 0 to 1,000,000")
    return seconds


class Silence(NamedTuple):
    """A rank that does not answer, and since when, in seconds."""

    rank: int
    seconds: float


class Heartbeats:
    """Counts up in the store of the ranks, and looks whether the others do.

    Rank 0 looks at all and leaves in the store who is silent; the others look at rank 0 and at its notes. So each
    rank costs a few messages a pulse, whatever their number.

    Args:
        store: Store that all ranks share; used by one thread alone.
        rank: Rank of this process.
        ranks: Number of ranks of the run.
        pulse: Seconds between two beats.
        clock: Seconds, from any moment on.
    """

    def __init__(
        self, store: Any, rank: int, ranks: int, pulse: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.store = store
        self.rank = rank
        self.pulse = pulse
        self.clock = clock
        self.others = [other for other in range(ranks) if other != rank] if rank == 0 else [0]
        self._count = 0
        self._seen: dict[int, tuple[bytes, float]] = {}
        self._said_by_first: Silence | None = None
        self._contact = self._looked = clock()

    def beat(self) -> None:
        """Count up, and look at the others; waits as long as the store does not answer."""
        self._count += 1
        self.store.set(f"alive/{self.rank}", str(self._count))
        for other in self.others:
            key = f"alive/{other}"
            # a rank that has not begun is still loading, which the launcher has its own limit for
            count = self.store.get(key) if self.store.check([key]) else b""
            if other not in self._seen or self._seen[other][0] != count:
                self._seen[other] = (count, self.clock())
        if self.rank == 0:
            silence = self.silence()
            self.store.set("silent", f"{silence.rank} {silence.seconds}" if silence else "")
        else:
            said = self.store.get("silent").decode() if self.store.check(["silent"]) else ""
            self._said_by_first = Silence(int(said.split()[0]), float(said.split()[1])) if said else None
        self._contact = self.clock()

    def silence(self) -> Silence | None:
        """Return the rank that has been silent for longest; None if all have beaten within three pulses."""
        now = self.clock()
        paused, self._looked = now - self._looked > 3 * self.pulse, now
        if paused:  # this process was, so that it cannot say how long others were
            self._contact, self._said_by_first = now, None
            self._seen = {other: (count, now) for other, (count, _) in self._seen.items()}
        # the store answers by the hand of rank 0, or of torchrun beside it
        found = [Silence(other, now - since) for other, (count, since) in self._seen.items() if count]
        if self.rank != 0:
            found = [Silence(0, max([now - self._contact, *(each.seconds for each in found)]))]
            if self._said_by_first and self._said_by_first.rank != self.rank:
                found.append(self._said_by_first)
        longest = max(found, key=lambda each: each.seconds, default=None)
        return longest if longest and longest.seconds > 3 * self.pulse else None


class RankWatch:
    """Names a rank that does not answer, and ends this process when it is asked to stop and cannot agree to.

    Args:
        beats: Heartbeats of this process.
        limit: Seconds of silence after which a rank is named.
        flag: Stop flag of this process.
    """

    def __init__(self, beats: Heartbeats, limit: float, flag: StopFlag = FLAG) -> None:
        self.beats = beats
        self.limit = limit
        self.flag = flag
        self._named: int | None = None
        self._over = threading.Event()
        # two threads, as a store whose process is stopped holds the first one
        self._threads = [
            threading.Thread(
                target=self._repeat, args=(self.beats.beat, _PULSE_SECONDS), daemon=True, name="heartbeat"
            ),
            threading.Thread(target=self._repeat, args=(self.look, _PULSE_SECONDS / 4), daemon=True, name="rank-watch"),
        ]

    def start(self) -> None:
        """Beat and look until `stop`."""
        for thread in self._threads:
            thread.start()
        atexit.register(self.stop)

    def stop(self) -> None:
        """End the threads, as far as the store lets them."""
        self._over.set()
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(timeout=self.beats.pulse)

    def _repeat(self, action: Callable[[], None], seconds: float) -> None:
        # a store that is gone has gone with its rank, whose end others see
        with contextlib.suppress(torch.distributed.DistError, RuntimeError):
            while not self._over.wait(seconds):
                action()
        self._over.set()

    def look(self) -> None:
        """Report each rank that stops answering, once, and when it answers again."""
        silence = self.beats.silence()
        if silence and self.flag.raised() and silence.seconds >= min(STOP_SECONDS, self.limit):
            exit_at_once(
                RankLostError.exit_status,
                f"rank {rank_name()} was asked to stop ({self.flag.signal}), and rank {silence.rank} has not answered "
                f"for {silence.seconds:.0f} s: ended without saving; the same command resumes from the last checkpoint",
            )
        if silence and silence.seconds >= self.limit and silence.rank != self._named:
            self._named = silence.rank
            if 0 in (self.beats.rank, silence.rank):  # what rank 0 cannot say, all others do
                self._say(
                    f"rank {silence.rank} has not answered for {silence.seconds:.0f} s and the others wait for it: is "
                    "its process stopped, out of memory, or its machine gone? Ctrl-C or SIGTERM ends the run"
                )
        elif silence is None and self._named is not None:
            if 0 in (self.beats.rank, self._named):
                self._say(f"rank {self._named} answers again")
            self._named = None

    def _say(self, line: str) -> None:
        print(f"genre-lightning: {line}", file=sys.stderr, flush=True)


_WATCH: list[RankWatch] = []
"""The watch of this process, while its ranks are together."""


def watch_heartbeats(rank: int, ranks: int) -> None:
    """Start the heartbeats of this rank, once its process group is there; nothing if they have started."""
    limit = limit_seconds()
    if ranks > 1 and limit and not _WATCH:
        # its own connection: a collective that waits may hold the other
        store: Any = torch.distributed.distributed_c10d._get_default_store()
        store = torch.distributed.PrefixStore("heartbeats", store.clone())  # torch's types lack this method
        _WATCH.append(RankWatch(Heartbeats(store, rank, ranks, min(_PULSE_SECONDS, limit / 4)), limit))
        _WATCH[0].start()


def end_heartbeats() -> None:
    """End the heartbeats, before the ranks part."""
    while _WATCH:
        _WATCH.pop().stop()
