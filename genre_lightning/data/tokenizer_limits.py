"""What a tokenizer.json of unknown origin may make of a text: limits on how far it grows, checked before it is loaded.

The patterns in it are bounded by the library that runs them: a match that backtracks too often fails.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from genre_lightning.errors import ConfigError
from genre_lightning.foreign import read_object

_LARGEST_FILE = 256 << 20
"""Bytes; the largest vocabularies that are published take 40 MiB."""
_MAX_GROWTH = 100
"""Times that the normalizers may lengthen a text together; published ones do three times at most."""
_MAX_PARTS = 64
"""Components of one kind, and tokens that a template adds to a text."""


def check_growth(file: Path) -> None:
    """Refuse a tokenizer.json that makes a short text into a huge one.

    Raises:
        ConfigError: It does, or the file cannot be read.
    """
    content = read_object(file, _LARGEST_FILE)
    growth = 1
    for part in _parts(content.get("normalizer"), file):
        growth *= _growth(part)
        if growth > _MAX_GROWTH:
            raise _refused(file, f"its normalizers lengthen a text more than {_MAX_GROWTH} times")
    for _ in _parts(content.get("pre_tokenizer"), file):
        pass
    for part in _parts(content.get("post_processor"), file):
        added = [*_listed(part.get("single")), *_listed(part.get("pair"))]
        tokens = part.get("special_tokens")
        for token in tokens.values() if isinstance(tokens, dict) else ():
            added += _listed(token.get("ids")) if isinstance(token, dict) else []
        if len(added) > _MAX_PARTS:
            raise _refused(file, f"its template adds more than {_MAX_PARTS} tokens to a text")


def _parts(component: Any, file: Path) -> Iterator[dict[str, Any]]:
    """Give a component and those that are nested in it."""
    waiting, seen = [component], 0
    while waiting:
        part = waiting.pop()
        if not isinstance(part, dict):
            continue  # the tokenizers library refuses what is not one
        seen += 1
        if seen > _MAX_PARTS:
            raise _refused(file, f"it has more than {_MAX_PARTS} normalizers, pre-tokenizers or post-processors")
        yield part
        for name in ("normalizers", "pretokenizers", "processors"):
            waiting += _listed(part.get(name))


def _growth(part: dict[str, Any]) -> int:
    """Return how many times a normalizer lengthens a text at most."""
    if part.get("type") == "Prepend":
        return max(1, len(str(part.get("prepend", ""))))
    content, pattern = part.get("content"), part.get("pattern")
    if part.get("type") != "Replace" or not isinstance(content, str):
        return 1
    literal = pattern.get("String") if isinstance(pattern, dict) else None
    if isinstance(literal, str) and literal:
        return -(-len(content) // len(literal)) or 1
    return 1 + len(content)  # a pattern may match between any two characters


def _listed(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _refused(file: Path, reason: str) -> ConfigError:
    return ConfigError(f"{file} is refused ({reason}): download the model again")
