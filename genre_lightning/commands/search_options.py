"""Options that the commands of a search have in common."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_space(parser: argparse.ArgumentParser, *, required: bool = False, more: str = "") -> None:
    """Add the option --space.

    Args:
        parser: Of the command.
        required: Whether the command cannot do without.
        more: What the command does with the space, for its help.
    """
    parser.add_argument(
        "--space", type=Path, required=required, metavar="FILE",
        help=f"YAML file of the options to search, or the name of a packaged one{more}",
    )  # fmt: skip
