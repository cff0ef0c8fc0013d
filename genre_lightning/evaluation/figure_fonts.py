"""Names of genres in any script, as the fonts of this machine can draw them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache

import matplotlib as mpl
from matplotlib import font_manager

from genre_lightning.escapes import visible

_LONGEST_NAME = 32
"""Characters; a longer name leaves no room for its panel."""
_WITHOUT_LETTERS = ("Last Resort", "STIXNonUnicode", "cm")
"""Beginnings of the names of fonts that draw a box for every character, or other characters in their places."""


@contextmanager
def drawable(names: Sequence[str]) -> Iterator[tuple[str, ...]]:
    """Return names as plots show them: for characters that the usual font lacks, another installed one is added.

    A character that no installed font has becomes its escape in Python, and a long name is cut.

    Args:
        names: Names of genres; plots must be drawn within the context.
    """
    shown = [visible(name) for name in names]
    usual = _characters(font_manager.findfont(font_manager.FontProperties()))
    missing = frozenset("".join(shown)) - usual
    families, unknown = _families_for(missing) if missing else ((), frozenset())
    drawn = ("".join(_escape(c) if c in unknown else c for c in name) for name in shown)
    with mpl.rc_context({"font.family": [*mpl.rcParamsDefault["font.family"], *families]}):
        yield tuple(name if len(name) <= _LONGEST_NAME else f"{name[: _LONGEST_NAME - 1]}…" for name in drawn)


def _escape(character: str) -> str:
    return character.encode("unicode_escape").decode()


@cache
def _families_for(missing: frozenset[str]) -> tuple[tuple[str, ...], frozenset[str]]:
    """Choose fonts that have characters, the fewest that do; give their names, and the characters that none has."""
    found: dict[str, frozenset[str]] = {}
    for font in font_manager.fontManager.ttflist:
        if not font.name.startswith(_WITHOUT_LETTERS):
            found[font.name] = found.get(font.name, frozenset()) | (missing & _characters(font.fname))
    families: list[str] = []
    while missing and found:
        name = max(found, key=lambda family: (len(found[family] & missing), family))
        if not found[name] & missing:
            break
        families.append(name)
        missing -= found[name]
    return tuple(families), missing


@cache
def _characters(file: str) -> frozenset[str]:
    """Read which characters a font has; none of one that cannot be read."""
    try:
        return frozenset(map(chr, font_manager.get_font(file).get_charmap()))
    except (OSError, RuntimeError):
        return frozenset()
