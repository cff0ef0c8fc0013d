"""Films on the command line: an overview, its columns as a JSON object, or columns by --field."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from genre_lightning.commands.arguments import CommandParser
from genre_lightning.errors import ConfigError
from genre_lightning.files import parse_json

Film = str | Mapping[str, Any]
"""An overview, or the columns of a film."""


def add_field_option(parser: CommandParser) -> None:
    """Add --field to a command's options."""
    parser.add_argument(
        "--field",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="a column of the film, such as 'keywords=heist, robbery'; may be repeated",
    )


def fields_of(given: Sequence[str], texts: Sequence[str]) -> dict[str, str]:
    """Read the columns of a film, each NAME=VALUE.

    Args:
        given: Values of --field.
        texts: Texts of the command; columns describe one film.

    Raises:
        ConfigError: A column without its value, or columns of several texts.
    """
    fields = {}
    for field in given:
        name, equals, value = field.partition("=")
        if not equals or not name.strip():
            raise ConfigError(f"--field is {field!r}: give NAME=VALUE, such as 'keywords=heist, robbery'")
        fields[name.strip()] = value
    if fields and len(texts) > 1:
        raise ConfigError(f"--field is of one film, and there are {len(texts)} texts: give one")
    return fields


def film_of(text: str) -> Film:
    """Return the columns of a film that a line of JSON holds; any other text is its overview."""
    if text.lstrip()[:1] == "{":
        try:
            film = parse_json(text)
        except ValueError:
            return text
        if isinstance(film, dict):
            return film
    return text
