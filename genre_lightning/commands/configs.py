"""`genre-lightning configs`: the configurations that come with the package, a copy of one to edit, and their schema."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from genre_lightning.commands.arguments import CommandParser
from genre_lightning.config.packaged import about, command_with, names, packaged
from genre_lightning.config.schema import configuration_schema
from genre_lightning.errors import ConfigError
from genre_lightning.files import check_output, write_text
from genre_lightning.progress import answer


def show(arguments: Sequence[str]) -> int:
    """List the configurations, each with what it is for."""
    CommandParser(
        "configs",
        "Lists the configurations that come with the package: each is used by its name, such as --config distilbert. "
        "Those with a / are laid over another: --config distilbert --config strategy/fsdp; those of tune/ are for "
        "tune --space. 'genre-lightning configs copy NAME' writes one to edit.",
    ).parse_args(list(arguments))
    width = max(map(len, names()))
    for name in names():
        answer(f"{name:<{width}}  {about(name)}")
    return 0


def copy(arguments: Sequence[str]) -> int:
    """Write a configuration to edit.

    Raises:
        ConfigError: There is none of that name, or the file to write exists.
    """
    parser = CommandParser("configs copy", "Writes a configuration that comes with the package, to be edited.")
    parser.add_argument("name", help="as 'genre-lightning configs' lists it")
    parser.add_argument("file", nargs="?", type=Path, help="to write (default: NAME.yaml)")
    options = parser.parse_args(list(arguments))
    source = packaged(options.name)
    if source is None:
        raise ConfigError(f"there is no configuration {options.name!r}: choose one of {', '.join(names())}")
    target = options.file or Path(f"{source.stem}.yaml")
    if target.exists():
        raise ConfigError(f"{target} exists: name another file, genre-lightning configs copy {options.name} FILE")
    check_output(target, "FILE")
    write_text(target, source.read_text(encoding="utf-8"))
    answer(f"wrote {target}: edit it, then run {command_with(options.name, target)}")
    return 0


def schema(arguments: Sequence[str]) -> int:
    """Print the JSON Schema of configurations."""
    CommandParser(
        "configs schema",
        "Prints the JSON Schema of configuration files, by which an editor completes and checks them: "
        "genre-lightning configs schema > genre-lightning.schema.json, and in the first line of a configuration "
        "# yaml-language-server: $schema=genre-lightning.schema.json",
    ).parse_args(list(arguments))
    answer(json.dumps(configuration_schema(), indent=2))
    return 0
