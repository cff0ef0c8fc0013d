"""Cells of a movies file that hold a structure: lists of genres, cast or companies, read without trusting them."""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections.abc import Iterable
from functools import lru_cache
from typing import Any, Literal

GenreFormat = Literal["auto", "literal", "json", "separated"]

MAX_CELL_CHARACTERS = 65_536
"""A longer cell is malformed: literal_eval needs seconds and gigabytes for a few megabytes of brackets."""

_REMEMBERED_CHARACTERS = 1000

_STRING = r"""(?:'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*")"""
_ID = r"""(?:'id'|"id")\s*:\s*\d{1,18}"""
_NAME = rf"""(?:'name'|"name")\s*:\s*{_STRING}"""
_ENTRY = rf"\{{\s*(?:{_ID}\s*,\s*{_NAME}|{_NAME}\s*,\s*{_ID})\s*\}}"
_LIST_OF_ENTRIES = re.compile(rf"\s*\[\s*(?:{_ENTRY}\s*(?:,\s*{_ENTRY}\s*)*)?\]\s*")
_LIST_OF_STRINGS = re.compile(rf"\s*\[\s*(?:{_STRING}\s*(?:,\s*{_STRING}\s*)*)?\]\s*")
_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")
_ANY_NAME = re.compile(rf"(?:'name'|\"name\")\s*:\s*({_STRING})")


class MalformedCellError(ValueError):
    """The cell does not hold what its column promises."""


def parse_genres(cell: Any, style: Literal["list", "separated"] = "list", separator: str = ",") -> tuple[str, ...]:
    """The names in a genres cell, in its order, each once.

    Args:
        cell: a string with a list of {'id', 'name'} as Python literals or JSON (or a list of names), a string of names
            between separators, or, from Parquet, a real list of names or of {'id', 'name'}.
        style: "list" for the first of these, "separated" for the second.
        separator: what stands between names in the "separated" style.

    Raises:
        MalformedCellError: any other content. Nothing but literals is ever evaluated, and only after the whole cell
            has been matched against the exact shape.
    """
    if cell is None:
        return ()
    if not isinstance(cell, str):
        return _distinct(_names_of_objects(cell))
    if len(cell) > MAX_CELL_CHARACTERS:
        raise MalformedCellError(f"a genres cell of {len(cell)} characters")
    return (_parse_text_once if len(cell) <= _REMEMBERED_CHARACTERS else _parse_text)(cell, style, separator)


def _parse_text(cell: str, style: Literal["list", "separated"], separator: str) -> tuple[str, ...]:
    if style == "separated":
        return _distinct(cell.split(separator))
    if _LIST_OF_ENTRIES.fullmatch(cell):
        return _distinct(entry["name"] for entry in _literal(cell))
    if _LIST_OF_STRINGS.fullmatch(cell):
        return _distinct(_literal(cell))
    raise MalformedCellError("a genres cell that is no list of {'id', 'name'}")


# films share a few thousand lists of genres, and to read one takes longer than the rest of its row
_parse_text_once = lru_cache(maxsize=8192)(_parse_text)


def _literal(cell: str) -> Any:
    """Value of a cell or string whose shape is known; JSON first, as its escapes differ from Python's."""
    try:
        return json.loads(cell)
    except ValueError:
        pass
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an unknown escape such as \d in a name is the file's business
            return ast.literal_eval(cell.strip())
    except (ValueError, SyntaxError) as error:
        raise MalformedCellError(str(error)) from None


def _names_of_objects(cell: Any) -> list[str]:
    entries = cell if isinstance(cell, list | tuple) else [None]
    found = [entry.get("name") if isinstance(entry, dict) else entry for entry in entries]
    names = [name for name in found if isinstance(name, str)]
    if len(names) < len(found):
        raise MalformedCellError(f"a value of type {type(cell).__name__} that is no list of names")
    return names


def _distinct(names: Iterable[str]) -> tuple[str, ...]:
    distinct = tuple(dict.fromkeys(stripped for name in names if (stripped := name.strip())))
    if any(_HALF_CHARACTER.search(name) for name in distinct):
        raise MalformedCellError("a name with half a character, which no file can hold")
    return distinct


def readable(cell: Any) -> str:
    """A cell as words for a text template: a list of {'name': …} becomes its names, anything else itself."""
    if cell is None:
        return ""
    try:
        if isinstance(cell, list):
            return ", ".join(_names_of_objects(cell))
        text = str(cell)[:MAX_CELL_CHARACTERS]
        if text.lstrip().startswith("[{"):
            return ", ".join(_distinct(map(_literal, _ANY_NAME.findall(text))))
    except MalformedCellError:
        return str(cell)[:MAX_CELL_CHARACTERS].strip()
    return text.strip()


def detect_style(
    cells: list[Any], wanted: GenreFormat, separator: str | None
) -> tuple[Literal["list", "separated"], str]:
    """The style of a file's genres column, from its first cells.

    Args:
        cells: a sample of the column.
        wanted: "auto" to find out; else the style the user named.
        separator: the separator the user named, or None to find out.
    """
    texts = [cell for cell in cells if isinstance(cell, str) and cell.strip()]
    lists = sum(text.lstrip().startswith("[") for text in texts)
    if wanted in ("literal", "json") or (wanted == "auto" and (not texts or 2 * lists >= len(texts))):
        return "list", separator or ","
    if separator:
        return "separated", separator
    # a name may hold a comma or a slash, so the rarer separators go first
    return "separated", next((mark for mark in "|;," if any(mark in text for text in texts)), ",")
