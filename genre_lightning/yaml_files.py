"""YAML of unknown origin, read with limits on its size: of the file, and of what its aliases expand to."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from genre_lightning.errors import ConfigError, one_line

MAX_BYTES = 256 * 1024
"""Of a configuration file: the project's own have less than 4 KiB."""
MAX_NODES = 20_000
"""Of a document, each alias counted as what it stands for."""
MAX_DIGITS = 400
"""Of a number: PyYAML takes seconds for one of many digits to the base of 60."""

_NUMBERS = ("tag:yaml.org,2002:int", "tag:yaml.org,2002:float")
# ValueError: text that is not UTF-8, or a date that no calendar has; RecursionError: brackets a thousand deep
NOT_YAML = (yaml.YAMLError, ValueError, RecursionError)


class TooLargeError(ConfigError):
    """A document that would take seconds or gigabytes: its aliases expand to too much, or a number is too long."""


def parse_yaml(text: str) -> Any:
    """Parse a YAML document of plain values.

    Raises:
        TooLargeError: Its aliases expand to too much, or a number is too long.
        yaml.YAMLError, ValueError, RecursionError: It is not well-formed, see `NOT_YAML`.
    """
    loader = yaml.SafeLoader(text)
    try:
        with well_formed():
            node = loader.get_single_node()
            if node is None:
                return None
            _count_nodes(node, {})
            return named_keys(loader.construct_document(node))
    finally:
        loader.dispose()


def named_keys(value: Any) -> Any:
    """Return what YAML has read, with the key `on` as it stands: YAML 1.1 takes the bare word for true."""
    if isinstance(value, dict):
        return {"on" if key is True else key: named_keys(inner) for key, inner in value.items()}
    return [named_keys(inner) for inner in value] if isinstance(value, list) else value


@contextmanager
def well_formed() -> Iterator[None]:
    """Turn what PyYAML raises on a value that its tag does not fit, such as `!!bool x`, into a YAMLError."""
    try:
        yield
    except (ArithmeticError, AttributeError, LookupError, TypeError) as error:
        raise yaml.YAMLError(f"a value does not fit its tag ({type(error).__name__})") from None


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a configuration file.

    Raises:
        ConfigError: It is missing, not a regular file, too large, or not a mapping in YAML.
    """
    try:
        content = parse_yaml(read_text(path))
    except TooLargeError as error:
        raise ConfigError(f"{path}: {error}") from None
    except NOT_YAML as error:
        raise ConfigError(f"{path} is not well-formed YAML ({one_line(error)[:200]}): fix that line") from None
    if not isinstance(content, dict):
        raise ConfigError(f"{path} holds no settings: it needs keys such as 'data:' and 'model:'")
    return content


def read_text(path: Path) -> str:
    """Read the text of a configuration file.

    Raises:
        ConfigError: It is missing, not a regular file, or too large.
        UnicodeDecodeError: It is not UTF-8.
    """
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise FileNotFoundError
        if status.st_size > MAX_BYTES:
            raise ConfigError(
                f"{path} has {status.st_size:,} bytes, more than the {MAX_BYTES:,} allowed: name another file"
            )
        # pseudo-files such as /proc/kmsg have no size, and reading one may wait for ever
        with open(path, "rb", opener=_without_waiting) as file:
            return (file.read(MAX_BYTES) or b"").decode("utf-8") if status.st_size else ""
    except (FileNotFoundError, NotADirectoryError):
        raise ConfigError(
            f"no such configuration file: {path}: 'genre-lightning configs' lists those of the package"
        ) from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read ({error.strerror or error}): check its permissions") from None


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _count_nodes(node: yaml.Node, sizes: dict[int, int]) -> int:
    """Count a node and those below it, as often as aliases name them.

    Args:
        node: Root of the document or of a part.
        sizes: Sizes of the nodes that were counted, by identity; 0 for those being counted.
    """
    known = sizes.get(id(node))
    if known == 0:
        raise TooLargeError("an alias stands inside what it stands for: write the value out")
    if known:
        return known
    sizes[id(node)] = 0
    children: list[yaml.Node] = []
    if isinstance(node, yaml.MappingNode):
        children = [part for pair in node.value for part in pair]
    elif isinstance(node, yaml.SequenceNode):
        children = node.value
    elif node.tag in _NUMBERS and len(node.value) > MAX_DIGITS:
        raise TooLargeError(f"a number has {len(node.value):,} digits, more than the {MAX_DIGITS} allowed")
    size = 1
    for child in children:
        size += _count_nodes(child, sizes)
        if size > MAX_NODES:
            raise TooLargeError(f"it expands to more than {MAX_NODES:,} values: use fewer aliases (*name)")
    sizes[id(node)] = size
    return size
