"""What the plain values of a stored file must be, checked before anything is made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Check: TypeAlias = Callable[[Any], bool]
Shape: TypeAlias = Mapping[str, "Shape"] | list["Shape"] | Check | None
"""See `require_shape`."""


def number(value: Any) -> bool:
    """Check for a finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def maybe_number(value: Any) -> bool:
    """Check for a finite number, or null for an undefined one."""
    return value is None or number(value)


def count(value: Any) -> bool:
    """Check for a whole number from 0 on."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def boolean(value: Any) -> bool:
    """Check for true or false."""
    return isinstance(value, bool)


def text(value: Any) -> bool:
    """Check for a text."""
    return isinstance(value, str)


def maybe_text(value: Any) -> bool:
    """Check for a text, or null."""
    return value is None or text(value)


def pair(value: Any) -> bool:
    """Check for a list of two numbers."""
    return isinstance(value, list) and len(value) == 2 and all(map(number, value))


def interval(value: Any) -> bool:
    """Check for a list of two numbers, of which one may be null, or null."""
    return value is None or (isinstance(value, list) and len(value) == 2 and all(map(maybe_number, value)))


def one_of(*values: str) -> Check:
    """Return one of some texts."""

    def check(value: Any) -> bool:
        return value in values

    check.__doc__ = f"One of {', '.join(values)}."
    return check


def require_shape(value: Any, shape: Shape, place: str = "it") -> None:
    """Check plain values against a shape.

    Args:
        value: Value as JSON or YAML gives it.
        shape: A mapping of keys to shapes for an object, whose keys may end in "?" for those that may be missing or
            null, and of which "*" is the shape of all other values; a list of one shape for a list; a check, whose
            docstring names what it expects; None for anything.
        place: Place of the value, for the message.

    Raises:
        ValueError: Naming the first place that does not fit.
    """
    if shape is None:
        return
    if isinstance(shape, Mapping):
        if not isinstance(value, Mapping):
            raise ValueError(f"{place} is not a JSON object")
        named = {key.removesuffix("?") for key in shape}
        for key, inner in shape.items():
            name = key.removesuffix("?")
            if key == "*":
                for other in value.keys() - named:
                    require_shape(value[other], inner, _joined(place, other))
            elif name != key and value.get(name) is None:
                continue
            elif name not in value:
                raise ValueError(f"{_joined(place, name)} is missing")
            else:
                require_shape(value[name], inner, _joined(place, name))
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise ValueError(f"{place} is not a list")
        for index, item in enumerate(value):
            require_shape(item, shape[0], f"{place}[{index}]")
    elif not shape(value):
        wanted = (shape.__doc__ or "").removeprefix("Check for ").rstrip(".")
        raise ValueError(f"{place} is {value!r:.40}, not {wanted[:1].lower()}{wanted[1:]}")


def without_nulls(value: Any, shape: Shape) -> Any:
    """Return a value that fits a shape without the null objects and lists in it that may be missing.

    Whoever reads it has to look for one of both only.
    """
    if isinstance(shape, list):
        return [without_nulls(item, shape[0]) for item in value]
    if not isinstance(shape, Mapping):
        return value
    shapes = {key.removesuffix("?"): inner for key, inner in shape.items()}
    inners = {name: shapes.get(name, shapes.get("*")) for name in value}
    return {
        name: without_nulls(item, inners[name])
        for name, item in value.items()
        if item is not None or not isinstance(inners[name], Mapping | list)
    }


def _joined(place: str, key: object) -> str:
    return str(key) if place == "it" else f"{place}.{key}"
