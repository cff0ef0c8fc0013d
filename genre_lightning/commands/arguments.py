"""Plain argument parsers for commands that train nothing; bad use is one line, like every other error."""

from __future__ import annotations

import argparse
from typing import NoReturn

from typing_extensions import override

from genre_lightning.errors import ConfigError


class CommandParser(argparse.ArgumentParser):
    """argparse with one-line errors.

    Args:
        command: such as "compare".
        description: what it does.
    """

    def __init__(self, command: str, description: str) -> None:
        super().__init__(prog=f"genre-lightning {command}", description=description, allow_abbrev=False)

    @override
    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}: '{self.prog} --help' lists the options")
