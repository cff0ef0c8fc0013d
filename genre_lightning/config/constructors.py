"""Constructors that take the fields of a dataclass of options, so that each option is declared in one place."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import PurePath
from typing import Any, Concatenate, ParamSpec, TypeVar, get_args, get_type_hints

P = ParamSpec("P")
Options = TypeVar("Options")
Self = TypeVar("Self")


def takes(
    options: Callable[P, Options],
) -> Callable[[Callable[[Self, Options], None]], Callable[Concatenate[Self, P], None]]:
    """Give an `__init__` that takes an object of options the options themselves as its arguments.

    `inspect.signature`, type checkers and the parser of the command line then see each of them with its type. A group
    of options, such as `lora`, may also be given as a mapping, as `load_from_checkpoint` does.

    Args:
        options: The dataclass.
    """
    kind: Any = options
    fields = {field.name: field for field in dataclasses.fields(kind)}
    hints = get_type_hints(kind, include_extras=True)
    parameters = [
        p.replace(annotation=hints[p.name], default=_default(fields[p.name], p.default))
        for p in inspect.signature(kind).parameters.values()
    ]
    groups = {name: group for name in fields for group in get_args(hints[name]) if dataclasses.is_dataclass(group)}

    def decorate(init: Callable[[Self, Options], None]) -> Callable[Concatenate[Self, P], None]:
        def constructor(self: Self, *args: P.args, **kwargs: P.kwargs) -> None:
            for name, group in groups.items():
                if isinstance(value := kwargs.get(name), Mapping):
                    kwargs[name] = group(**value)  # type: ignore[operator]
            init(self, options(*args, **kwargs))

        signature: Any = constructor  # functions take attributes that their type does not know
        own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
        signature.__signature__ = inspect.Signature([own, *parameters], return_annotation=None)
        signature.__annotations__ = {p.name: p.annotation for p in parameters}
        signature.__name__, signature.__qualname__ = init.__name__, init.__qualname__
        signature.__module__, signature.__doc__ = init.__module__, _documented(kind)
        return constructor

    return decorate


def values(options: Any) -> dict[str, Any]:
    """Return options by name, as the arguments of a constructor that takes them."""
    return {field.name: getattr(options, field.name) for field in dataclasses.fields(options)}


def plain(options: Any) -> dict[str, Any]:
    """Return options as values that YAML and a checkpoint of plain values hold; a function becomes its import path."""

    def value(content: Any) -> Any:
        if isinstance(content, dict):
            return {name: value(inner) for name, inner in content.items()}
        if isinstance(content, list | tuple):
            return [value(inner) for inner in content]
        if callable(content):
            return f"{content.__module__}.{getattr(content, '__qualname__', type(content).__qualname__)}"
        return str(content) if isinstance(content, PurePath) else content

    return {name: value(content) for name, content in dataclasses.asdict(options).items()}


def _default(field: dataclasses.Field[Any], default: Any) -> Any:
    return default if field.default_factory is dataclasses.MISSING else field.default_factory()


def _documented(kind: type) -> str:
    """Join the sections on attributes of a dataclass and those that it extends."""
    sections = []
    for owner in kind.__mro__:
        _, found, section = (vars(owner).get("__doc__") or "").partition("Attributes:\n")
        if found:
            sections.append(inspect.cleandoc("\n" + section))
    indented = "\n".join(sections).replace("\n", "\n    ")
    return f"Make it of its options.\n\nArgs:\n    {indented}\n"
