"""What commands print: results, news, and the progress of work, as a live bar or as lines in a log file."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from genre_lightning.errors import ConfigError, SaveError
from genre_lightning.escapes import json_line, visible

_SECONDS_BETWEEN_LINES = 30.0
_WORTH_A_LINE = 1.0
"""Seconds of a task from which on a log file has its end."""


def say(line: str) -> None:
    """Print a line of news; on the error stream, as the output stream is for results."""
    print(visible(line), file=sys.stderr, flush=True)


def answer(line: object) -> None:
    """Print a line of results; a terminal gets nothing that it would obey.

    Raises:
        SaveError: The output takes no more.
    """
    with printing():
        print(visible(line, keep="\t") if sys.stdout and sys.stdout.isatty() else line, flush=True)


def answer_json(value: Any) -> None:
    """Print a value as one line of JSON, in ASCII if the output's encoding is not one of Unicode's.

    Raises:
        SaveError: The output takes no more.
    """
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    answer(json_line(value, ascii_only=not encoding.lower().startswith("utf")))


def require_output() -> None:
    """Refuse to compute what could not be printed.

    Raises:
        ConfigError: The standard output is closed.
    """
    if sys.stdout is None:
        raise ConfigError("the standard output is closed: redirect it to a file, or to /dev/null")


@contextmanager
def printing() -> Iterator[None]:
    """Report a standard output that takes no more, such as a file on a full disk.

    Raises:
        SaveError: The output takes no more; the message names the reason. What is left in the buffer is dropped.
        BrokenPipeError: Whoever read the output has enough.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python fails again at its exit
        raise SaveError(
            f"the standard output takes no more ({error.strerror}): free space there, or write to another place"
        ) from None


def no_progress(task: str, total: int) -> AbstractContextManager[None]:
    """Show no progress, as on all ranks but one."""
    return nullcontext()


@contextmanager
def task_progress(task: str, total: int, *, at_end: bool = True) -> Iterator[Any]:
    """Yield a bar for a task of some units on a terminal; lines now and then if there is none.

    Nothing is shown for a task that never reports, such as one whose result is in the cache, or that is soon done.

    Args:
        task: What is done.
        total: Number of units.
        at_end: Whether a log file has a line at the task's end too.
    """
    console = Console(stderr=True)
    if not console.is_terminal:
        done = 0
        started = said = time.monotonic()

        def count(units: int) -> None:
            nonlocal done, said
            done += units
            if (now := time.monotonic()) - said >= _SECONDS_BETWEEN_LINES and done < total:
                said = now
                say(f"{task}: {done:,} of {total:,}, {clock((now - started) / done * (total - done))} left")

        yield count
        if at_end and done and (seconds := time.monotonic() - started) >= _WORTH_A_LINE:
            say(f"{task}: {done:,} done in {seconds:.1f} s")
        return
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        row = bar.add_task(visible(task), total=total)
        yield lambda units: bar.advance(row, units)


@contextmanager
def file_progress(task: str, share: ReadShare) -> Iterator[Callable[[int], None]]:
    """Yield a bar for work through a file whose rows nobody has counted; lines now and then if there is no terminal.

    Args:
        task: What is done.
        share: How much of the file has been read.

    Yields:
        A function to report rows done to.
    """
    console = Console(stderr=True)
    started = said = time.monotonic()
    first: tuple[float, float] | None = None
    done = 0

    def rate(rows: int) -> str:
        nonlocal done, first
        # what an earlier start had done, and the reading over it, is not a measure of the time left
        first = first or (time.monotonic(), share.measure())
        done += rows
        return f"{done / max(time.monotonic() - started, 1e-3):,.0f} rows/s"

    if console.is_terminal:
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
        )
        with Progress(*columns, TextColumn("{task.fields[rate]}"), console=console, transient=True) as bar:
            row = bar.add_task(visible(task), total=1.0, rate="")
            yield lambda rows: bar.update(row, rate=rate(rows), completed=share.measure())
        return

    def line(rows: int) -> None:
        nonlocal said
        speed, now = rate(rows), time.monotonic()
        if now - said < _SECONDS_BETWEEN_LINES:
            return
        said = now
        read = share.measure()
        since, before = first or (now, read)
        left = f"  {clock((now - since) / (read - before) * (1 - read))} left" if read > before else ""
        say(f"{task}  {read:.0%} of the file  {done:,} rows  {speed}{left}")

    yield line


def duration(seconds: float) -> str:
    """Write how long something takes: "0.012 s", "84 s", "31 min", "2 h 05 min"."""
    if seconds < 100:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.2g} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def clock(seconds: float) -> str:
    """Write a time that counts down to the second: "1:05", and "2:00:05" if it has hours."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


@dataclass
class ReadShare:
    """How much of a file has been read.

    Attributes:
        measure: Gives the fraction, from 0 to 1; set by the reader.
        count_rows: Called by the reader with the number of rows (of a CSV, lines) read since the last call;
            None if nobody asks.
    """

    measure: Callable[[], float] = lambda: 0.0
    count_rows: Callable[[int], None] | None = None
