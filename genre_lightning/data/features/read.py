"""Cells of input columns as values: names, a number or a vector; nothing for an empty or a malformed cell."""

from __future__ import annotations

import datetime
import math
import re
from collections.abc import Callable
from typing import Any

from genre_lightning.config.features import Feature
from genre_lightning.data.cells import (
    MAX_CELL_CHARACTERS,
    MalformedCellError,
    distinct_names,
    is_placeholder_genre,
    looks_like_list,
    parse_genres,
    split_names,
)

MAX_TAGS = 256
"""Of a film; more are left out, the last first."""
MAX_VECTOR = 8192
"""Numbers in a vector."""
_LONGEST_NAME = 200
_LARGEST = 3.4e38
"""Of numbers, which models take in 32 bits."""
_THOUSANDS = re.compile(r"[+-]?\d{1,3}(,\d{3})+(\.\d*)?")
SEPARATORS = ("|", ";", ",")
"""Between tags, as they are tried."""
_DATE = re.compile(r"(\d{4})(?:-(\d{1,2})(?:-(\d{1,2}))?)?(?:[T ].*)?")

Value = list[str] | str | float | list[float] | None
"""Of tags, a category, a number or date, or a vector; None if it is missing."""


def value_of(feature: Feature, cell: Any) -> Value:
    """Return the value in a cell; None for an empty one.

    Args:
        feature: What the cell should hold.
        cell: Cell as the file has it, or a value that this function returned.

    Raises:
        MalformedCellError: It holds something else.
    """
    if cell is None or (isinstance(cell, str) and is_placeholder_genre(cell)):
        return None
    return _READERS[feature.kind](feature, cell)


def value_or_none(feature: Feature, cell: Any) -> Value:
    """Return the value in a cell; None for an empty or a malformed one."""
    try:
        return value_of(feature, cell)
    except MalformedCellError:
        return None


def _tags(feature: Feature, cell: Any) -> Value:
    if isinstance(cell, str) and not looks_like_list(cell):
        if len(cell) > MAX_CELL_CHARACTERS:
            raise MalformedCellError(f"a cell of {len(cell)} characters")
        mark = feature.separator or next((mark for mark in SEPARATORS if mark in cell), ",")
        names = split_names(cell, mark)
    else:
        names = parse_genres(cell, numbers=True)
    return [name[:_LONGEST_NAME] for name in names[:MAX_TAGS]] or None


def _category(feature: Feature, cell: Any) -> Value:
    is_list = isinstance(cell, list | dict) or (isinstance(cell, str) and looks_like_list(cell))
    names = parse_genres(cell, numbers=True) if is_list else distinct_names([str(cell)[:_LONGEST_NAME]])
    return names[0] if names else None


def _number(feature: Feature, cell: Any) -> Value:
    if isinstance(cell, str) and _THOUSANDS.fullmatch(cell := cell.strip()):
        cell = cell.replace(",", "")  # any other comma may be a decimal one: not a number here
    try:
        number = float(cell)
    except (TypeError, ValueError, OverflowError):
        raise MalformedCellError(f"{str(cell)[:40]!r} is not a number") from None
    if not math.isfinite(number):
        return None
    if abs(number) > _LARGEST:
        raise MalformedCellError(f"{str(cell)[:40]!r} is larger than any number in 32 bits")
    return None if feature.zero_is_missing and number == 0 else number


def _date(feature: Feature, cell: Any) -> Value:
    """Return the year, with the part of it that has passed."""
    if isinstance(cell, datetime.date | int | float):
        cell = str(int(cell) if isinstance(cell, float) and cell.is_integer() else cell)
    try:  # a value that was a date before stays one
        year = float(cell)
    except (TypeError, ValueError):
        year = math.nan
    if 1000 <= year < 3000:
        return year
    found = _DATE.fullmatch(cell.strip()) if isinstance(cell, str) else None
    if found is None:
        raise MalformedCellError(f"{str(cell)[:40]!r} is not a date such as 1995-10-30")
    month, day = int(found[2] or 1), int(found[3] or 1)
    if not (1 <= month <= 12 and 1 <= day <= 31):
        raise MalformedCellError(f"{cell[:40]!r} is not a date such as 1995-10-30")
    return int(found[1]) + (month - 1) / 12 + (day - 1) / 365


def _vector(feature: Feature, cell: Any) -> Value:
    parts = cell
    if isinstance(cell, str):
        parts = re.split(r"[\s,]+", cell.strip().strip("[]()").strip(), maxsplit=MAX_VECTOR)
    try:
        numbers = [float(part) for part in parts]
    except (TypeError, ValueError, OverflowError):
        raise MalformedCellError(f"{str(cell)[:40]!r} is not a list of numbers") from None
    if len(numbers) > MAX_VECTOR or not all(abs(number) <= _LARGEST for number in numbers):
        raise MalformedCellError(f"a vector of {len(numbers)} numbers, or with one that is not finite in 32 bits")
    return numbers or None


_READERS: dict[str, Callable[[Feature, Any], Value]] = {
    "tags": _tags,
    "category": _category,
    "number": _number,
    "date": _date,
    "vector": _vector,
}
