"""Signals that ask a process to save its state and stop; no library is loaded here, so that none comes too early."""

from __future__ import annotations

import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType

from genre_lightning.distributed.launch import has_company
from genre_lightning.errors import PreemptedError

BATCH_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)
"""What a batch system sends; a person at a terminal sends SIGINT too."""

STOP_SIGNALS = (*BATCH_SIGNALS, signal.SIGINT)

INTERRUPTED = 128 + signal.SIGINT
"""Exit status of a process that Ctrl-C has ended, as shells give it."""

PATIENCE_SECONDS = 0.5
"""How long a process with nothing to save may take to end after a signal, in seconds."""

BEFORE_EXIT: list[Callable[[], None]] = []
"""Called before a signal ends the process without its clean-up: to end the processes that it has started."""


class StopNow(BaseException):
    """Raised by a signal if there is nothing to save; no library catches it in passing."""


class StopFlag:
    """Whether a signal has asked this process to save and stop.

    Attributes:
        signal: Name of the first such signal, or None.
        handles: Whether signals set the flag now.
        at_once: Whether a signal ends a process without other ranks by `StopNow`, except while it is `waiting`.
        waiting: Whether there is a state to save, so that a signal waits until the flag is looked at.
    """

    def __init__(self) -> None:
        self.handles = self.at_once = False
        self.clear()

    def clear(self) -> None:
        """Forget what has come."""
        self.signal: str | None = None
        self.waiting = False
        self._handled = 0

    def raised(self) -> bool:
        """Return whether a signal has come."""
        return self.signal is not None

    def ends_at_once(self) -> bool:
        """Return whether a signal ends the process where it is."""
        return self.at_once and not self.waiting and not has_company()

    def handle(self, number: int, frame: FrameType | None) -> None:
        """Set the flag; a save from here could start inside a collective or another save.

        Raises:
            StopNow: There is nothing to save.
        """
        self._handled += 1
        if number == signal.SIGINT and self._handled > 1:
            exit_at_once(INTERRUPTED, "interrupted again: ended at once, without saving")
        self.signal = self.signal or signal.Signals(number).name
        if self.ends_at_once():
            raise StopNow

    def stopped(self) -> PreemptedError:
        """Return the error of a stop that had nothing to save."""
        return PreemptedError(f"stopped by {self.signal}: run the same command again to resume")

    def check(self) -> None:
        """Stop here if a signal has come: for phases that have nothing to save, in a process without other ranks.

        Raises:
            PreemptedError: It has.
        """
        if self.raised():
            raise self.stopped()


FLAG = StopFlag()
"""The process's own: signals belong to a process."""

_exiting = threading.Lock()
_main_thread_ends = threading.Event()


def exit_at_once(status: int, line: str) -> None:
    """End the process here and now, and the processes that it has started, whatever it is doing."""
    if not _exiting.acquire(blocking=False):
        return  # another thread is about to
    # the stream's own lock may be held by what the signal has interrupted
    with suppress(OSError):
        os.write(2, f"genre-lightning: {line}\n".encode(errors="backslashreplace"))
    for end in BEFORE_EXIT:
        end()
    os._exit(status)


def leave_ending_to_main() -> None:
    """Have the watch end nothing from here on: the main thread has come to its last line."""
    _main_thread_ends.set()


class SignalWatch(threading.Thread):
    """Sees signals although the main thread does not come to handle them.

    Python runs handlers between two bytecodes of the main thread: not in a collective that waits for another rank, and
    not while a library computes. This thread reads the numbers that the system's own handler writes into a pipe.

    Args:
        reader: The pipe's end.
        flag: Stop flag of the process.
    """

    def __init__(self, reader: int, flag: StopFlag = FLAG) -> None:
        super().__init__(daemon=True, name="signal-watch")
        self.reader = reader
        self.flag = flag
        self._seen = 0
        self._deadline: float | None = None

    def run(self) -> None:
        """Watch until the pipe is closed."""
        while True:
            left = None if self._deadline is None else max(0.0, self._deadline - time.monotonic())
            ready, _, _ = select.select([self.reader], [], [], left)
            if ready:
                numbers = os.read(self.reader, 64)
                if not numbers:
                    return
                for number in numbers:
                    if number in STOP_SIGNALS:
                        self.see(number)
            if self._deadline is not None and time.monotonic() >= self._deadline:
                self._end()

    def see(self, number: int) -> None:
        """Take note of a signal."""
        self._seen += 1
        if number == signal.SIGINT and self._seen > 1:
            exit_at_once(INTERRUPTED, "interrupted again: ended at once, without saving")
        if self.flag.handles:
            self.flag.signal = self.flag.signal or signal.Signals(number).name
        if not self.flag.handles or self.flag.ends_at_once():
            self._deadline = self._deadline or time.monotonic() + PATIENCE_SECONDS

    def _end(self) -> None:
        self._deadline = None
        if _main_thread_ends.is_set():
            return
        if not self.flag.handles:
            exit_at_once(INTERRUPTED, "interrupted")
        elif self.flag.ends_at_once():
            error = self.flag.stopped()
            exit_at_once(error.exit_status, str(error))


@contextmanager
def watching_signals() -> Iterator[None]:
    """Watch this process's signals by a thread of its own; for a command that has the process to itself."""
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    # a worker that gets the terminal's Ctrl-C too must not write its number into the pipe of its parent
    os.register_at_fork(after_in_child=_unwatched)
    SignalWatch(reader).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(before)
        os.close(writer)


def _unwatched() -> None:
    signal.set_wakeup_fd(-1)


def ignore_batch_signals() -> None:
    """End a process that has done its work: unloading the libraries takes a while, and a signal may come in it."""
    for number in BATCH_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_DFL)  # no traceback of what is being unloaded


@contextmanager
def stopping_on_signals(
    numbers: Sequence[signal.Signals] = STOP_SIGNALS,
    flag: StopFlag = FLAG,
    *,
    last: bool = False,
    at_once: bool = False,
) -> Iterator[StopFlag]:
    """Have signals set the flag while the block runs; then put the former handlers back and the flag down.

    Args:
        numbers: Signals that set the flag.
        flag: Flag that is set.
        last: The process does nothing after the block but end. Batch signals are then ignored from its end on, with no
            moment between: the rank that ends first has its launcher send SIGTERM to those that are still ending.
        at_once: A signal ends a process without other ranks where it is, unless it has a state to save.

    Raises:
        PreemptedError: A signal has ended the block.
    """
    if threading.current_thread() is not threading.main_thread():
        yield flag  # only the main thread may set handlers
        return
    outer = (flag.handles, flag.at_once)
    before = {number: signal.signal(number, flag.handle) for number in numbers}
    flag.handles, flag.at_once = True, at_once
    try:
        yield flag
    except StopNow:
        raise flag.stopped() from None
    finally:
        flag.at_once = False
        for number, handler in before.items():
            signal.signal(number, signal.SIG_IGN if last and number in BATCH_SIGNALS else handler)
        flag.handles, flag.at_once = outer
        if not flag.handles:
            flag.clear()
