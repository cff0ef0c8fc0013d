"""Looks at configuration files and flags before any class that they name is imported."""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from genre_lightning.errors import ConfigError, one_line

ALLOWED_PACKAGES = ("genre_lightning", "lightning")

# ValueError: text that is not UTF-8, or a date that no calendar has; RecursionError: brackets a thousand deep
_NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)

_DOTTED = re.compile(r"[^\W\d]\w*(\.\w+)+")
# sections in which a plain string may name a class or a function, at any depth
_CLASS_SECTIONS = ("model", "trainer")
# the one key whose file is read as data, not as configuration
_DATA_FILE = "data.csv"


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuses configuration files that are none, and classes from packages that are not to be run.

    A class path in a configuration is an import, and an import runs code: so a file from a stranger may name only
    classes of genre_lightning and lightning. Files that a value names are looked into too, as the parser loads them.

    Raises:
        ConfigError: one line with the file or flag and the cure.
    """
    for name, value in _options(arguments):
        # the parser takes unambiguous beginnings of a name for it
        if name and "config".startswith(name):
            file = Path(value)
            _check(read_yaml(file), "", value, (Path(), file.parent))
        else:
            _check(_parsed(value), name.rstrip("+"), f"--{name}", (Path(),))


def read_yaml(path: Path) -> dict[str, Any]:
    """A configuration file's content.

    Raises:
        ConfigError: it is missing or is no mapping in YAML.
    """
    if not path.is_file():
        raise ConfigError(f"no such configuration file: {path}: the project's own are in its configs/ folder")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except _NOT_YAML as error:
        raise ConfigError(f"{path} is no well-formed YAML ({one_line(error)[:200]}): mend that line") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no settings: it needs keys such as 'data:' and 'model:'")
    return content


def _parsed(value: str) -> Any:
    try:
        return yaml.safe_load(value)
    except _NOT_YAML:
        return value


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Every (option, value) that the parser may see; a word that could be either is taken both ways."""
    waiting = None
    for word in arguments:
        if waiting is not None and not word.startswith("--"):
            yield waiting, word
        if not word.startswith("-"):
            waiting = None
            continue
        name, equals, value = word.lstrip("-").partition("=")
        waiting = None if equals else name
        if equals:
            yield name, value
        if word.startswith("-c") and len(word) > 2:  # the value of a short option may stand next to it
            yield "config", word[2:].removeprefix("=")


def _check(content: Any, key: str, where: str, folders: Sequence[Path], files: frozenset[Path] = frozenset()) -> None:
    if isinstance(content, dict):
        for name, value in content.items():
            _check(value, f"{key}.{name}" if key else str(name), where, folders, files)
    elif isinstance(content, list):
        for value in content:
            _check(value, key, where, folders, files)
    elif isinstance(content, str):
        _check_class(key, content, where)
        for folder in folders:
            file = folder / content
            if key != _DATA_FILE and _is_file(file) and file.resolve() not in files:
                inner = _parsed(file.read_text(encoding="utf-8", errors="replace"))
                prefix = "" if key.split(".")[-1] == "config" else key
                _check(inner, prefix, str(file), (Path(), file.parent), files | {file.resolve()})


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError):  # a text that can be no path: too long, or with a null character
        return False


def _check_class(key: str, text: str, where: str) -> None:
    package = text.split(".")[0].strip()
    if package == text.strip() or package in ALLOWED_PACKAGES:
        return
    is_path = key.split(".")[-1] == "class_path"
    in_section = key.split(".")[0] in _CLASS_SECTIONS and _DOTTED.fullmatch(text.strip())
    # a dotted value that is no module's is left to the parser, whose message is about the option
    if is_path or (in_section and _importable(package)):
        raise ConfigError(
            f"{where}: {key} is {text}, and only classes of {' and '.join(ALLOWED_PACKAGES)} may be named there: "
            "use one of those, or register your own in code"
        )


def _importable(package: str) -> bool:
    try:
        return importlib.util.find_spec(package) is not None
    except ValueError:  # a module that is loaded but has no spec, such as __main__
        return True
