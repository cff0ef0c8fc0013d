"""Bounds of numeric options, declared in the option's own type: `lr: Annotated[float, above(0)]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, is_dataclass
from typing import Annotated, Any, get_args, get_origin, get_type_hints

LARGE = 10**12
"""More than any count of films, steps or tokens, and exact in every type that holds one."""


@dataclass(frozen=True)
class Bounds:
    """The numbers that an option takes; null is always allowed, as an option's type defines whether it may be null.

    Attributes:
        least: Smallest number.
        most: Largest number.
        open_below: Whether `least` itself is excluded.
        open_above: Whether `most` itself is excluded.
        also: Numbers outside that have a meaning of their own, such as -1 for "no limit".
    """

    least: float
    most: float
    open_below: bool = False
    open_above: bool = False
    also: tuple[int, ...] = ()

    def allows(self, value: object) -> bool:
        """Return whether the option takes a value; anything but a number is a matter of its type."""
        if not isinstance(value, int | float) or isinstance(value, bool) or value in self.also:
            return True
        above = value > self.least if self.open_below else value >= self.least
        below = value < self.most if self.open_above else value <= self.most
        return above and below  # a NaN is neither

    def __str__(self) -> str:
        """Describe the numbers, for a message."""
        least, most = (f"{int(x) if x == int(x) else x:,}" for x in (self.least, self.most))
        lower = f"above {least}" if self.open_below else f"from {least}"
        upper = f"to below {most}" if self.open_above else f"to {most}"
        others = "".join(f", or {number}" for number in self.also)
        return f"a number {lower} {upper}{others}"


def at_least(least: int, most: int = LARGE, also: tuple[int, ...] = ()) -> Bounds:
    """Return the bounds of a count."""
    return Bounds(least, most, also=also)


def above(least: float, most: float = 1e9) -> Bounds:
    """Return the bounds of a positive quantity."""
    return Bounds(least, most, open_below=True)


@dataclass(frozen=True)
class BatchBounds(Bounds):
    """A number of batches, or as a float their fraction: 10 is ten batches, 0.1 a tenth, 1.0 all.

    Attributes:
        of: What is counted, for messages.
    """

    least: float = 0.0
    most: float = LARGE
    open_below: bool = True
    of: str = "batches"

    def allows(self, value: object) -> bool:
        """See `Bounds.allows`."""
        return super().allows(value) and not (isinstance(value, float) and value > 1)

    def __str__(self) -> str:
        """Describe the numbers, for a message."""
        return f"a whole number of {self.of} from 1, or a fraction above 0 to 1.0"


SEED = at_least(0, 2**32 - 1)
"""What NumPy, scikit-learn and torch all take as a seed."""

FRACTION_BELOW_ONE = Bounds(0, 1, open_above=True)


def bounds_of(kind: type) -> dict[str, Bounds]:
    """Return the bounds of a class's options, by the options' names.

    Args:
        kind: A dataclass, or a class whose constructor and its bases' take the options.
    """
    hints: dict[str, Any] = {}
    for base in reversed(kind.__mro__):
        if base.__module__.startswith(f"{__package__}."):
            hints |= get_type_hints(base, include_extras=True) if is_dataclass(base) else {}
            if "__init__" in vars(base) and not is_dataclass(base):
                hints |= get_type_hints(vars(base)["__init__"], include_extras=True)
    return {name: found for name, hint in hints.items() if (found := _bounds_in(hint)) is not None}


def _bounds_in(hint: Any) -> Bounds | None:
    if get_origin(hint) is Annotated:
        return next((extra for extra in get_args(hint)[1:] if isinstance(extra, Bounds)), None)
    # Annotated[int, ...] | None
    return next((found for part in get_args(hint) if (found := _bounds_in(part)) is not None), None)


def bound_problems(kind: type, values: Mapping[str, Any], section: str) -> list[str]:
    """List the options that are out of their bounds, each with its value and the numbers that are allowed.

    Args:
        kind: Class that declares the options.
        values: Values of the options by name; objects that are options themselves are looked into.
        section: Section of the configuration that the options stand in, such as "model"; "" for none.
    """
    problems = [
        f"{name} is {values[option]}: give {bounds}"
        for option, bounds in bounds_of(kind).items()
        if option in values and not bounds.allows(values[option])
        for name in [f"{section}.{option}" if section else option]
    ]
    for option, value in values.items():
        if is_dataclass(value) and not isinstance(value, type):
            problems += bound_problems(type(value), vars(value), f"{section}.{option}" if section else option)
    return problems


def check_number(option: str, value: float | None, bounds: Bounds) -> list[str]:
    """List what is wrong with a single number; nothing if it is allowed."""
    return [] if bounds.allows(value) else [f"{option} is {value}: give {bounds}"]
