"""The standard streams of a command: a reader that goes away, a full disk or an odd encoding end no work."""

from __future__ import annotations

import codecs
import io
import os
import sys
from typing import Any

from typing_extensions import override

from genre_lightning.errors import GenreLightningError

_ESCAPES = "genre_lightning.escapes"


class ReaderGoneError(Exception):
    """Whoever read the output has closed it, as `head` does once it has enough."""


class OutputError(GenreLightningError):
    """The standard output cannot be written."""

    exit_status = 1


class GuardedStream(io.FileIO):
    """A standard stream that fails once at most.

    Args:
        descriptor: File descriptor of the stream.
        lenient: Whether a failure is only noted, since what is written is not what the command is run for.
    """

    def __init__(self, descriptor: int, *, lenient: bool) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self.lenient = lenient
        self.failure: OSError | None = None

    @override
    def write(self, data: Any) -> int:
        """Write, or drop what can no longer be written.

        Raises:
            ReaderGoneError, OutputError: The first failure of a stream that is not lenient.
        """
        if self.failure is None:
            try:
                return super().write(data) or 0
            except OSError as error:
                self.failure = error
                if not self.lenient:
                    raise self.error() from None
        return memoryview(data).nbytes

    def error(self) -> Exception:
        """Return what the failure is to a command."""
        if isinstance(self.failure, BrokenPipeError):
            return ReaderGoneError()
        reason = self.failure.strerror if self.failure else ""
        return OutputError(f"the standard output cannot be written ({reason}): redirect it to where there is space")


def guard_streams() -> None:
    """Put streams in the place of the process's own that survive what they are connected to.

    A closed one is connected to nothing: else the next file that is opened would take its number, and get what a
    library prints.
    """
    for descriptor in (0, 1, 2):
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
    if sys.stdin is None:
        sys.stdin = open(0, encoding="utf-8", closefd=False)  # noqa: SIM115  # the process's own, for its life
    codecs.register_error(_ESCAPES, _escapes)
    # results are what a command prints; its news are not
    sys.stdout = _guarded(1, sys.stdout, lenient=False)
    sys.stderr = _guarded(2, sys.stderr, lenient=True)


def _guarded(descriptor: int, stream: Any, *, lenient: bool) -> io.TextIOWrapper:
    raw = GuardedStream(descriptor, lenient=lenient)
    encoding = stream.encoding if stream is not None else "utf-8"
    # line by line: a log is read while it is written
    return io.TextIOWrapper(
        io.BufferedWriter(raw), encoding=encoding, errors=_ESCAPES, line_buffering=lenient or raw.isatty()
    )


def _escapes(error: UnicodeError) -> tuple[str, int]:
    r"""Write what an encoding lacks as \uXXXX, which JSON reads as the same text."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    units = error.object[error.start : error.end].encode("utf-16-be", "surrogatepass")
    pairs = (units[place : place + 2].hex() for place in range(0, len(units), 2))
    return "".join(f"\\u{pair}" for pair in pairs), error.end


def keep_working() -> None:
    """Have an output that fails only noted: what the command is run for is files."""
    raw = _raw_output()
    if raw is not None:
        raw.lenient = True


def finish_output(status: int) -> int:
    """Write what is left of the output, and return the exit status with what has become of it.

    Raises:
        OutputError: The output is incomplete for want of space; a reader that went away had enough.
    """
    raw = _raw_output()
    if raw is None:
        return status
    try:
        sys.stdout.flush()
    except ReaderGoneError:
        return status
    if status == 0 and raw.failure and not isinstance(raw.failure, BrokenPipeError):
        raise raw.error()
    return status


def _raw_output() -> GuardedStream | None:
    raw = getattr(getattr(sys.stdout, "buffer", None), "raw", None)
    return raw if isinstance(raw, GuardedStream) else None
