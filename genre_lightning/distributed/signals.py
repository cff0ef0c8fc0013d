"""Signals that ask a process to save its state and stop; no library is loaded here, so that none comes too early."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from genre_lightning.errors import PreemptedError

BATCH_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What a batch system sends; a person at a terminal sends SIGINT too."""

STOP_SIGNALS = (*BATCH_SIGNALS, signal.SIGINT)


class StopFlag:
    """Whether a signal has asked this process to save and stop.

    Attributes:
        signal: name of the first such signal, or None.
    """

    def __init__(self) -> None:
        self.clear()

    def clear(self) -> None:
        """Forgets what has come."""
        self.signal: str | None = None
        self._interrupted = False

    def raised(self) -> bool:
        """Whether a signal has come."""
        return self.signal is not None

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Sets the flag and does nothing else: a save from here could start inside a collective or another save."""
        if number == signal.SIGINT and self._interrupted:
            os._exit(130)  # asked twice: at once, and without the waiting of other clean-up
        self._interrupted = self._interrupted or number == signal.SIGINT
        self.signal = self.signal or signal.Signals(number).name

    def check(self) -> None:
        """Stops here if a signal has come: for phases that have nothing to save, in a process without other ranks.

        Raises:
            PreemptedError: it has.
        """
        if self.raised():
            raise PreemptedError(f"stopped by {self.signal}: run the same command again to go on")


FLAG = StopFlag()
"""The process's own: signals belong to a process."""


def ignore_batch_signals() -> None:
    """For a process that has done its work: to unload the libraries takes a while, and is nothing to be killed in."""
    for number in BATCH_SIGNALS:
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def stopping_on_signals(
    numbers: Sequence[signal.Signals] = STOP_SIGNALS, flag: StopFlag = FLAG, *, last: bool = False
) -> Iterator[StopFlag]:
    """Has signals set the flag while the block runs; then puts the former handlers back and the flag down.

    Args:
        numbers: signals that set the flag.
        flag: to be set.
        last: the process does nothing after the block but end. Batch signals are then ignored from its end on, with no
            moment between: the rank that ends first has its launcher send SIGTERM to those that are still ending.
    """
    if threading.current_thread() is not threading.main_thread():
        yield flag  # only the main thread may set handlers
        return
    before = {number: signal.signal(number, flag.handle) for number in numbers}
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if last and number in BATCH_SIGNALS else handler)
        flag.clear()
