"""Whether an option changes what is trained, said beside the option: `num_workers: Annotated[int, UNCHANGED] = 0`."""

from __future__ import annotations

from typing import Annotated, Any, get_args, get_origin, get_type_hints


class Unchanged:
    """Marks an option of where or how fast a training runs, or of what it shows or keeps; not of what is trained."""


UNCHANGED = Unchanged()


def unchanging(kind: type) -> list[str]:
    """List the options of a dataclass that do not change what is trained."""
    hints: dict[str, Any] = get_type_hints(kind, include_extras=True)
    return [name for name, hint in hints.items() if _is_marked(hint)]


def _is_marked(hint: Any) -> bool:
    return get_origin(hint) is Annotated and any(isinstance(extra, Unchanged) for extra in get_args(hint)[1:])
