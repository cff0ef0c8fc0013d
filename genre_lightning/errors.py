"""Errors that a user can cause and fix. Each message is one line: what is wrong, then the fix."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterable
from typing import TypeVar

from genre_lightning.escapes import visible


class GenreLightningError(Exception):
    """Base of the errors below; the command prints its message as one line and exits with `exit_status`.

    Attributes:
        exit_status: 2 for bad use (nothing was started), 1 for a run that failed, 75 for one that was preempted.
        on_all_ranks: Every rank of the run raises it, with the same message, so that one line is enough.
    """

    exit_status = 2
    on_all_ranks = False


class ConfigError(GenreLightningError):
    """An option, a configuration file or the machine does not allow what was asked."""


class DataError(GenreLightningError):
    """An input file is missing, is not what it should be, or leaves nothing to work on."""


class CheckpointError(GenreLightningError):
    """A checkpoint or a run directory is damaged, unfinished, or belongs to something else."""


class SaveError(CheckpointError):
    """A file could not be written: the disk is full, or the place may not be written."""

    exit_status = 1


class DivergedError(GenreLightningError):
    """The loss, its gradient or every validation is not a number, so training on would spoil the weights."""

    exit_status = 1
    on_all_ranks = True


class RankLostError(GenreLightningError):
    """Another rank of the run is gone, and this one cannot continue without it."""

    exit_status = 1


class PrunedError(GenreLightningError):
    """A study has ended a trial early, as others were better after as many epochs; its state is saved."""

    exit_status = 1


class PreemptedError(GenreLightningError):
    """A signal has stopped the run, which can be resumed: 75 is what sysexits.h calls a temporary failure."""

    exit_status = 75
    on_all_ranks = True


_Error = TypeVar("_Error", bound=GenreLightningError)


def agreed(error: _Error) -> _Error:
    """Return an error, marked as one that every rank of the run raises."""
    error.on_all_ranks = True
    return error


def problems_of(
    checks: Iterable[Callable[[], object]], kinds: tuple[type[GenreLightningError], ...] = (ConfigError,)
) -> list[str]:
    """Run every check, and give what is wrong, each problem with its fix.

    Args:
        checks: Each raises an error if something is wrong.
        kinds: Classes of errors that are such problems; others are raised at once.
    """
    problems = []
    for check in checks:
        try:
            check()
        except kinds as error:
            problems.append(one_line(error))
    return problems


def check_all(checks: Iterable[Callable[[], object]], found: Iterable[str] = ()) -> None:
    """Run every check, so that all problems of a configuration are named at once.

    Args:
        checks: Each raises a ConfigError if something is wrong; other errors are raised at once.
        found: Problems that are known already.

    Raises:
        ConfigError: There are problems; the message names all of them, in one line.
    """
    # one that several checks find is named once
    if problems := list(dict.fromkeys([*found, *problems_of(checks)])):
        raise ConfigError("; and ".join(problems))


_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
_NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
_NOT_A_PLACE = (errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR)


def of_system(error: OSError) -> GenreLightningError | None:
    """Give the error to show for one of the operating system's that a user can fix; None for any other.

    Args:
        error: Which names its file, or does not.
    """
    place = f"{error.filename}: " if error.filename else ""
    if error.errno in _FULL:
        return SaveError(f"{place}{error.strerror}: free space there, then run the same command again")
    if error.errno in _NOT_ALLOWED:
        return ConfigError(f"{place}{error.strerror}: fix its permissions, or name another place")
    if error.errno in _NOT_A_PLACE:
        return ConfigError(f"{place[:100]}{'' if len(place) <= 100 else '…: '}{error.strerror}: name another place")
    return None


def one_line(message: object) -> str:
    """Fold any message into one line that no terminal obeys, whatever a library or a file name put in it."""
    return visible(" ".join(str(message).split()))
