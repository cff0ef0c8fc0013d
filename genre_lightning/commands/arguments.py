"""Plain argument parsers for commands that train nothing; bad use is one line, like every other error."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NoReturn, TypeVar

from typing_extensions import override

from genre_lightning.bounds import Bounds
from genre_lightning.errors import ConfigError
from genre_lightning.files import check_output
from genre_lightning.runs import RunDirectory, check_spare

N = TypeVar("N", int, float)


class CommandParser(argparse.ArgumentParser):
    """argparse with one-line errors.

    Args:
        command: Name of the command, such as "compare".
        description: What it does.
    """

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"genre-lightning {command}", description=description, allow_abbrev=False)

    @override
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}: '{self.prog} --help' lists the options")


def within(kind: type[N], bounds: Bounds) -> Callable[[str], N]:
    """Return what reads an option's number, and refuses one out of its bounds.

    Args:
        kind: int or float.
        bounds: Bounds of the option.
    """

    def read(text: str) -> N:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not bounds.allows(value):
            raise argparse.ArgumentTypeError(f"{text} is not allowed: give {bounds}")
        return value

    return read


def check_out(
    path: Path, *endings: str, reads: Iterable[Path] = (), run: RunDirectory | None = None, option: str = "--out"
) -> None:
    """Refuse an output of another format than a command writes, and a place where it cannot or must not be written.

    Args:
        path: The output.
        endings: Those that it may have, such as ".csv".
        reads: Files that the command reads.
        run: The run that it uses.
        option: That names the output.

    Raises:
        ConfigError: With the fix.
    """
    check_output(path, option)
    if path.suffix not in endings:
        raise ConfigError(f"{option} {path} does not end in {' or '.join(endings)}: give such a file")
    check_spare(path, option, reads, run)
