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

_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")
# sections in which a plain string may name a class too
_CLASS_SECTIONS = ("model", "trainer.logger", "trainer.callbacks", "trainer.strategy", "trainer.plugins",
                   "trainer.profiler", "trainer.accelerator")  # fmt: skip


def check_arguments(arguments: Sequence[str]) -> None:
    """Refuses configuration files that are none, and classes from packages that are not to be run.

    A class path in a configuration is an import, and an import runs code: so a file from a stranger may name only
    classes of genre_lightning and lightning.

    Raises:
        ConfigError: one line with the file or flag and the cure.
    """
    for name, value in _options(arguments):
        if name in ("config", "c"):
            for key, text in _leaves(read_yaml(Path(value)), ""):
                _check_leaf(key, text, value)
        elif isinstance(value, str):
            try:
                content = yaml.safe_load(value)
            except yaml.YAMLError:
                content = value
            for key, text in _leaves(content, name.rstrip("+")):
                _check_leaf(key, text, f"--{name}")


def read_yaml(path: Path) -> dict[str, Any]:
    """A configuration file's content.

    Raises:
        ConfigError: it is missing or is no mapping in YAML.
    """
    if not path.is_file():
        raise ConfigError(f"no such configuration file: {path}: the project's own are in its configs/ folder")
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} is no well-formed YAML ({one_line(error)[:200]}): mend that line") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no settings: it needs keys such as 'data:' and 'model:'")
    return content


def _options(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    words = iter(arguments)
    waiting = None
    for word in words:
        if waiting is not None and not word.startswith("--"):
            yield waiting, word
            waiting = None
        elif word.startswith("-"):
            name, equals, value = word.lstrip("-").partition("=")
            waiting = None if equals else name
            if equals:
                yield name, value


def _leaves(content: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(content, dict):
        for name, value in content.items():
            yield from _leaves(value, f"{key}.{name}" if key else str(name))
    elif isinstance(content, list):
        for value in content:
            yield from _leaves(value, key)
    elif isinstance(content, str):
        yield key, content


def _check_leaf(key: str, text: str, where: str) -> None:
    names_class = key.split(".")[-1] == "class_path" or key in _CLASS_SECTIONS
    if not names_class or not _DOTTED.fullmatch(text):
        return
    package = text.split(".")[0]
    if package in ALLOWED_PACKAGES:
        return
    # a dotted value that is no module's is left to the parser, whose message is about the option
    if key.split(".")[-1] == "class_path" or importlib.util.find_spec(package) is not None:
        raise ConfigError(
            f"{where}: {key} is {text}, and only classes of {' and '.join(ALLOWED_PACKAGES)} may be named there: "
            "use one of those, or register your own in code"
        )
